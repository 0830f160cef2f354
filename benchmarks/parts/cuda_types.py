"""For which data types ONNX Runtime's CUDA provider has kernels of the operators of opset 20, by what it says itself.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md, commit 001d12d2, rows of opset 20.
The type is that of the first operand that is data (of `Where` the second input, of `OneHot` its values), of an operator
without one that of its output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_REAL: Final = frozenset({"float16", "float32", "float64"})
_REAL_OR_BRAIN: Final = _REAL | {"bfloat16"}
_WORDS: Final = frozenset({"int32", "int64", "uint32", "uint64"})
_WHOLE: Final = _WORDS | {"int8", "int16", "uint8", "uint16"}
_ALL: Final = _REAL_OR_BRAIN | _WHOLE | {"bool"}

_ROWS: Final[Mapping[frozenset[str], str]] = {
    _ALL: "Cast Compress Concat ConstantOfShape Expand Flatten Gather GatherElements Identity Reshape ScatterElements "
    "ScatterND Slice Split Squeeze Transpose Trilu Unsqueeze",
    _REAL_OR_BRAIN | _WHOLE: "Abs Add Div Mul Sign Sub",
    _REAL_OR_BRAIN | {"int8", "int16", "int32", "int64"}: "Neg",
    _REAL_OR_BRAIN | _WORDS: "Max Min Mod",
    _REAL_OR_BRAIN | {"int32", "int64", "uint8"}: "Where",
    _REAL_OR_BRAIN | {"int32", "int64"}: "Pow ReduceSum Tile",
    _REAL_OR_BRAIN | {"int64", "bool"}: "GatherND",
    _REAL_OR_BRAIN: "Erf Exp Gelu Gemm IsInf IsNaN LayerNormalization MatMul Relu Sigmoid Softmax Sqrt Sum Tanh",
    _REAL | _WORDS | {"bool"}: "Equal",
    _REAL | _WORDS: "CumSum Greater GreaterOrEqual Less LessOrEqual",
    _REAL | {"int8", "uint8", "int64", "uint64"}: "Clip",
    _REAL | {"int8", "uint8", "int32", "int64"}: "ReduceMin",
    _REAL | {"int8", "uint8"}: "MaxPool",
    _REAL | {"int32", "int64"}: "ReduceMax TopK",
    _REAL | {"int32", "uint8"}: "Resize",
    _REAL | {"int32"}: "ReduceL1 ReduceL2 ReduceMean ReduceProd",
    _REAL | {"bool"}: "Pad",
    _REAL: "ArgMax ArgMin AveragePool BatchNormalization Ceil Conv ConvTranspose Cos DepthToSpace Einsum Elu Floor GRU "
    "GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish InstanceNormalization LRN LSTM LeakyRelu Log LogSoftmax "
    "PRelu RNN Reciprocal ReduceLogSum ReduceLogSumExp ReduceSumSquare Round Selu Sin Softplus Softsign SpaceToDepth "
    "ThresholdedRelu",
    frozenset({"float32", "float64", "int16", "int32", "int64"}): "Range",
    frozenset({"float32", "float64", "int32", "int64", "uint64"}): "EyeLike",
    frozenset({"float32", "float16", "int64"}): "OneHot",
    frozenset({"float32", "float16"}): "QuantizeLinear",
    frozenset({"float32"}): "GridSample",
    frozenset({"int8", "uint8"}): "DequantizeLinear",
    frozenset({"bool"}): "And Not Or Xor",
}
TYPES: Final[Mapping[str, frozenset[str]]] = {name: kinds for kinds, names in _ROWS.items() for name in names.split()}
OPERAND: Final[Mapping[str, int]] = {"Where": 1, "OneHot": 2}
"""Which input has the type, where it is not the first."""
