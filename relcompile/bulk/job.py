"""A job in a folder: parts of rows, each written whole or not at all, so that what is there is done.

OUT/relevance/part-00000.parquet   rows of photographs that were explained
OUT/relevance.zarr                 or rows of all photographs, as arrays
OUT/errors/part-00000.parquet      path and reason of those that were not, if there are any
OUT/job.json                       what the job is of; another one does not go on here
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from relcompile.bulk.explain_batch import ExplainBatch
from relcompile.bulk.parts import Part, fingerprint
from relcompile.bulk.rows import Rows, forget_halves, part_file, write_table
from relcompile.errors import ExportError, InputSpecError
from relcompile.files.onnx_bounds import LARGEST_EXPLAINER
from relcompile.files.paths import atomic_path, make_folder, open_input, read_text
from relcompile.runtime.feeds import Array

_LONGEST_MANIFEST: Final = 2**20


@dataclass(frozen=True)
class Job:
    """What explains photographs, and where that goes.

    Args:
        explain: What explains a part.
        rows: Where the results go, and the parts that there are.
        folder: Where these and everything else lie.
    """

    explain: ExplainBatch
    rows: Rows
    folder: Path

    @property
    def parts(self) -> Sequence[Part]:
        """All of them."""
        return self.rows.parts

    @property
    def left(self) -> list[Part]:
        """The parts that are not done."""
        return self.rows.left

    @property
    def errors(self) -> int:
        """How many photographs could not be explained, of the parts that are done."""
        files = (part_file(self.folder / "errors", part) for part in self.parts)
        return sum(pq.read_metadata(file).num_rows for file in files if file.exists())

    @contextmanager
    def opened(self) -> Generator[None]:
        """Make the folder, or go on in it; nobody else may meanwhile.

        Raises:
            ExportError: another job is or was at work there, or it cannot be written.
        """
        make_folder(self.folder / "errors")
        with _alone(self.folder / "job.json"):
            self._claim(self.folder / "job.json")
            forget_halves(self.folder / "errors")
            self.rows.open()
            yield

    def do(self, part: Part) -> int:
        """Explain one part and write it; the errors first, since the rows say that it is done.

        Returns:
            How many photographs it has.
        """
        columns, told = self._columns(part), part_file(self.folder / "errors", part)
        failed = columns["error"] != ""
        told.unlink(missing_ok=True)  # of a try that was broken off
        if failed.any():
            errors = pa.table({name: pa.array(columns[name][failed], pa.string()) for name in ("path", "error")})
            write_table(errors, told)
        self.rows.write(part, columns)
        return part.rows

    def _columns(self, part: Part) -> dict[str, Array]:
        try:
            batch = part.read()
        except InputSpecError as error:
            return self.explain.failures(part.names, str(error))
        return self.explain(batch)

    def _claim(self, path: Path) -> None:
        """Write what the job is of, or find it there."""
        facts = {**dataclasses.asdict(self.explain), "explainer": _checksum(Path(self.explain.explainer))}
        written = {"rows": self.rows.folder.name, "inputs": fingerprint(self.parts)}
        text = json.dumps({**facts, **written}, indent=1)
        if not path.exists():
            if self.rows.folder.exists():
                raise ExportError(
                    f"{self.rows.folder} is there, but {path} is not, which says of what; give another folder, or "
                    f"remove {self.folder}"
                )
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        elif read_text(path, "the job", _LONGEST_MANIFEST, ExportError) != text:
            raise ExportError(
                f"{self.folder} holds the results of another job (explainer, options or photographs differ; {path} "
                "says which it was); give another folder, or remove this one"
            )


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
