"""Who does the parts of a job: this process, or the actors of a Ray cluster. Both write the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from relcompile.bulk.job import Job
from relcompile.bulk.parts import Part


def run_here(job: Job) -> Iterator[int]:
    """Do what is left, one part after the other; yields how many photographs each had."""
    for part in job.left:
        yield job.do(part)


def run_on_ray(job: Job, workers: int) -> Iterator[int]:
    """Do what is left with so many actors, of one processor each; the folder has to be one that all of them see.

    A cluster that the environment names is used (RAY_ADDRESS), else one is started on this machine.
    """
    ray: Any = import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        actor: Any = ray.remote(num_cpus=1)(_Worker)
        pool: Any = import_module("ray.util").ActorPool([actor.remote(job) for _ in range(workers)])
        yield from pool.map_unordered(_begin, job.left)
    finally:
        if ours:
            ray.shutdown()


def _begin(worker: Any, part: Part) -> Any:
    return worker.do.remote(part)


class _Worker:
    """One actor."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def do(self, part: Part) -> int:
        return self._job.do(part)
