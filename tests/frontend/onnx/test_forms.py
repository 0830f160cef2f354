"""Operators that a file of one node does not show: steps in time, older and newer forms, sizes, batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto

import relcompile
from relcompile.frontend.onnx.reading import read_onnx
from tests.frontend.onnx.files import ALL_TO_THE_LAST_DIGITS, Drawn, compared, f, i, node, written

DRAWN = Drawn()
r, whole = DRAWN.normal, DRAWN.whole

U8 = np.uint8
IMAGE = r(2, 4, 6, 6)
ROWS = r(2, 5)
SEQUENCE = r(2, 5, 3)  # (batch, time, inputs); recurrent operators want the time first
NEWER = {"Swish": 24, "RMSNormalization": 23, "Attention": 23}  # than the version that all others are written in


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(operator: str, gates: int, direction: str, tmp_path: Path) -> None:
    ways, units = (2 if direction == "bidirectional" else 1), 4
    constants = {
        "w": r(ways, gates * units, 3), "r": r(ways, gates * units, units), "b": r(ways, 2 * gates * units),
        "h": r(ways, 1, units).repeat(2, 1), "c": r(ways, 1, units).repeat(2, 1),
    }  # fmt: skip
    states = ["h", "c"] if operator == "LSTM" else ["h"]
    more: dict[str, Any] = {"linear_before_reset": 1} if operator == "GRU" and direction == "reverse" else {}
    nodes = [
        node("Transpose", "x", out="t", perm=[1, 0, 2]),
        node(operator, "t", "w", "r", "b", "", *states, out="s", direction=direction, hidden_size=units, **more),
        node("Transpose", "s", perm=[2, 0, 1, 3]),
    ]
    path = written(tmp_path / "x.onnx", nodes, {"x": SEQUENCE}, constants)
    assert compared(path, x=SEQUENCE) < ALL_TO_THE_LAST_DIGITS


def test_what_has_older_or_newer_versions(tmp_path: Path) -> None:
    """Attributes that became operands, softmax over several axes, and operators younger than ONNX Runtime's."""
    table: list[tuple[int, str, np.ndarray, tuple[np.ndarray, ...], dict[str, Any]]] = [
        (9, "Upsample", IMAGE, (f(1, 1, 2, 2),), {"mode": "nearest"}),
        (9, "Slice", IMAGE, (), {"starts": [1], "ends": [3], "axes": [2]}),
        (10, "Clip", ROWS, (), {"min": -0.5, "max": 0.5}),
        (10, "Pad", IMAGE, (), {"pads": [0, 0, 1, 1, 0, 0, 0, 2], "value": 0.5}),
        (11, "Softmax", IMAGE, (), {"axis": 1}),
        (11, "Unsqueeze", ROWS, (), {"axes": [1]}),
        (11, "Squeeze", r(2, 1, 3), (), {"axes": [1]}),
        (11, "Split", r(2, 4), (), {"axis": 1, "split": [1, 3]}),
        (11, "ReduceSum", IMAGE, (), {"axes": [1], "keepdims": 0}),
        (13, "ReduceMean", IMAGE, (), {"axes": [2, 3]}),
        (9, "Dropout", ROWS, (), {"ratio": 0.3}),
    ]
    for opset, operator, x, further, attributes in table:
        names = {f"c{k}": value for k, value in enumerate(further)}
        outputs = ["y", "z"] if operator == "Split" else ["y"]
        made = node(operator, "x", *names, out=outputs, **attributes)
        path = written(tmp_path / "x.onnx", [made], {"x": x}, names, outputs, opset)
        assert compared(path, x=x) < ALL_TO_THE_LAST_DIGITS, (opset, operator)
    q = r(2, 3, 4, 8)
    newer: list[tuple[str, dict[str, np.ndarray], dict[str, Any]]] = [
        ("Swish", {}, {"alpha": 1.5}),
        ("RMSNormalization", {"w": r(8)}, {"axis": -1}),
        ("Attention", {"k": q + 1, "v": -q}, {"scale": 0.7}),
        ("Attention", {"k": q + 1, "v": -q, "mask": r(4, 4)}, {"is_causal": 1}),
        (
            "Attention",
            {"k": q + 1, "v": -q, "mask": (r(4, 4) > 0) | np.eye(4, dtype=bool)},
            {"is_causal": 1, "softcap": 0.5},
        ),
    ]
    for operator, constants, attributes in newer:
        made = node(operator, "x", *constants, **attributes)
        path = written(tmp_path / "x.onnx", [made], {"x": q}, constants, opset=NEWER[operator])
        assert compared(path, x=q) < ALL_TO_THE_LAST_DIGITS, operator


