"""Where the rows of a job go: Parquet files, or the arrays of a Zarr group; a part is there whole, or not at all."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relcompile.bulk.explain_batch import Form
from relcompile.bulk.parts import Part
from relcompile.files.paths import atomic_path, make_folder, told_of
from relcompile.runtime.feeds import Array

_TYPES: Final = {
    "path": pa.string(),
    "prediction": pa.int64(),
    "target": pa.int64(),
    "logit": pa.float32(),
    "sum": pa.float32(),
    "scale": pa.float64(),
}


class Rows(Protocol):
    """The results of a job; several processes may write different parts at the same time."""

    @property
    def folder(self) -> Path: ...

    @property
    def parts(self) -> Sequence[Part]: ...

    def open(self) -> None:
        """Make room for the parts, or go on; what a process that was killed left half done goes away.

        Raises:
            ExportError: it cannot be made.
        """
        ...

    @property
    def left(self) -> list[Part]:
        """The parts that are not there."""
        ...

    def write(self, part: Part, columns: Mapping[str, Array]) -> None:
        """Write what `ExplainBatch` says of a part.

        Raises:
            ExportError: it cannot be written; then the part is not there.
        """
        ...


@dataclass(frozen=True)
class ParquetRows:
    """A file for each part, with the photographs that were explained.

    Args:
        folder: where they lie.
        parts: of the job.
        shape: of the relevance of one photograph.
    """

    folder: Path
    parts: Sequence[Part]
    shape: tuple[int, ...]

    def open(self) -> None:
        make_folder(self.folder)
        forget_halves(self.folder)

    @property
    def left(self) -> list[Part]:
        return [part for part in self.parts if not part_file(self.folder, part).exists()]

    def write(self, part: Part, columns: Mapping[str, Array]) -> None:
        explained = columns["error"] == ""
        rows = {name: columns[name][explained] for name in (*_TYPES, "relevance")}
        write_table(table_of(rows, self.shape), part_file(self.folder, part))


@dataclass(frozen=True)
class ZarrRows:
    """A group of arrays, one for each column, along an axis of all photographs.

    A photograph that was not explained has a row, too: prediction and target -1, NaN for the other numbers, relevance
    0. Its path comes last: where there is none, nothing is done. Every part begins with a chunk (of relevance, a shard
    with a chunk for each photograph), so that parts share none.

    Args:
        folder: of the group.
        parts: of the job.
        shape: of the relevance of one photograph.
        stored: its data type.
    """

    folder: Path
    parts: Sequence[Part]
    shape: tuple[int, ...]
    stored: Form

    def open(self) -> None:
        make_folder(self.folder)
        with told_of(self.folder, self.folder):
            for half in self.folder.rglob("*.partial"):
                half.unlink()
            group = self._group("a")
            for name, (dtype, fill) in self._columns.items():
                if name not in group:
                    group.create_array(name, **self._form(name), dtype=dtype, fill_value=fill)

    @property
    def left(self) -> list[Part]:
        done: Array = self._group("r")["path"][:] != ""
        return [part for part in self.parts if not done[part.start : part.start + part.rows].all()]

    def write(self, part: Part, columns: Mapping[str, Array]) -> None:
        group, rows = self._group("r+"), slice(part.start, part.start + part.rows)
        with told_of(self.folder, self.folder):
            for name in set(self._columns) - {"path"}:
                group[name][rows] = columns[name]
            os.sync()  # all of it is on the disk before it counts
            group["path"][rows] = columns["path"]

    def _form(self, name: str) -> dict[str, Any]:
        """Shape and chunks of one array."""
        total, longest = sum(part.rows for part in self.parts), max(part.rows for part in self.parts)
        rows = math.gcd(*(part.start for part in self.parts)) or max(longest, 1)
        if name != "relevance":
            return {"shape": (total,), "chunks": (rows,), "dimension_names": ("photograph",)}
        axes = ("photograph", *("channel", "height", "width")[-len(self.shape) :])
        shape, one, several = ((count, *self.shape) for count in (total, 1, rows))
        return {"shape": shape, "chunks": one, "shards": several, "dimension_names": axes}

    @property
    def _columns(self) -> dict[str, tuple[Any, object]]:
        """Data types, and what stands where nothing is written."""
        return {
            "path": (str, ""),
            "prediction": (np.int64, -1),
            "target": (np.int64, -1),
            "logit": (np.float32, np.nan),
            "sum": (np.float32, np.nan),
            "scale": (np.float64, np.nan),
            "relevance": (self.stored, 0),
        }

    def _group(self, mode: str) -> Any:
        return import_module("zarr").open_group(self.folder, mode=mode)


def table_of(columns: Mapping[str, Array], shape: tuple[int, ...]) -> Any:
    """The rows as a table of Arrow; relevance is a tensor of a fixed shape."""
    relevance = columns["relevance"]
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(relevance.dtype), shape)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(relevance.reshape(-1)), int(np.prod(shape)))
    plain = {name: pa.array(columns[name], of) for name, of in _TYPES.items()}
    return pa.table({**plain, "relevance": pa.ExtensionArray.from_storage(kind, flat)})


def part_file(folder: Path, part: Part) -> Path:
    """The Parquet file of one part."""
    return folder / f"part-{part.number:05}.parquet"


def write_table(table: Any, path: Path) -> None:
    """Whole, or not at all.

    Raises:
        ExportError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def forget_halves(folder: Path) -> None:
    """Remove what a process that was killed left half written."""
    for stale in folder.glob(".relcompile-*"):
        shutil.rmtree(stale, ignore_errors=True)
