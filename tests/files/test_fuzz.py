"""Every reader of a file that the user names, on files that are damaged on purpose: read, or one message."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from passes.errors import PassError
from relcompile.calibration import store
from relcompile.calibration.store import Calibration
from relcompile.errors import RelcompileError
from relcompile.files.arrays import map_array, native, read_arrays
from relcompile.metadata import Metadata
from relcompile.methods.spelling import read_composite
from relcompile.pictures.images import FORMATS, load_image
from tests.test_metadata import FULL

TRIES = settings(deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
WORDS = st.sampled_from(["", "z+", "x", "relu", "\x1b[31m", "[/y]", "\ud800", "n" * 300, "../x", "ab" * 32, "batch"])
NUMBERS = st.sampled_from([0, 1, -1, -4, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), 0.5, True])
VALUES = st.recursive(
    st.none() | WORDS | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True, scope="module")
def memory() -> Any:
    """1 GB beyond what is mapped already: a reader that believes a header fails."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def read_or_refuse(read: Callable[[], object]) -> None:
    with contextlib.suppress(RelcompileError, PassError):
        read()


def replaced(data: st.DataObject, tree: Any) -> Any:
    """`tree` with one value somewhere in it replaced, removed, or nested."""
    if isinstance(tree, dict | list) and tree and data.draw(st.integers(0, 3)):
        copy = dict(tree) if isinstance(tree, dict) else list(tree)
        place = data.draw(st.sampled_from(list(copy) if isinstance(copy, dict) else range(len(copy))))
        if data.draw(st.integers(0, 5)) == 0:
            copy.pop(place)
        else:
            copy[place] = replaced(data, copy[place])
        return copy
    return data.draw(VALUES | st.integers(1, 700).map(lambda depth: nested(depth, tree)))


def nested(depth: int, tree: Any) -> Any:
    for _ in range(depth):
        tree = [tree]
    return tree


def flipped(data: st.DataObject, content: bytes) -> bytes:
    """Some bytes replaced, a part cut out or doubled."""
    raw = bytearray(content)
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(raw))] * 2)))
    match data.draw(st.sampled_from(["keep", "cut", "double", "end"])):
        case "cut":
            del raw[start:stop]
        case "double":
            raw[start:start] = raw[start:stop]
        case "end":
            del raw[stop:]
    return bytes(raw)


def array_file(data: st.DataObject) -> bytes:
    """A .npy file whose header says something, before some bytes."""
    kinds = ["<f4", ">f8", "|b1", "|S5", "<U3", "<M8[s]", "|O", "<f16", "V8", [("a", "<f4")], "magic", 3]
    sizes = st.sampled_from([0, 1, 2, -1, 2**31, 2**62, 2**64, True])
    header = {
        "descr": data.draw(st.sampled_from(kinds)),
        "fortran_order": data.draw(st.sampled_from([True, False, 0, "no"])),
        "shape": data.draw(st.lists(sizes, max_size=70).map(tuple) | sizes),
    }
    text = repr(header).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(data.draw(st.integers(0, 64)))


@TRIES
@given(data=st.data())
def test_arrays(data: st.DataObject, tmp_path: Path) -> None:
    content = flipped(data, array_file(data))
    (tmp_path / "x.npy").write_bytes(content)
    read_or_refuse(lambda: native(map_array(tmp_path / "x.npy", "the array")).sum())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as file:
        file.writestr("x.npy", content)  # the checksum is that of the damaged content
        file.writestr("y.npy", array_file(data))
    (tmp_path / "x.npz").write_bytes(
        data.draw(st.sampled_from([lambda raw: raw, lambda raw: flipped(data, raw)]))(archive.getvalue())
    )
    read_or_refuse(lambda: [native(array) for array in read_arrays(tmp_path / "x.npz", "the arrays").values()])


PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))


@TRIES
@given(data=st.data(), kind=st.sampled_from(FORMATS), mode=st.sampled_from(["RGB", "L", "P", "1"]))
def test_photographs(data: st.DataObject, kind: str, mode: str, tmp_path: Path) -> None:
    saved = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = data.draw(st.sampled_from([1, 6, 9]))
    picture = PIXELS.convert("RGB" if kind in ("JPEG", "WEBP") or (kind, mode) == ("PPM", "P") else mode)
    picture.save(saved, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
    (tmp_path / "photo").write_bytes(flipped(data, saved.getvalue()))
    read_or_refuse(lambda: load_image(tmp_path / "photo"))


@TRIES
@given(data=st.data())
def test_calibrations(data: st.DataObject, tmp_path: Path) -> None:
    facts = {"kind": "calibration", "format": 2, "weights_sha256": "ab" * 32, "estimator": "relu", "samples": 4}
    tensors = {"layer": torch.arange(3.0), "other": torch.ones(2, 2, dtype=torch.float64)}
    damaged = replaced(data, facts)
    if isinstance(damaged, dict):
        damaged["sha256"] = store._digest(tensors, damaged)
    content = safetensors.torch.save(tensors, {"relcompile": json.dumps(damaged)})
    (tmp_path / "p").write_bytes(data.draw(st.sampled_from([content, flipped(data, content)])))
    read_or_refuse(lambda: Calibration.load(tmp_path / "p"))


@TRIES
@given(data=st.data())
def test_metadata(data: st.DataObject) -> None:
    text = json.dumps(replaced(data, json.loads(FULL.to_json())))
    read_or_refuse(lambda: Metadata.from_json(text))
    read_or_refuse(lambda: Metadata.from_json(flipped(data, text.encode()).decode("utf-8", "replace")))


def toml(value: Any) -> str:
    """A value as TOML has it, right or wrong."""
    return json.dumps(value).replace(": ", " = ")


@TRIES
@given(data=st.data())
def test_composites(data: st.DataObject, tmp_path: Path) -> None:
    keys = st.sampled_from(["rule", "kind", "name", "first", "depth", "module_type", "x", '"]\n["', "a.b"])
    lines = [f"base = {toml(data.draw(VALUES | st.just('epsilon')))}"]
    for _ in range(data.draw(st.integers(0, 3))):
        pairs = data.draw(st.dictionaries(keys, VALUES | st.just("flat") | st.just([0, 0.5]), max_size=3))
        lines += ["[[entry]]", *(f"{key} = {toml(value)}" for key, value in pairs.items())]
    (tmp_path / "x.toml").write_bytes("\n".join(lines).encode("utf-8", "replace"))
    read_or_refuse(lambda: read_composite(tmp_path / "x.toml"))
