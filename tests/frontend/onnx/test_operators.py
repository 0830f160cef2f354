"""Every operator of the table: a file of one node, in torch and in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from relcompile.frontend.onnx.table import OPERATORS
from tests.frontend.onnx.files import ALL_TO_THE_LAST_DIGITS, Drawn, compared, f, i, node, written

DRAWN = Drawn()
r, whole = DRAWN.normal, DRAWN.whole

U8, I8 = np.uint8, np.int8
IMAGE = r(2, 4, 6, 6)
ROWS = r(2, 5)
POSITIVE = np.abs(r(2, 5)) + 0.5
UNIT = np.tanh(r(2, 5))
# operator, first operand (the input), further operands (constants; None is left out), attributes
# (scales of quantised values have no halves between steps in common, where float32 decides)
CASES: list[tuple[str, np.ndarray, tuple[np.ndarray | None, ...], dict[str, Any]]] = [
    ("BatchNormalization", IMAGE, (r(4), r(4), r(4), np.abs(r(4)) + 1), {"epsilon": 1e-3}),
    ("Conv", IMAGE, (r(6, 4, 3, 3), r(6)), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", IMAGE, (r(6, 2, 3, 3), r(6)), {"group": 2, "dilations": [2, 1], "pads": [0, 1, 2, 0]}),
    ("Conv", IMAGE, (r(6, 4, 3, 2),), {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    ("Conv", IMAGE, (r(6, 4, 3, 2),), {"auto_pad": "SAME_LOWER"}),
    ("Conv", r(2, 4, 9), (r(3, 4, 3), r(3)), {}),
    ("Conv", r(2, 2, 4, 5, 6), (r(3, 2, 3, 3, 3), r(3)), {}),
    ("ConvTranspose", IMAGE, (r(4, 3, 3, 3), r(6)), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", IMAGE, (r(4, 3, 3, 3),), {"strides": [2, 2], "pads": [1, 1, 0, 1], "output_padding": [0, 1]}),
    ("Einsum", IMAGE, (r(4, 3),), {"equation": "nchw,ck->nkhw"}),
    ("Gemm", ROWS, (r(5, 3), r(3)), {}),
    ("Gemm", ROWS, (r(3, 5), r(1, 3)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", ROWS, (r(5, 3), f(0.5)), {}),
    ("MatMul", r(2, 4, 5), (r(5, 3),), {}),
    ("AveragePool", IMAGE, (), {"kernel_shape": [3, 2], "strides": [2, 2]}),
    ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1, 0, 0, 1]}),
    ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("GlobalAveragePool", IMAGE, (), {}),
    ("GlobalMaxPool", IMAGE, (), {}),
    ("MaxPool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("MaxPool", IMAGE, (), {"kernel_shape": [3, 2], "pads": [0, 0, 2, 1], "ceil_mode": 1}),
    ("MaxPool", r(2, 3, 9), (), {"kernel_shape": [3], "dilations": [2]}),
    ("Resize", IMAGE, (None, f(1, 1, 2, 2)), {
        "mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor",
    }),
    ("Resize", IMAGE, (None, f(1, 1, 2, 3)), {"mode": "nearest"}),
    ("Resize", IMAGE, (None, f(3, 2)), {"mode": "nearest", "axes": [3, -2]}),
    ("Resize", IMAGE, (None, None, i(9)), {"mode": "linear", "axes": [3]}),
    ("Resize", IMAGE, (None, f(1, 1, 2, 1.5)), {"mode": "linear"}),
    ("Resize", IMAGE, (None, None, i(2, 4, 9, 4)), {
        "mode": "linear", "coordinate_transformation_mode": "align_corners",
    }),
    ("Resize", IMAGE, (None, None, i(2, 4, 9, 12)), {
        "mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel",
    }),
    *[(name, ROWS, (), {}) for name in (
        "Abs", "Atan", "Asinh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
        "HardSwish",
        "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
        "Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu", "Dropout",
    )],
    *[(name, UNIT, (), {}) for name in ("Acos", "Asin", "Atanh")],
    *[(name, POSITIVE, (), {}) for name in ("Log", "Reciprocal", "Sqrt")],
    ("Acosh", POSITIVE + 1, (), {}),
    ("Cast", ROWS, (), {"to": TensorProto.INT64}),
    ("CastLike", ROWS, (i(1),), {}),
    ("Celu", ROWS, (), {"alpha": 2.0}),
    ("Clip", ROWS, (np.float32(-0.5), np.float32(0.7)), {}),
    ("Clip", ROWS, (np.float32(0), None), {}),
    ("Clip", ROWS, (None, np.float32(0.2)), {}),
    ("Elu", ROWS, (), {"alpha": 0.5}),
    ("Gelu", ROWS, (), {"approximate": "tanh"}),
    ("HardSigmoid", ROWS, (), {"alpha": 1 / 6, "beta": 0.5}),
    ("LeakyRelu", ROWS, (), {"alpha": 0.3}),
    ("PRelu", IMAGE, (r(4, 1, 1),), {}),
    ("PRelu", IMAGE, (r(1),), {}),
    ("PRelu", IMAGE, (r(4, 6, 6),), {}),
    ("Shrink", ROWS, (), {"lambd": 0.3, "bias": 0.3}),
    *[(name, ROWS, (r(2, 5),), {}) for name in ("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum")],
    *[(name, ROWS, (r(5),), {}) for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")],
    ("Mod", i(5, -7, 9).reshape(3, 1), (i(3),), {}),
    ("Mod", ROWS, (r(5),), {"fmod": 1}),
    ("Div", i(5, -7, 9).reshape(3, 1), (i(2),), {}),
    ("Pow", POSITIVE, (np.float32(2.5),), {}),
    ("Pow", ROWS, (i(2),), {}),
    *[(name, ROWS > 0, (r(5) > 0,), {}) for name in ("And", "Or", "Xor")],
    ("Not", ROWS > 0, (), {}),
    ("Where", ROWS > 0, (r(5), r(2, 5)), {}),
    ("ArgMax", ROWS, (), {"axis": 1}),
    ("ArgMax", np.sign(ROWS), (), {"axis": 1, "select_last_index": 1}),
    ("ArgMin", ROWS, (), {"axis": 1, "keepdims": 0}),
    ("ai.onnx.ml::ArrayFeatureExtractor", ROWS, (i(3, 0),), {}),
    ("CumSum", ROWS, (np.int64(1),), {"exclusive": 1, "reverse": 1}),
    *[(name, IMAGE, (i(1, -1),), {"keepdims": 0}) for name in (
        "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare",
    )],
    ("ReduceLogSum", POSITIVE, (i(1),), {}),
    ("ReduceMean", IMAGE, (i(),), {"noop_with_empty_axes": 1}),
    ("TopK", ROWS, (i(3),), {}),
    ("GroupNormalization", IMAGE, (r(2), r(2)), {"num_groups": 2}),
    ("InstanceNormalization", IMAGE, (r(4), r(4)), {}),
    ("LayerNormalization", IMAGE, (r(6), r(6)), {}),
    ("LayerNormalization", IMAGE, (r(6, 6),), {"axis": 2, "epsilon": 1e-3}),
    ("LogSoftmax", IMAGE, (), {"axis": 1}),
    ("LpNormalization", IMAGE, (), {"axis": 1, "p": 1}),
    ("LRN", IMAGE, (), {"size": 3, "alpha": 0.3}),
    ("MeanVarianceNormalization", IMAGE, (), {"axes": [2, 3]}),
    ("Softmax", IMAGE, (), {"axis": 1}),
    ("Concat", ROWS, (r(2, 3),), {"axis": 1}),
    ("DepthToSpace", IMAGE, (), {"blocksize": 2}),
    ("DepthToSpace", IMAGE, (), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", IMAGE, (), {"blocksize": 3}),
    ("Expand", r(2, 1, 5), (i(3, 1),), {}),
    ("Flatten", IMAGE, (), {}),
    ("Flatten", IMAGE, (), {"axis": -2}),
    ("Gather", ROWS, (i(3, 0, -1),), {"axis": 1}),
    ("Gather", ROWS, (np.int64(2),), {"axis": 1}),
    ("Gather", ROWS, (i(3, 0, -1, 1).reshape(2, 2),), {"axis": 1}),
    ("GatherElements", ROWS, (np.array([[0, -1], [2, 2]]),), {"axis": 1}),
    ("GatherND", ROWS, (np.array([[0, 1], [1, 4]]),), {}),
    ("Pad", IMAGE, (i(0, 0, 1, 0, 0, 1, 0, 2), np.float32(0.5)), {}),
    ("Pad", IMAGE, (i(0, 0, -1, 0, 0, 0, 0, 2),), {}),
    ("Pad", IMAGE, (i(0, 0, 1, 2, 0, 0, 1, 0),), {"mode": "reflect"}),
    ("Pad", IMAGE, (i(1, 0), None, i(2)), {"mode": "edge"}),
    ("Reshape", IMAGE, (i(0, 2, -1),), {}),
    ("ScatterElements", ROWS, (np.array([[0, -1], [2, 2]]), r(2, 2)), {"axis": 1, "reduction": "add"}),
    ("ScatterND", ROWS, (np.array([[0, 1], [1, 4]]), r(2)), {}),
    ("Slice", IMAGE, (i(-4, 1), i(2**63 - 1, 5), i(2, 3), i(1, 2)), {}),
    ("Slice", IMAGE, (i(-1), i(-(2**63)), i(3), i(-1)), {}),
    ("Slice", IMAGE, (i(4), i(0), i(3), i(-2)), {}),
    ("Split", ROWS, (i(2, 3),), {"axis": 1}),
    ("Squeeze", r(2, 1, 5, 1), (i(1, -1),), {}),
    ("Tile", ROWS, (i(1, 2),), {}),
    ("Transpose", IMAGE, (), {"perm": [0, 3, 1, 2]}),
    ("Trilu", IMAGE, (np.int64(1),), {"upper": 0}),
    ("Unsqueeze", ROWS, (i(1, -1),), {}),
    ("EyeLike", ROWS, (), {"k": 1}),
    ("OneHot", i(1, -1, 7), (i(4), f(0, 2)), {}),
    ("DequantizeLinear", whole(U8, 2, 4, 3), (f(0.1, 0.2, 0.3, 0.4), np.array([3, 5, 7, 9], U8)), {"axis": 1}),
    ("QuantizeLinear", ROWS, (np.float32(0.02), U8(128)), {}),
    ("QuantizeLinear", f(-9, -0.75, -0.25, 0.25, 0.75, 99).reshape(2, 3), (np.float32(0.5), U8(7)), {}),
    ("QLinearConv", whole(U8, 2, 3, 6, 6), (
        np.float32(0.0213), U8(120), whole(I8, 4, 3, 3, 3), f(0.0107, 0.0211, 0.0307, 0.0109),
        np.zeros(4, I8), np.float32(0.0457), U8(128), whole(I8, 4).astype(np.int32),
    ), {"pads": [1, 1, 1, 1]}),
    ("QLinearMatMul", whole(U8, 2, 6), (
        np.float32(0.0213), U8(120), whole(U8, 6, 4), np.float32(0.0107), U8(125), np.float32(0.0457), U8(128),
    ), {}),
    *[(f"com.microsoft::QLinear{name}", whole(U8, 2, 3, 4, 4), (
        np.float32(0.0213), U8(120), whole(U8, 2, 3, 4, 4), np.float32(0.0107), U8(125), np.float32(0.0457), U8(127),
    ), {}) for name in ("Add", "Mul")],
    *[(f"com.microsoft::QLinear{name}", whole(U8, 2, 3, 4, 4), (
        np.float32(0.0213), U8(120), np.float32(0.0157), U8(125),
    ), attributes) for name, attributes in (
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}), ("GlobalAveragePool", {}), ("LeakyRelu", {}),
        ("Sigmoid", {}),
    )],
    ("com.microsoft::QGemm", whole(U8, 2, 6), (
        np.float32(0.0213), U8(120), whole(I8, 6, 4), f(0.0107, 0.0211, 0.0307, 0.0109), np.zeros(4, I8),
        whole(I8, 4).astype(np.int32), np.float32(0.0457), U8(128),
    ), {}),
    ("com.microsoft::QGemm", whole(U8, 2, 6), (
        np.float32(0.02), U8(120), whole(I8, 4, 6), np.float32(0.01), I8(0), whole(I8, 4).astype(np.int32),
    ), {"transB": 1, "alpha": 0.5}),
    *[("ConvTranspose", IMAGE, (r(4, 3, 3, 4),), {"strides": [2, 3], **attributes}) for attributes in (
        {"pads": [0, 1, 1, 0]}, {"pads": [2, 0, 1, 1]}, {"output_shape": [12, 19]}, {"output_shape": [11, 16]},
        {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"},
        {"auto_pad": "SAME_UPPER", "output_shape": [12, 17]}, {"output_shape": [12, 17], "output_padding": [1, 0]},
        {"output_shape": [14, 20]},
    )],
    ("ConvTranspose", IMAGE, (r(4, 3, 3, 4),), {"dilations": [2, 3], "pads": [1, 2, 2, 1]}),
    *[("ai.onnx.ml::LinearClassifier", ROWS, (), {
        "coefficients": r(15), "intercepts": r(3), "classlabels_ints": [4, 2, 7], "post_transform": transform,
    }) for transform in ("NONE", "LOGISTIC", "SOFTMAX")],
    ("ai.onnx.ml::LinearRegressor", ROWS, (), {"coefficients": r(10), "intercepts": r(2), "targets": 2}),
    ("ai.onnx.ml::LinearRegressor", ROWS, (), {"coefficients": r(5)}),
    ("ai.onnx.ml::Scaler", ROWS, (), {"offset": r(5), "scale": r(5)}),
    ("ai.onnx.ml::Scaler", ROWS, (), {"offset": [0.5], "scale": [2.0]}),
    *[("ai.onnx.ml::Normalizer", POSITIVE, (), {"norm": norm}) for norm in ("L1", "L2", "MAX")],
    *[("ai.onnx.ml::Normalizer", ROWS, (), {"norm": norm}) for norm in ("L1", "L2", "MAX")],
]  # fmt: skip
ELSEWHERE = {  # in `test_forms.py` and `test_linear_models.py`
    "Attention", "Constant", "ConstantOfShape", "GRU", "LSTM", "Range", "RMSNormalization", "RNN", "Swish", "Upsample",
    "ai.onnx.ml::ZipMap", "com.microsoft::QLinearConcat",
}  # fmt: skip
SUMS_ALONE = 6  # operands of a QGemm that does not quantise its result


@pytest.mark.parametrize(
    ("operator", "x", "further", "attributes"), CASES, ids=[f"{k}-{c[0]}" for k, c in enumerate(CASES)]
)
def test_one_node_computes_what_onnx_runtime_does(
    operator: str, x: np.ndarray, further: tuple[Any, ...], attributes: dict[str, Any], tmp_path: Path
) -> None:
    domain, _, kind = operator.rpartition("::")
    constants = {f"c{k}": np.asarray(value) for k, value in enumerate(further) if value is not None}
    names = [f"c{k}" if value is not None else "" for k, value in enumerate(further)]
    outputs: list[str] = ["y", "z"] if kind in ("Split", "TopK", "LinearClassifier") else ["y"]
    made = [node(kind, "x", *names, out=outputs, domain=domain, **attributes)]
    if OPERATORS[operator].rounds and len(further) != SUMS_ALONE:  # integers, which torch keeps in float32
        made[0].output[:] = ["q"]
        constants |= {"scale": np.asarray(np.float32(1)), "zero": np.asarray(U8(0))}
        made.append(node("DequantizeLinear", "q", "scale", "zero"))
    opset = 20 if operator != "GroupNormalization" else 18
    path = written(tmp_path / "x.onnx", made, {"x": np.asarray(x)}, constants, outputs, opset)
    assert compared(path, x=np.asarray(x)) < ALL_TO_THE_LAST_DIGITS


def test_every_row_has_a_case() -> None:
    assert {case[0] for case in CASES} | ELSEWHERE == OPERATORS.keys()
