"""Prediction and relevance in Node: the same file, the same numbers as in Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import relcompile

EXAMPLE = Path(__file__).parents[2] / "examples" / "serving" / "explain.cjs"
NODE = shutil.which("node") or ""


def has_runtime() -> bool:
    """Node finds onnxruntime-node, by NODE_PATH for one that is installed elsewhere."""
    if not NODE:
        return False
    return subprocess.run([NODE, "-e", "require('onnxruntime-node')"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_runtime(), reason="needs node and the package onnxruntime-node (NODE_PATH)")
def test_node_computes_what_python_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    relcompile.compile(model, torch.randn(2, 3, 8, 8), rule="z+").save(tmp_path / "x.onnx")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    x.tofile(tmp_path / "x.f32")
    arguments = [tmp_path / "x.onnx", tmp_path / "x.f32", "2x3x8x8", "3", tmp_path / "r.f32"]
    done = subprocess.run([NODE, EXAMPLE, *arguments], capture_output=True, text=True, check=True, env=os.environ)
    expected = relcompile.load(tmp_path / "x.onnx", device="cpu").explain(x, target=3)
    told, relevance = json.loads(done.stdout), np.fromfile(tmp_path / "r.f32", np.float32).reshape(x.shape)
    assert np.abs(relevance - expected.relevance).max() < 1e-6 * np.abs(expected.relevance).max()
    assert told["prediction"] == expected.output[0].argmax()
    assert told["score"] == pytest.approx(float(expected.output[0, 3]), rel=1e-6)
    assert told["relevance"] == pytest.approx(float(expected.relevance.sum()), rel=1e-4)
