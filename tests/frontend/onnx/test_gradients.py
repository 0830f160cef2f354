"""The gradient of an ONNX file is that of ONNX Runtime, by central differences in float64; relevance that of a twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import NodeProto
from torch import nn

import relcompile
from tests.compare import FLOAT64, assert_close
from tests.frontend.onnx.files import Array, node, written

STEP, DIFFERENCES = 1e-6, 1e-8  # of numbers near 1 in float64: the truncation is STEP², rounding 1e-16 / STEP
RANDOM = np.random.default_rng(0)
W, V, U = (RANDOM.normal(size=shape) for shape in ((5, 6), (6, 3), (5, 5)))
B = RANDOM.normal(size=6)
HIDDEN = [node("Gemm", "x", "w", "b", out="h")]
LAST = [node("MatMul", "a", "v", out="y")]
NETS: dict[str, list[NodeProto]] = {
    "relu": [*HIDDEN, node("Relu", "h", out="a"), *LAST],
    "sigmoid": [*HIDDEN, node("Sigmoid", "h", out="a"), *LAST],
    "a gate": [*HIDDEN, node("Sigmoid", "h", out="g"), node("Mul", "h", "g", out="a"), *LAST],
    "a norm by hand": [
        *HIDDEN,
        node("ReduceMean", "h", out="m", axes=[1], keepdims=1),
        node("Sub", "h", "m", out="c"),
        node("Mul", "c", "c", out="q"),
        node("ReduceMean", "q", out="s", axes=[1], keepdims=1),
        node("Sqrt", "s", out="d"),
        node("Div", "c", "d", out="a"),
        *LAST,
    ],
    "attention": [
        node("MatMul", "x", "u", out="k"),
        node("Softmax", "k", out="p", axis=1),
        node("Mul", "p", "x", out="o"),
        node("Gemm", "o", "w", "b", out="a"),
        *LAST,
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        weights: dict[str, Array] = {"w": W, "v": V, "b": B, "u": U}
        return written(tmp_path / "net.onnx", NETS[name], {"x": np.zeros((1, 5))}, weights, opset=17)

    return write


def central_differences(path: Path, x: Array, target: int) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    steps = STEP * np.eye(x.shape[1])

    def score(moved: Array) -> Array:
        return np.asarray(session.run(None, {"x": moved})[0])[:, target]

    return np.stack([(score(x + step) - score(x - step)) / (2 * STEP) for step in steps], 1)


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_is_that_of_onnx_runtime(name: str, file: Callable[[str], Path]) -> None:
    path, x = file(name), np.random.default_rng(1).normal(size=(4, 5))
    explainer = relcompile.compile(relcompile.read_model(path), torch.from_numpy(x), rule="gradient", target=1)
    assert_close(explainer(torch.from_numpy(x))[1], central_differences(path, x, 1), DIFFERENCES)


@pytest.mark.parametrize("rule", ["z+", "epsilon", "gamma"])
def test_relevance_is_that_of_the_same_network_in_pytorch(rule: str, file: Callable[[str], Path]) -> None:
    first, last = nn.Linear(5, 6), nn.Linear(6, 3, bias=False)
    twin = nn.Sequential(first, nn.ReLU(), last).double()
    with torch.no_grad():
        for parameter, value in ((first.weight, W.T), (first.bias, B), (last.weight, V.T)):
            parameter.copy_(torch.from_numpy(value.copy()))
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 5)))
    found, expected = (
        relcompile.compile(model, x, rule=rule, target=1)(x) for model in (relcompile.read_model(file("relu")), twin)
    )
    assert_close(found[0], expected[0], FLOAT64)
    assert_close(found[1], expected[1], FLOAT64)
