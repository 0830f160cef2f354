"""Arrays: what a header promises is checked before memory is taken, and what is no number is named."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relcompile.calibration.data import open_arrays
from relcompile.errors import CalibrationError, InputSpecError
from relcompile.files.arrays import map_array, native, read_arrays
from relcompile.question.references import parse_reference

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def npy(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy file with exactly this header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + content


def described(descr: Any = "<f4", shape: object = (2,), content: bytes = b"12345678") -> bytes:
    return npy(f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}", content)


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


READ = {
    "plain": NUMBERS,
    "big-endian": NUMBERS.astype(">f4"),
    "fortran": np.asfortranarray(NUMBERS),
    "strided": NUMBERS[:, ::2],
    "half": NUMBERS.astype(np.float16),
    "bytes": NUMBERS.astype(np.uint8),
    "truth": NUMBERS > 3,
    "empty": NUMBERS[:0],
    "one number": np.array(3.0),
}

# content, part of the message
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cannot be read"),
    "foreign": (b"no array", "cannot be read"),
    "cut off": (saved(NUMBERS)[:-1], "96 bytes, but 95 bytes follow"),
    "too long": (saved(NUMBERS) + b"x", "96 bytes, but 97 bytes follow"),
    "strings": (saved(np.array(["a", "b"])), "it holds <U1, not numbers"),
    "dates": (saved(np.array(["2020-01-01"], "datetime64[D]")), "it holds datetime64[D], not numbers"),
    "structured": (saved(np.zeros(2, [("a", "f4"), ("b", "f4")])), "not numbers"),
    "objects": (saved(np.array([{}, None], object)), "it holds object, not numbers"),
    "complex": (saved(NUMBERS.astype(complex)), "it holds complex128, not numbers"),
    "long double": (described("<f16", "(1,)", bytes(16)), "not numbers"),
    "huge": (described(shape=(2**40, 2**40)), "bytes, but 8 bytes follow"),
    "overflow to 8 bytes": (described(shape=(2**32, 2**32, 2)), "bytes, but 8 bytes follow"),
    "negative": (described(shape=(-1, -2)), "8 bytes, but 8 bytes follow"),
    "many axes": (described(shape=(1,) * 100 + (2,)), "cannot be read"),
    "no shape": (described(shape="'abc'"), "cannot be read"),
    "no dtype": (described("magic"), "cannot be read"),
    "deep header": (npy("(" * 9000), "cannot be read"),
    "deep dtype": (npy("{'descr': " + "[('a'," * 80 + "'f4'" + ")]" * 80 + ", 'fortran_order': 0, 'shape': ()}"), ""),
    "call in the header": (npy("__import__('os').system('touch marker')"), "cannot be read"),
    "header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "cannot be read"),
    "version 9": (npy("{}", version=(9, 0)), "cannot be read"),
}


def zipped(content: bytes, **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("x.npy", content)
    return file.getvalue()


@pytest.mark.parametrize("name", READ)
def test_numbers_are_read(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", READ[name])
    np.savez_compressed(tmp_path / "x.npz", x=READ[name])
    for found in (map_array(tmp_path / "x.npy", "the array"), read_arrays(tmp_path / "x.npz", "the arrays")["x"]):
        assert native(found).dtype == READ[name].dtype.newbyteorder("=")
        np.testing.assert_array_equal(native(found), READ[name])
        torch.from_numpy(native(found))


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    Path("x.npy").write_bytes(content)
    Path("x.npz").write_bytes(zipped(content))
    with pytest.raises(InputSpecError) as one:
        parse_reference("x.npy")
    with pytest.raises(CalibrationError) as two:
        open_arrays(Path("x.npy"), ["x"], {}, None)
    with pytest.raises(InputSpecError) as three:
        read_arrays("x.npz", "the arrays")
    assert [str(caught.value)[: len(start)] for caught, start in zip((one, two, three), STARTS, strict=True)] == STARTS
    assert all(message in str(caught.value) for caught in (one, two, three))
    assert not Path("marker").exists()


STARTS = [
    "the reference x.npy cannot be read: ",
    "the data x.npy cannot be read: ",
    "the arrays x.npz cannot be read: ",
]


def _bomb(path: Path) -> None:
    header = described("<f4", (2**33,), b"")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header)
    raw = bytearray(path.read_bytes())
    place = raw.rindex(b"PK\x01\x02") + 24  # the unpacked size in the directory
    raw[place : place + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(raw)


def _many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number}.npy", b"")


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", saved(NUMBERS))
        archive.writestr("y.npy", saved(NUMBERS))
    path.write_bytes(path.read_bytes().replace(b"y.npy", b"x.npy"))


def _flipped(path: Path) -> None:
    path.write_bytes(zipped(saved(NUMBERS)).replace(NUMBERS.tobytes(), (NUMBERS + 1).tobytes()))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_bomb, "bytes follow"),
        (_many, "1,001 arrays"),
        (_twice, "two arrays in it have the same name"),
        (_flipped, "Bad CRC-32"),
    ],
)
def test_archives_are_bounded_and_checked(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "x.npz")
    with pytest.raises(InputSpecError, match=message):
        read_arrays(tmp_path / "x.npz", "the arrays")


def test_data_of_one_number_has_no_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.float32(3))
    with pytest.raises(CalibrationError, match="holds one number, not an array with the samples on axis 0"):
        open_arrays(tmp_path / "x.npy", ["x"], {}, None)


def test_data_in_another_byte_order_is_the_same_data(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", NUMBERS.astype(">f4"))
    found = open_arrays(tmp_path / "x.npy", ["x"], {"x": torch.zeros(1, 3, 4)}, None)
    assert torch.equal(found.batch(0, 2)["x"], torch.from_numpy(NUMBERS))
