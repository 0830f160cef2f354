"""A photograph is pixels in a raster format, of bounded size: it chooses no program and fills no memory."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relcompile.calibration.data import open_folder
from relcompile.errors import CalibrationError, InputSpecError
from relcompile.pictures.images import FORMATS, load_image, preprocess
from relcompile.preprocessing import Preprocessing

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
OTHERS = ("EPS", "ICO", "PCX", "PDF", "SGI", "TGA", "DDS", "ICNS", "JPEG2000", "XBM", "MSP")
STATISTICS = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PLAIN = Preprocessing(None, "bilinear", None, *STATISTICS)


def png(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels, with right checksums, and holds one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    row = zlib.compress(bytes(1 + min(width, 1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def test_a_photograph_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, program = tmp_path / "marker", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    (tmp_path / "photo.jpg").write_bytes(EPS)
    with pytest.raises(InputSpecError, match=r"photo\.jpg cannot be read: it is damaged, or none of JPEG"):
        load_image(tmp_path / "photo.jpg")
    assert not marker.exists()


def test_an_array_is_no_photograph(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8)))
    with pytest.raises(InputSpecError, match=r"explained in Python: relcompile\.load"):
        load_image(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", FORMATS)
def test_raster_formats_are_read(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (0, 0, 255)).save(tmp_path / "photo", kind)
    pixel = np.asarray(load_image(tmp_path / "photo"), np.int64)[3, 3]
    assert np.abs(pixel - (0, 0, 255)).max() <= 2


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_not(kind: str, tmp_path: Path) -> None:
    mode = "1" if kind in ("XBM", "MSP") else "RGB"
    try:
        Image.new(mode, (32, 32)).save(tmp_path / "photo.jpg", kind)
    except (KeyError, OSError) as error:  # Pillow was built without it
        pytest.skip(str(error))
    with pytest.raises(InputSpecError, match=r"photo\.jpg cannot be read: it is damaged, or none of JPEG"):
        load_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(60_000, 60_000), "3600000000 pixels. exceeds limit"),
        (png(10_000, 9_000), "10000 x 9000 pixels are more than the 89,478,485"),
        (b"", "it is damaged, or none of"),
    ],
)
def test_sizes_are_bounded(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(InputSpecError, match=message):
        load_image(tmp_path / "photo.png")


def test_a_file_of_many_bytes_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "photo.png").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(InputSpecError, match="268,435,457 bytes, more than the 268,435,456"):
        load_image(tmp_path / "photo.png")


def test_a_narrow_photograph_does_not_grow_without_end() -> None:
    with pytest.raises(InputSpecError, match="1x40000 pixels, too narrow for resize=224"):
        preprocess(Image.new("RGB", (1, 40_000)), Preprocessing(224, "bilinear", 224, *STATISTICS), (224, 224))


@pytest.mark.parametrize("suffix", [".eps", ".pdf", ".hdf5", ".mpg", ".wmf"])
def test_a_folder_offers_photographs_alone(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(EPS)
    with pytest.raises(CalibrationError, match="there are no photographs"):
        open_folder(tmp_path, {"x": torch.zeros(1, 3, 8, 8)}, PLAIN, None)


def test_an_explainer_chooses_no_size_that_fills_the_memory() -> None:
    with pytest.raises(InputSpecError, match="26000x26000 pixels, more than the"):
        preprocess(Image.new("RGB", (4, 4)), PLAIN, (26_000, 26_000))


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A folder with folders in it, 1,200 deep; what cleans up after pytest does not get down there."""
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    yield tmp_path
    for _ in range(1200):
        os.chdir("..")
        os.rmdir("d")


def test_folders_deep_in_each_other_are_searched(deep: Path) -> None:
    """`Path.rglob` ended in a RecursionError."""
    with pytest.raises(CalibrationError, match="no photographs"):
        open_folder(deep, {"x": torch.zeros(1, 3, 8, 8)}, PLAIN, None)
    Image.new("RGB", (8, 8)).save("lowest.png")
    try:
        assert open_folder(deep, {"x": torch.zeros(1, 3, 8, 8)}, PLAIN, None).count == 1
    finally:
        os.remove("lowest.png")
