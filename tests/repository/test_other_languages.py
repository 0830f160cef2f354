"""Prediction and relevance in Node and in C++: the same file, the same numbers as in Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import relcompile
from tests.downloads import kept

EXAMPLES = Path(__file__).parents[2] / "examples" / "serving"
NODE, COMPILER = shutil.which("node"), shutil.which("g++")
HEADERS = "com.github.asus4.onnxruntime@0.4.9"
RUNTIME = os.environ.get("ORT_HOME")  # a release of ONNX Runtime: include/onnxruntime_cxx_api.h, lib/libonnxruntime.so


def in_node(_folder: Path) -> list[Any]:
    """Node finds onnxruntime-node, by NODE_PATH for one that is installed elsewhere."""
    found = NODE and subprocess.run([NODE, "-e", "require('onnxruntime-node')"], capture_output=True, check=False)
    if not found or found.returncode:
        pytest.skip("needs node and the package onnxruntime-node (NODE_PATH)")
    return [NODE, EXAMPLES / "explain.cjs"]


def in_cpp(folder: Path, runtime: str | None = RUNTIME) -> list[Any]:
    """Built by the command in the example's first lines, with warnings for errors."""
    if not COMPILER or not runtime:
        pytest.skip("needs g++ and a release of ONNX Runtime (ORT_HOME)")
    command = (EXAMPLES / "explain.cpp").read_text(encoding="utf-8").split("//     ")[1].strip()
    assert command.startswith("g++ ")
    words = command.replace("$ORT_HOME", runtime).replace("explain.cpp", str(EXAMPLES / "explain.cpp")).split()
    subprocess.run([*words[:-1], folder / "explain", "-Wall", "-Wextra", "-Werror"], check=True)
    return [folder / "explain"]


def in_cpp_from_packages(folder: Path) -> list[Any]:
    """The headers are those of a package for Unity, and older than the library, which is Python's."""
    (folder / "include").symlink_to(kept(HEADERS, fetch_headers))
    (folder / "lib").mkdir()
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    return in_cpp(folder, str(folder))


def fetch_headers(folder: Path) -> None:
    """A few files out of 150 MB."""
    with tempfile.TemporaryDirectory() as packed:
        pack = subprocess.run(["npm", "pack", HEADERS], cwd=packed, capture_output=True, text=True, check=True)
        with tarfile.open(Path(packed, pack.stdout.split()[-1])) as archive:
            found = [each for each in archive if "/ios-arm64/onnxruntime.framework/Headers/" in each.name]
            for each in found:
                each.name = Path(each.name).name
            archive.extractall(folder, found, filter="data")


@pytest.mark.parametrize(
    "program",
    [in_node, in_cpp, pytest.param(in_cpp_from_packages, marks=pytest.mark.heavy)],
    ids=lambda made: made.__name__,
)
def test_it_computes_what_python_does(program: Callable[[Path], list[Any]], tmp_path: Path) -> None:
    command = program(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    relcompile.compile(model, torch.randn(2, 3, 8, 8), rule="z+").save(tmp_path / "x.onnx")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    x.tofile(tmp_path / "x.f32")
    arguments = [tmp_path / "x.onnx", tmp_path / "x.f32", "2x3x8x8", "3", tmp_path / "r.f32"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    expected = relcompile.load(tmp_path / "x.onnx", device="cpu").explain(x, target=3)
    told, relevance = json.loads(done.stdout), np.fromfile(tmp_path / "r.f32", np.float32).reshape(x.shape)
    assert np.abs(relevance - expected.relevance).max() < 1e-6 * np.abs(expected.relevance).max()
    assert told["prediction"] == expected.output[0].argmax()
    assert told["score"] == pytest.approx(float(expected.output[0, 3]), rel=1e-6)
    assert told["relevance"] == pytest.approx(float(expected.relevance.sum()), rel=1e-4)
