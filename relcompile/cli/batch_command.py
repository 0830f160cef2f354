"""`relcompile batch`: many photographs in, Parquet out; goes on where it was stopped. Needs neither torch nor onnx."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from relcompile.cli import views
from relcompile.errors import InputSpecError
from relcompile.runtime.options import Device


class Engine(StrEnum):
    """Who explains."""

    LOCAL = "local"
    RAY = "ray"


class Stored(StrEnum):
    """How relevance is stored."""

    FLOAT16 = "float16"
    INT8 = "int8"


def batch(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    photographs: Annotated[Path, typer.Argument(help="A folder of photographs, or of .parquet files with pictures.")],
    out: Annotated[Path, typer.Argument(help="The folder of the results; a job that stopped goes on in it.")],
    target: Annotated[
        int | None, typer.Option("--target", "-t", help="A class; default: the best one of each.")
    ] = None,
    stored: Annotated[
        Stored, typer.Option(help="How relevance is stored, with a scale for each map.")
    ] = Stored.FLOAT16,
    keep_channels: Annotated[bool, typer.Option("--keep-channels", help="Do not sum relevance over channels.")] = False,
    engine: Annotated[Engine, typer.Option(help="This process, or a Ray cluster.")] = Engine.LOCAL,
    workers: Annotated[int, typer.Option(help="Actors of Ray.", min=1)] = 1,
    rows: Annotated[int, typer.Option(help="Photographs that are run at once.", min=1)] = 8,
    part: Annotated[int, typer.Option(help="Photographs of one file of the results.", min=1)] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all cores, with Ray 1.")] = None,
) -> None:
    """Explain many photographs into Parquet files, with a table of those that cannot be read.

    A job that was stopped, in whatever way, goes on with the same command: every photograph is in the results once.
    """
    from relcompile.bulk.engines import run_here, run_on_ray
    from relcompile.bulk.explain_batch import ExplainBatch
    from relcompile.bulk.job import Job
    from relcompile.bulk.parts import parts_of

    on_ray = engine is Engine.RAY
    if workers > 1 and not on_ray:
        raise InputSpecError(f"--workers {workers} needs --engine ray")
    if photographs.is_dir() and out.resolve().is_relative_to(photographs.resolve()):
        raise InputSpecError(f"{out} lies in {photographs}: results would be read as photographs; give another folder")
    one = threads if threads is not None or not on_ray else 1
    path = str(explainer.absolute())
    asked = ExplainBatch(path, target, stored.value, keep_channels, rows, cast("Device", device), one)
    views.note(f"relevance of each photograph: {' x '.join(map(str, asked.shape))}, {stored}")
    job = Job(asked, parts_of(photographs.absolute(), part), out.absolute())
    total = sum(part.rows for part in job.parts)
    with job.opened():
        done = total - sum(part.rows for part in job.left)
        with views.progress_bar("batch", total, done) as tell:
            for count in run_on_ray(job, workers) if on_ray else run_here(job):
                done += count
                tell(done)
    if job.errors:
        raise InputSpecError(f"{job.errors} of {total} photographs could not be explained: see {out / 'errors'}")
    views.note(f"{total} photographs are explained in {out / 'relevance'}")
