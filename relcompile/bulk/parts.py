"""What a job is made of: photographs in folders, Parquet or tar files, cut into parts that are done one at a time."""

from __future__ import annotations

import hashlib
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from relcompile.errors import InputSpecError, RelcompileError
from relcompile.pictures.images import LARGEST_PHOTOGRAPH, image_suffixes, photographs

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Part(ABC):
    """Some photographs that are explained and written together.

    Attributes:
        number: of the part.
        start: how many photographs there are in the parts before it.
        rows: how many there are.
    """

    number: int
    start: int
    rows: int

    @abstractmethod
    def read(self) -> Mapping[str, Sequence[Any]]:
        """The columns that `ExplainBatch` takes; "path" is what the result calls each photograph.

        Raises:
            InputSpecError: the file that holds them cannot be read, or no more.
        """

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """What photographs are called that cannot be read."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the part was made of."""


@dataclass(frozen=True)
class FilesPart(Part):
    """Files of a folder."""

    paths: tuple[str, ...]

    def read(self) -> Mapping[str, Sequence[Any]]:
        return {"path": self.names}

    @property
    def names(self) -> Sequence[str]:
        return self.paths

    @property
    def identity(self) -> str:
        return "\n".join(self.paths)


@dataclass(frozen=True)
class RowGroupPart(Part):
    """One row group of a Parquet file.

    Attributes:
        file: its path.
        group: which.
        first: the number of its first row in the file.
    """

    file: str
    group: int
    first: int

    def read(self) -> Mapping[str, Sequence[Any]]:
        with _reading(self.file, "Parquet"), pq.ParquetFile(self.file) as file:
            images = _image_column(file.schema_arrow, self.file)
            names = [name for name in (images, "path") if name in file.schema_arrow.names]
            table = file.read_row_group(self.group, columns=names)
            values = table[images].to_pylist()
            named = table["path"].to_pylist() if "path" in names else [None] * len(values)
        contents = [value["bytes"] if isinstance(value, dict) else value for value in values]
        paths = [str(name) if name else number for name, number in zip(named, self.names, strict=True)]
        return {"path": paths, "bytes": [content or b"" for content in contents]}

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.file}#{self.first + k}" for k in range(self.rows)]

    @property
    def identity(self) -> str:
        status = os.stat(self.file)
        return f"{self.file} {self.group} {self.rows} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True)
class TarPart(Part):
    """Some photographs of a tar file, as WebDataset has them.

    Attributes:
        file: its path.
        members: of each its name, where its content begins, and its size.
    """

    file: str
    members: tuple[tuple[str, int, int], ...]

    def read(self) -> Mapping[str, Sequence[Any]]:
        contents = list[bytes]()
        with _reading(self.file, "an uncompressed tar file"), open(self.file, "rb") as file:
            for _, start, size in self.members:
                file.seek(start)
                contents.append(file.read(min(size, LARGEST_PHOTOGRAPH + 1)))  # what is larger is no photograph
        return {"path": self.names, "bytes": contents}

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.file}#{name}" for name, _, _ in self.members]

    @property
    def identity(self) -> str:
        status = os.stat(self.file)
        return f"{self.file} {self.members[0][1]} {self.rows} {status.st_size} {status.st_mtime_ns}"


def parts_of(given: Path, rows: int) -> tuple[Part, ...]:
    """The parts of a folder of photographs, of Parquet files or of tar files, or of one file.

    Args:
        given: the folder or file.
        rows: photographs of a part; of Parquet files, a part is a row group, whatever its size.

    Raises:
        InputSpecError: it is not there, there is nothing in it, or a file is no tar file, or no Parquet with a column
            of pictures.
    """
    if not os.path.exists(given):
        raise InputSpecError(f"there is no file or folder {given}")
    for suffix, cut in ((".parquet", _row_groups), (".tar", _members)):
        files = sorted(path for path in (given, *given.rglob("*")) if path.suffix == suffix and path.is_file())
        found = [part for file in files for part in cut(file, rows)]
        if files:
            break
    else:
        found = _files(given, rows)
    if not found:
        raise InputSpecError(f"there are no photographs, and no .parquet or .tar files with some, in {given}")
    starts = accumulate((part.rows for part in found), initial=0)
    return tuple(
        replace(part, number=k, start=start) for k, (part, start) in enumerate(zip(found, starts, strict=False))
    )


def fingerprint(parts: Sequence[Part]) -> str:
    """Equal for equal inputs, cut in the same way."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.identity.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()


def _files(given: Path, rows: int) -> list[Part]:
    found = [str(path) for path in photographs(given)] if given.is_dir() else [str(given)]
    return [FilesPart(0, 0, len(chunk), chunk) for chunk in _chunks(found, rows)]


def _row_groups(path: Path, _rows: int) -> list[Part]:
    with _reading(path, "Parquet"), pq.ParquetFile(path) as file:
        _image_column(file.schema_arrow, str(path))
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    firsts = accumulate(sizes, initial=0)
    return [
        RowGroupPart(0, 0, size, str(path), k, first)
        for k, (size, first) in enumerate(zip(sizes, firsts, strict=False))
    ]


def _members(path: Path, rows: int) -> list[Part]:
    """Files with the suffix of a photograph; what lies beside them (labels, captions) is left out."""
    suffixes = image_suffixes()
    with _reading(path, "an uncompressed tar file"), tarfile.open(path, "r:") as archive:
        found = [
            (each.name, each.offset_data, each.size)
            for each in archive
            if each.isreg() and not each.issparse() and Path(each.name).suffix.lower() in suffixes
        ]
        if any(size < 0 for _, _, size in found):
            raise tarfile.ReadError("it holds a file of negative size")
    return [TarPart(0, 0, len(chunk), str(path), chunk) for chunk in _chunks(found, rows)]


@contextmanager
def _reading(path: Path | str, kind: str) -> Generator[None]:
    """What a library says of a damaged file, as one message.

    Raises:
        InputSpecError: it said something.
    """
    try:
        yield
    except RelcompileError:
        raise
    except Exception as error:  # ValueError, UnicodeDecodeError, MemoryError and more, beside those that are documented
        raise InputSpecError(f"{path} cannot be read as {kind}: {error}") from error


def _chunks(found: Sequence[_Item], rows: int) -> Iterator[tuple[_Item, ...]]:
    return (tuple(found[start : start + rows]) for start in range(0, len(found), rows))


def _image_column(schema: Any, path: str) -> str:
    """The column with the files' contents: of bytes, or of records with "bytes", as Hugging Face's datasets have it."""
    fitting = [field.name for field in schema if _holds_files(field.type)]
    if len(fitting) != 1:
        raise InputSpecError(
            f"{path} should have one column of pictures (bytes, or records with bytes), but has "
            f"{', '.join(fitting) or 'none'} among {', '.join(schema.names)}"
        )
    return fitting[0]


def _holds_files(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_files(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
