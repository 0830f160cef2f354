"""`relcompile batch`: many photographs in, Parquet or Zarr out; goes on where it was stopped. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from relcompile.cli import views
from relcompile.errors import InputSpecError
from relcompile.runtime.options import Device

if TYPE_CHECKING:
    from relcompile.bulk.explain_batch import ExplainBatch
    from relcompile.bulk.job import Job
    from relcompile.bulk.parts import Part
    from relcompile.bulk.rows import Rows


class Engine(StrEnum):
    """Who explains."""

    LOCAL = "local"
    RAY = "ray"


class Stored(StrEnum):
    """How relevance is stored."""

    FLOAT16 = "float16"
    INT8 = "int8"


class Format(StrEnum):
    """What the results are."""

    PARQUET = "parquet"
    ZARR = "zarr"


@dataclass(frozen=True)
class Said:
    """What is said of each photograph, and how it is stored."""

    target: Annotated[int | None, typer.Option("--target", "-t", help="A class; default: the best one of each.")] = None
    stored: Annotated[Stored, typer.Option(help="How relevance is stored, with a scale for each map.")] = Stored.FLOAT16
    keep_channels: Annotated[bool, typer.Option("--keep-channels", help="Do not sum relevance over channels.")] = False
    format: Annotated[Format, typer.Option(help="Tables in OUT/relevance, or arrays in OUT/relevance.zarr.")] = (
        Format.PARQUET
    )

    def rows(self, out: Path, parts: Sequence[Part], shape: tuple[int, ...]) -> Rows:
        """Where the results go."""
        from relcompile.bulk.rows import ParquetRows, ZarrRows

        if self.format is Format.ZARR:
            return ZarrRows(out / "relevance.zarr", parts, shape, self.stored.value)
        return ParquetRows(out / "relevance", parts, shape)


@dataclass(frozen=True)
class Workers:
    """Who explains, and how."""

    engine: Annotated[Engine, typer.Option(help="This process, or a Ray cluster.")] = Engine.LOCAL
    workers: Annotated[int, typer.Option(help="Actors of Ray.", min=1)] = 1
    rows: Annotated[int, typer.Option(help="Photographs that are run at once.", min=1)] = 8
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto"
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all cores, with Ray 1.")] = None

    def explain(self, explainer: Path, said: Said) -> ExplainBatch:
        """What explains a batch."""
        from relcompile.bulk.explain_batch import ExplainBatch

        threads = 1 if self.threads is None and self.engine is Engine.RAY else self.threads
        device, path = cast("Device", self.device), str(explainer.absolute())
        return ExplainBatch(path, said.target, said.stored.value, said.keep_channels, self.rows, device, threads)

    def run(self, job: Job) -> Iterator[int]:
        """Do what is left; see `relcompile.bulk.engines`."""
        from relcompile.bulk.engines import run_here, run_on_ray

        return run_on_ray(job, self.workers) if self.engine is Engine.RAY else run_here(job)


def batch(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    photographs: Annotated[
        Path, typer.Argument(help="A folder of photographs, of .parquet files with pictures, or of .tar files of them.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder of the results; a job that stopped goes on in it.")],
    said: Said,
    workers: Workers,
    part: Annotated[int, typer.Option(help="Photographs of one file of the results.", min=1)] = 256,
) -> None:
    """Explain many photographs into Parquet files or Zarr arrays, with a table of those that cannot be read.

    A job that was stopped, in whatever way, goes on with the same command: every photograph is in the results once.
    """
    from relcompile.bulk.job import Job
    from relcompile.bulk.parts import parts_of

    if workers.workers > 1 and workers.engine is Engine.LOCAL:
        raise InputSpecError(f"--workers {workers.workers} needs --engine ray")
    if photographs.is_dir() and out.resolve().is_relative_to(photographs.resolve()):
        raise InputSpecError(f"{out} lies in {photographs}: results would be read as photographs; give another folder")
    asked = workers.explain(explainer, said)
    views.note(f"relevance of each photograph: {' x '.join(map(str, asked.shape))}, {said.stored}")
    rows = said.rows(out.absolute(), parts_of(photographs.absolute(), part), asked.shape)
    job = Job(asked, rows, out.absolute())
    total = sum(part.rows for part in job.parts)
    with job.opened():
        done = total - sum(part.rows for part in job.left)
        with views.progress_bar("batch", total, done) as tell:
            for count in workers.run(job):
                done += count
                tell(done)
    if job.errors:
        raise InputSpecError(f"{job.errors} of {total} photographs could not be explained: see {out / 'errors'}")
    views.note(f"{total} photographs are explained in {out / rows.folder.name}")
