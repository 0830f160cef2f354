"""Requests of many threads, answered in order: what waits at the same time, and fits together, is one batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from relcompile.errors import InputSpecError, OverloadedError
from relcompile.files.records import InputRecord
from relcompile.runtime.feeds import Array

_BATCH: Final = "batch"

Answer = Future[dict[str, Array]]


@dataclass(frozen=True, eq=False)
class _Request:
    """What the graph reads for one caller, and where the caller waits."""

    feeds: dict[str, Array]
    rows: int
    answer: Answer = field(default_factory=Answer)

    @property
    def form(self) -> tuple[Any, ...]:
        """Requests of one form can be rows of one batch."""
        return tuple((name, array.shape[1:], array.dtype) for name, array in self.feeds.items())


class Runs(Protocol):
    """What a queue runs: a `ProductionExplainer`, or the `Graph` of a prediction alone."""

    @property
    def inputs(self) -> tuple[InputRecord, ...]: ...

    @property
    def outputs(self) -> tuple[InputRecord, ...]: ...

    def run(self, feeds: Mapping[str, Array], /) -> dict[str, Array]:
        """All outputs by name."""
        ...


class RunQueue:
    """One thread that runs one file for many callers.

    Requests are merged along the batch, as long as they have `rows` rows together; nobody waits for others to come. A
    sample's numbers are those of a run of its own up to float32 rounding, since kernels depend on the batch.

    Args:
        graph: What is run.
        waiting: How many requests may wait, 1 or more.
        rows: How many rows a request, or a batch, may have, 1 or more.
    """

    def __init__(self, graph: Runs, waiting: int = 64, rows: int = 32) -> None:
        self._graph, self.rows = graph, rows
        self._most_waiting = waiting
        self._merges = all(record.shape[:1] == (_BATCH,) for record in (*graph.inputs, *graph.outputs))
        self._waiting = deque[_Request]()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, feeds: dict[str, Array]) -> Answer:
        """Queue what `feeds` of the explainer returned; a cancelled answer is not computed, if it still waits.

        Raises:
            InputSpecError: it has more rows than may be run at once.
            OverloadedError: too many requests wait, or the queue is closed.
        """
        request = _Request(feeds, len(next(iter(feeds.values()))))
        if request.rows > self.rows:
            raise InputSpecError(f"{request.rows} rows were given, at most {self.rows} are run at once; send fewer")
        with self._changed:
            if self._closed:
                raise OverloadedError("the queue is closed")
            if len(self._waiting) >= self._most_waiting:
                raise OverloadedError(f"{len(self._waiting)} requests wait already; try again later")
            self._waiting.append(request)
            self._changed.notify()
        return request.answer

    def close(self) -> None:
        """Answer what waits, then end; nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Requests are taken and answered."""
        return self._thread.is_alive() and not self._closed

    def _work(self) -> None:
        while group := self._next():
            self._answer([request for request in group if request.answer.set_running_or_notify_cancel()])

    def _next(self) -> list[_Request]:
        """What is run next, as one batch; nothing when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            group = list[_Request]()
            while self._waiting and self._fits(group, self._waiting[0]):
                group.append(self._waiting.popleft())
        return group

    def _fits(self, group: Sequence[_Request], further: _Request) -> bool:
        if not group:
            return True
        rows = sum(request.rows for request in group) + further.rows
        return self._merges and rows <= self.rows and group[0].form == further.form

    def _answer(self, group: Sequence[_Request]) -> None:
        """Run the requests as one batch, and give each its rows."""
        if not group:
            return
        try:
            found = self._graph.run(_merged([request.feeds for request in group]))
        except Exception as error:  # every caller is told, and the thread lives on
            for request in group:
                request.answer.set_exception(error)
            return
        if len(group) == 1:
            group[0].answer.set_result(found)
            return
        start = 0
        for request in group:
            end = start + request.rows
            request.answer.set_result({name: array[start:end] for name, array in found.items()})
            start = end


def _merged(feeds: Sequence[dict[str, Array]]) -> dict[str, Array]:
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}