def test_quantised_values_of_several_scales_become_those_of_one(tmp_path: Path) -> None:
    constants = {
        "scale": np.float32(0.05), "zero": U8(128), "own": np.float32(0.02), "c": whole(U8, 2, 3),
        "other": np.float32(0.09), "its": U8(90),
    }  # fmt: skip
    nodes = [
        node("QLinearConcat", "scale", "zero", "x", "own", "zero", "c", "other", "its", out="q", axis=1,
             domain="com.microsoft"),
        node("DequantizeLinear", "q", "scale", "zero"),
    ]  # fmt: skip
    x = whole(U8, 2, 4)
    path = written(tmp_path / "x.onnx", nodes, {"x": x}, {k: np.asarray(v) for k, v in constants.items()})
    assert compared(path, x=x) < ALL_TO_THE_LAST_DIGITS


def test_a_shape_that_begins_with_one_is_not_always_a_batch(tmp_path: Path) -> None:
    """A file that fixes its batch to 1: freed where its own sizes say that the batch stands there."""
    nodes = [
        node("Reshape", "rows", "column", out="weights"),
        node("Mul", "x", "weights", out="weighted"),
        node("Reshape", "weighted", "flat"),
    ]
    constants = {"rows": r(6), "column": i(1, 1, -1, 1), "flat": i(1, -1)}
    path = written(tmp_path / "x.onnx", nodes, {"x": (1, 4, 6, 6)}, constants)
    assert compared(path, x=r(3, 4, 6, 6)) < ALL_TO_THE_LAST_DIGITS


def test_a_slice_to_the_end_leaves_the_batch_free(tmp_path: Path) -> None:
    """What exporters of TensorFlow write for x[:, 1:]."""
    nodes = [node("Slice", "x", "from", "to", "axes", out="part"), node("MatMul", "part", "w")]
    constants = {"from": i(0, 1), "to": i(10**9, 2**31 - 1), "axes": i(0, 1), "w": r(4, 3)}
    model = read_onnx(written(tmp_path / "x.onnx", nodes, {"x": ROWS}, constants))
    _, gradient = relcompile.compile(model, torch.from_numpy(ROWS), rule="gradient")(torch.from_numpy(r(3, 5)), 2)
    wanted = np.concatenate([np.zeros(1, np.float32), constants["w"][:, 2]])
    assert np.array_equal(gradient.numpy(), np.stack([wanted] * 3))


def test_sizes_are_computed_and_are_no_layers(tmp_path: Path) -> None:
    """What exporters write for x.view(n, -1), zeros of the size of a batch, and ranges of a width."""
    nodes = [
        node("Shape", "x", out="shape"),
        node("Gather", "shape", "zero", out="n"),
        node("Unsqueeze", "n", "axis", out="n1"),
        node("Concat", "n1", "rest", out="flat", axis=0),
        node("Reshape", "x", "flat", out="rows"),
        node("Shape", "rows", out="sizes", start=1),
        node("Concat", "n1", "sizes", out="like", axis=0),
        node("ConstantOfShape", "like", out="zeros", value=numpy_value(0.5)),
        node("Squeeze", "sizes", out="width"),
        node("Cast", "width", out="w", to=TensorProto.FLOAT),
        node("Range", "start", "w", "step", out="range"),
        node("Add", "rows", "zeros", out="sum"),
        node("Mul", "sum", "range"),
        node("Constant", out="start", value_float=0.0),
    ]
    nodes = [nodes[-1], *nodes[:-1]]
    constants = {"zero": np.int64(0), "axis": i(0), "rest": i(-1), "step": np.float32(1)}
    path = written(tmp_path / "x.onnx", nodes, {"x": IMAGE}, {k: np.asarray(v) for k, v in constants.items()})
    model = read_onnx(path)
    assert compared(path, x=IMAGE) == 0.0
    assert not any("Gather" in name or "Shape_0" in name for name, step in model.named_children() if step is None)


def numpy_value(value: float) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.float32))
