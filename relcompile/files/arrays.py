"""Arrays of numbers out of .npy and .npz files: what a header promises is checked before any memory is taken."""

import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from relcompile.errors import InputSpecError, RelcompileError
from relcompile.files.paths import open_input

Array = NDArray[Any]
MOST_ARRAYS: Final = 1000  # in one .npz
LARGEST_ARCHIVE: Final = 2**34  # bytes, unpacked: an .npz is read as a whole
LARGEST_ARRAY: Final = 2**40  # bytes: an .npy is mapped, not read
_WIDTHS = {"bool": "", "float": "16 32 64", "int": "8 16 32 64", "uint": "8 16 32 64"}
DTYPES = frozenset(kind + width for kind, widths in _WIDTHS.items() for width in widths.split(" "))
"""The data types that numpy, PyTorch and ONNX share."""


def map_array(
    path: Path | str, what: str, limit: int = LARGEST_ARRAY, error: type[RelcompileError] = InputSpecError
) -> Array:
    """The array in a .npy file, mapped into memory and read only; in the byte order of the file.

    Args:
        path: the file.
        what: what it is to the user, for the message.
        limit: bytes.
        error: what is raised.

    Raises:
        RelcompileError: as `error`; the file is not a regular one, too large or damaged, or holds no numbers.
    """
    with open_input(path, what, limit, error) as file:
        try:
            shape, fortran_order, dtype = _header(file, os.fstat(file.fileno()).st_size)
            if 0 in shape:
                return np.empty(shape, dtype)
            return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran_order else "C")
        except Exception as cause:  # numpy parses a header as Python: SyntaxError, RecursionError, TypeError and more
            raise error(f"{what} {path} cannot be read: {cause}") from cause


def read_arrays(path: Path | str, what: str, error: type[RelcompileError] = InputSpecError) -> dict[str, Array]:
    """The arrays in a .npz file, by name; members that are no arrays are left out.

    Raises:
        RelcompileError: as `error`; the file is not a regular one, too large (unpacked) or damaged, or an array in it
            holds no numbers.
    """
    with open_input(path, what, LARGEST_ARCHIVE, error) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _array_members(archive)
                return {info.filename.removesuffix(".npy"): _unpacked(archive, info) for info in members}
        except Exception as cause:  # zipfile and its decompressors raise RuntimeError, zlib.error, EOFError and more
            raise error(f"{what} {path} cannot be read: {cause}") from cause


def native(array: Array) -> Array:
    """The array in the byte order of this machine, C-contiguous and writable; a copy where it is not so yet."""
    return np.require(array, array.dtype.newbyteorder("="), ["C", "W"])


def _array_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The arrays of the archive, when there are not too many and their sizes are bearable."""
    members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    total = sum(info.file_size for info in members)
    if len(members) > MOST_ARRAYS or total > LARGEST_ARCHIVE:
        raise ValueError(
            f"it unpacks to {len(members):,} arrays of {total:,} bytes, more than the {MOST_ARRAYS:,} arrays and "
            f"{LARGEST_ARCHIVE:,} bytes that are read; a .npy file is read bit by bit and may be larger"
        )
    if len({info.filename for info in members}) < len(members):
        raise ValueError("two arrays in it have the same name")
    return members


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """One array; its checksum is verified on the way."""
    with archive.open(info) as member:
        shape, fortran_order, dtype = _header(member, info.file_size)
        content = bytearray(member.read())
    flat = np.frombuffer(content, dtype, math.prod(shape)) if content else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype from the header of a stream of `size` bytes, which holds exactly that array.

    Raises:
        ValueError: it does not, or the array does not hold numbers; or whatever numpy raises.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has version {version} of the format, which only tables with named columns need")
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, about the text of the header
        shape, fortran_order, dtype = parse(stream)
    if dtype.name not in DTYPES:
        raise ValueError(f"it holds {str(dtype)[:80]}, not numbers of one of the types {', '.join(sorted(DTYPES))}")
    needed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or needed != held:
        raise ValueError(f"its header says {dtype} {str(shape)[:80]}, {needed:,} bytes, but {held:,} bytes follow")
    return shape, fortran_order, dtype
