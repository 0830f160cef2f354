"""What `torch.save` writes, now and before PyTorch 1.6: a pickle, and the bytes of its tensors."""

from __future__ import annotations

import os
import pickle
import pickletools
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch

MOST_PICKLE_BYTES = 32 << 20  # of the largest published models less than one is needed


def broken(what: str) -> pickle.UnpicklingError:
    """The error of a file that is not what `torch.save` writes."""
    return pickle.UnpicklingError(what)


class Archive:
    """The zip of a checkpoint: members that lie in the file as they are, each once.

    Raises:
        UnpicklingError: a member is compressed, or they are larger than the file.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        members = {info.filename.partition("/")[2]: info for info in self._zip.infolist()}
        sizes = sum(info.file_size for info in self._zip.infolist())
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in self._zip.infolist())
        if len(members) < len(self._zip.infolist()) or not stored or sizes > path.stat().st_size:
            raise broken("its members are compressed, overlap or share a name, which torch.save does not do")
        self._members = members

    def program(self) -> bytes:
        """The pickle."""
        if self._members["data.pkl"].file_size > MOST_PICKLE_BYTES:
            raise broken(f"its pickle is larger than {MOST_PICKLE_BYTES >> 20} MiB")
        order = self._read("byteorder").decode() if "byteorder" in self._members else "little"
        if order != sys.byteorder:
            raise broken(f"its numbers are stored {order!r} end first")
        return self._read("data.pkl")

    def storage(self, key: str, _dtype: torch.dtype, _count: int) -> bytearray:
        """The bytes of some tensors."""
        return bytearray(self._read(f"data/{key}"))

    def _read(self, name: str) -> bytes:
        """A member, whose checksum is right."""
        if name not in self._members:
            raise broken(f"it lacks the member {name!r}")
        return self._zip.read(self._members[name])


class Legacy:
    """The old format: pickles one behind the other, then the numbers of each storage. It has no checksums.

    Args:
        file: at its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, os.fstat(file.fileno()).st_size
        self._storages = dict[str, tuple[int, bytearray]]()
        for _ in range(3):  # what it is, of which version, and what machine wrote it
            self._pickle()

    def program(self) -> bytes:
        """The pickle."""
        return self._pickle()

    def storage(self, key: str, dtype: torch.dtype, count: int) -> bytearray:
        """Room for the bytes of some tensors, which `fill` reads: they stand behind the pickle."""
        self._left -= count * dtype.itemsize
        if self._left < 0:
            raise broken("its tensors are larger than the file")
        self._storages[key] = count, bytearray(count * dtype.itemsize)
        return self._storages[key][1]

    def fill(self) -> None:
        """Read all numbers, once the pickle has said what they are of."""
        operations = pickletools.genops(self._pickle())
        keys = [str(argument) for opcode, argument, _ in operations if opcode.name == "BINUNICODE"]
        if sorted(keys) != sorted(self._storages):
            raise broken("it lists other storages than it has")
        for key in keys:
            count, room = self._storages[key]
            if int.from_bytes(self._file.read(8), "little") != count or self._file.readinto(room) < len(room):  # type: ignore[attr-defined]
                raise broken("a storage is of another size, or cut off")

    def _pickle(self) -> bytes:
        """The next pickle; what is in it is not looked at."""
        start = self._file.tell()
        for _ in pickletools.genops(self._file):
            if self._file.tell() - start > MOST_PICKLE_BYTES:
                raise broken(f"a pickle is larger than {MOST_PICKLE_BYTES >> 20} MiB")
        end = self._file.tell()
        self._file.seek(start)
        return self._file.read(end - start)
