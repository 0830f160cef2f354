"""A job in a folder: parts of rows, each written whole or not at all, so that what is there is done.

OUT/relevance/part-00000.parquet   rows of photographs that were explained
OUT/errors/part-00000.parquet      path and reason of those that were not, if there are any
OUT/job.json                       what the job is of; another one does not go on here
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relcompile.bulk.explain_batch import ExplainBatch
from relcompile.bulk.parts import Part, fingerprint
from relcompile.errors import ExportError
from relcompile.files.onnx_bounds import LARGEST_EXPLAINER
from relcompile.files.paths import atomic_path, open_input, read_text
from relcompile.runtime.feeds import Array

_LONGEST_MANIFEST: Final = 2**20
_TYPES: Final = {
    "path": pa.string(),
    "prediction": pa.int64(),
    "target": pa.int64(),
    "logit": pa.float32(),
    "sum": pa.float32(),
    "scale": pa.float64(),
}


@dataclass(frozen=True)
class Job:
    """Parts, what explains them, and the folder of the results.

    Args:
        explain: What explains a part.
        parts: All of them.
        folder: Where the results go.
    """

    explain: ExplainBatch
    parts: Sequence[Part]
    folder: Path

    @property
    def left(self) -> list[Part]:
        """The parts that are not done."""
        return [part for part in self.parts if not self._file("relevance", part).exists()]

    @property
    def errors(self) -> int:
        """How many photographs could not be explained, of the parts that are done."""
        files = (self._file("errors", part) for part in self.parts)
        return sum(pq.read_metadata(file).num_rows for file in files if file.exists())

    @contextmanager
    def opened(self) -> Generator[None]:
        """Make the folder, or go on in it; nobody else may meanwhile.

        Raises:
            ExportError: another job is or was at work there, or it cannot be written.
        """
        for name in ("relevance", "errors"):
            _make(self.folder / name)
        with _alone(self.folder / "job.json"):
            self._claim(self.folder / "job.json")
            for name in ("relevance", "errors"):
                for stale in (self.folder / name).glob(".relcompile-*"):
                    shutil.rmtree(stale, ignore_errors=True)
            yield

    def do(self, part: Part) -> int:
        """Explain one part and write it; the errors first, since the rows say that it is done.

        Returns:
            How many photographs it has.
        """
        columns = self.explain(part.read())
        failed = columns["error"] != ""
        if failed.any():
            errors = pa.table({name: pa.array(columns[name][failed], pa.string()) for name in ("path", "error")})
            self._write(errors, self._file("errors", part))
        rows = {name: column[~failed] for name, column in columns.items() if name != "error"}
        self._write(table_of(rows, self.explain.shape), self._file("relevance", part))
        return part.rows

    def _claim(self, path: Path) -> None:
        """Write what the job is of, or find it there."""
        facts = {**dataclasses.asdict(self.explain), "explainer": _checksum(Path(self.explain.explainer))}
        text = json.dumps({**facts, "inputs": fingerprint(self.parts)}, indent=1)
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        elif read_text(path, "the job", _LONGEST_MANIFEST, ExportError) != text:
            raise ExportError(
                f"{self.folder} holds the results of another job (explainer, options or photographs differ; {path} "
                "says which it was); give another folder, or remove it"
            )

    def _file(self, kind: str, part: Part) -> Path:
        return self.folder / kind / f"part-{part.number:05}.parquet"

    def _write(self, table: Any, path: Path) -> None:
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def table_of(columns: dict[str, Array], shape: tuple[int, ...]) -> Any:
    """The rows as a table of Arrow; relevance is a tensor of a fixed shape."""
    relevance = columns["relevance"]
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(relevance.dtype), shape)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(relevance.reshape(-1)), int(np.prod(shape)))
    plain = {name: pa.array(columns[name], of) for name, of in _TYPES.items()}
    return pa.table({**plain, "relevance": pa.ExtensionArray.from_storage(kind, flat)})


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder}: {error.strerror}") from error


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Hold a lock on the file, which the system takes away from a process that ends in whatever way."""
    import fcntl

    with path.with_suffix(".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportError(f"another process is at work in {path.parent}") from error
        yield


def _checksum(path: Path) -> str:
    with open_input(path, "the explainer", LARGEST_EXPLAINER) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
