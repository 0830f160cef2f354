"""What every ONNX operator is in torch: one row each. Nothing else knows operators by name, but for sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from relcompile.errors import ModelFileError
from relcompile.frontend.onnx.node import Node
from relcompile.frontend.onnx.operators import affine, linear, pooling, quantised, recurrent, reductions, structure
from relcompile.frontend.onnx.operators import pointwise as p

Refusal = Callable[[Node], str | None]
MAP: Final = "ai.onnx.ml::ZipMap"  # from the names of classes to scores, which are what is read of it


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: its type; of another domain than the standard's, with that in front.
        compute: takes the node, then its operands; one that is left out is None. Returns one tensor or several.
        numbers: positions of operands that have to be known numbers: shapes, axes, bounds.
        known: positions of operands that are given as numbers where they are known.
        refusal: why this very node cannot be computed, if it cannot.
        rounds: its results are steps.
    """

    name: str
    compute: Callable[..., Any]
    numbers: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    refusal: Refusal = lambda _node: None
    rounds: bool = False


def _one_result(node: Node) -> str | None:
    """Further results are statistics, or indices."""
    more = [name for name in node.outputs[1:] if name]
    return f"its results {', '.join(more)} are asked for" if more else None


def _only(**usual: Any) -> Refusal:
    """Attributes that have to be these, if they are there."""

    def refuse(node: Node) -> str | None:
        odd = [name for name, value in usual.items() if not _is(node.attributes.get(name, value), value)]
        return f"torch does not compute it with {', '.join(odd)}" if odd else None

    return refuse


def _is(given: Any, usual: Any) -> bool:
    """Of a list, every number."""
    return all(value == usual for value in given) if isinstance(given, tuple) else given == usual


def _both(*refusals: Refusal) -> Refusal:
    return lambda node: next(filter(None, (refusal(node) for refusal in refusals)), None)


def _attention(node: Node) -> str | None:
    return "it has a cache, or lengths" if any(node.inputs[4:]) else None


def _interpolation(node: Node) -> str | None:
    try:
        pooling.interpolation(node)
    except ModelFileError as error:
        return str(error).partition(": ")[2]
    return None


def _reduced(name: str, compute: Callable[..., Any]) -> Operator:
    return Operator(name, reductions.reduced(compute), numbers=(1,))


def _quantised(name: str, compute: Callable[..., Any]) -> Operator:
    return Operator(name, compute, refusal=quantised.channels_first, rounds=True)


ROWS: Final[tuple[Operator, ...]] = (
    # affine
    Operator("BatchNormalization", affine.batch_norm, refusal=_both(_only(training_mode=0), _one_result)),
    Operator("Conv", affine.convolution),
    Operator("ConvTranspose", affine.transposed_convolution),
    Operator("Einsum", affine.einsum),
    Operator("Gemm", affine.gemm),
    Operator("MatMul", affine.matmul),
    Operator("ai.onnx.ml::LinearClassifier", linear.classifier, refusal=linear.refusal),
    Operator("ai.onnx.ml::LinearRegressor", linear.regressor, refusal=linear.refusal),
    Operator("ai.onnx.ml::Scaler", linear.scaler),
    # pools
    Operator("AveragePool", pooling.average_pool, refusal=_only(dilations=1)),
    Operator("GlobalAveragePool", pooling.global_average),
    Operator("GlobalMaxPool", pooling.global_max),
    Operator("MaxPool", pooling.max_pool, refusal=_one_result),
    Operator("Resize", pooling.resize, numbers=(1, 2, 3), refusal=_interpolation),
    Operator("Upsample", pooling.resize, numbers=(1,), refusal=_interpolation),
    # activations and other functions of one value
    Operator("Abs", p.plain(torch.abs)),
    Operator("Acos", p.plain(torch.acos)),
    Operator("Acosh", p.plain(torch.acosh)),
    Operator("Asin", p.plain(torch.asin)),
    Operator("Asinh", p.plain(torch.asinh)),
    Operator("Atan", p.plain(torch.atan)),
    Operator("Atanh", p.plain(torch.atanh)),
    Operator("Cast", p.cast),
    Operator("CastLike", p.cast_like),
    Operator("Ceil", p.plain(torch.ceil)),
    Operator("Celu", p.celu),
    Operator("Clip", p.clip, numbers=(1, 2)),
    Operator("Cos", p.plain(torch.cos)),
    Operator("Cosh", p.plain(torch.cosh)),
    Operator("Dropout", p.dropout, numbers=(2,)),
    Operator("Elu", p.elu),
    Operator("Erf", p.plain(torch.erf)),
    Operator("Exp", p.plain(torch.exp)),
    Operator("Floor", p.plain(torch.floor)),
    Operator("Gelu", p.gelu),
    Operator("HardSigmoid", p.hard_sigmoid),
    Operator("HardSwish", p.plain(functional.hardswish)),
    Operator("Identity", p.identity),
    Operator("LeakyRelu", p.leaky_relu),
    Operator("Log", p.plain(torch.log)),
    Operator("Mish", p.plain(functional.mish)),
    Operator("Neg", p.plain(torch.neg)),
    Operator("Not", p.plain(torch.logical_not)),
    Operator("PRelu", p.prelu),
    Operator("Reciprocal", p.plain(torch.reciprocal)),
    Operator("Relu", p.plain(torch.relu)),
    Operator("Round", p.plain(torch.round)),
    Operator("Selu", p.selu),
    Operator("Shrink", p.shrink),
    Operator("Sigmoid", p.plain(torch.sigmoid)),
    Operator("Sign", p.plain(torch.sign)),
    Operator("Sin", p.plain(torch.sin)),
    Operator("Sinh", p.plain(torch.sinh)),
    Operator("Softplus", p.softplus),
    Operator("Softsign", p.plain(functional.softsign)),
    Operator("Sqrt", p.plain(torch.sqrt)),
    Operator("Swish", p.swish),
    Operator("Tan", p.plain(torch.tan)),
    Operator("Tanh", p.plain(torch.tanh)),
    Operator("ThresholdedRelu", p.thresholded_relu),
    # functions of several values
    Operator("Add", p.plain(torch.add)),
    Operator("And", p.plain(torch.logical_and)),
    Operator("Div", p.divide),
    Operator("Equal", p.plain(torch.eq)),
    Operator("Greater", p.plain(torch.gt)),
    Operator("GreaterOrEqual", p.plain(torch.ge)),
    Operator("Less", p.plain(torch.lt)),
    Operator("LessOrEqual", p.plain(torch.le)),
    Operator("Max", p.repeated(torch.maximum)),
    Operator("Mean", p.mean),
    Operator("Min", p.repeated(torch.minimum)),
    Operator("Mod", p.modulo),
    Operator("Mul", p.plain(torch.mul)),
    Operator("Or", p.plain(torch.logical_or)),
    Operator("Pow", p.power, known=(1,)),
    Operator("Sub", p.plain(torch.sub)),
    Operator("Sum", p.repeated(torch.add)),
    Operator("Where", p.where),
    Operator("Xor", p.plain(torch.logical_xor)),
    # reductions
    Operator("ArgMax", reductions.extreme_index(torch.argmax)),
    Operator("ArgMin", reductions.extreme_index(torch.argmin)),
    Operator("CumSum", reductions.cumulative_sum, numbers=(1,)),
    _reduced("ReduceL1", reductions.absolute_sum),
    _reduced("ReduceL2", reductions.euclidean),
    _reduced("ReduceLogSum", reductions.log_of_sum),
    _reduced("ReduceLogSumExp", reductions.log_sum_exp),
    _reduced("ReduceMax", reductions.largest),
    _reduced("ReduceMean", reductions.mean),
    _reduced("ReduceMin", reductions.smallest),
    _reduced("ReduceProd", reductions.product),
    _reduced("ReduceSum", reductions.total),
    _reduced("ReduceSumSquare", reductions.sum_of_squares),
    Operator("TopK", reductions.top_k, numbers=(1,)),
    # softmax, norms, attention
    Operator(
        "Attention",
        reductions.attention,
        refusal=_both(_one_result, _attention, _only(left_window_size=-1, right_window_size=-1)),
    ),
    Operator("GroupNormalization", reductions.group_norm),
    Operator("InstanceNormalization", reductions.instance_norm),
    Operator("LayerNormalization", reductions.layer_norm),
    Operator("LogSoftmax", reductions.along_axis(reductions.log_softmax)),
    Operator("LpNormalization", reductions.lp_norm),
    Operator("LRN", reductions.local_response),
    Operator("ai.onnx.ml::Normalizer", linear.normaliser),
    Operator("MeanVarianceNormalization", reductions.mean_variance),
    Operator("RMSNormalization", reductions.rms_norm),
    Operator("Softmax", reductions.along_axis(reductions.softmax)),
    # structure
    Operator("ai.onnx.ml::ArrayFeatureExtractor", structure.last_axis),
    Operator(MAP, p.identity),
    Operator("Concat", structure.concatenate),
    Operator("DepthToSpace", structure.depth_to_space),
    Operator("Expand", structure.expand, numbers=(1,)),
    Operator("Flatten", structure.flatten),
    Operator("Gather", structure.gather, known=(1,)),
    Operator("GatherElements", structure.gather_elements),
    Operator("GatherND", structure.gather_nd, refusal=_only(batch_dims=0)),
    Operator("Pad", structure.pad, numbers=(1, 2, 3)),
    Operator("Reshape", structure.reshape, numbers=(1,)),
    Operator("ScatterND", structure.scatter_nd),
    Operator("ScatterElements", structure.scatter_elements),
    Operator("Slice", structure.slice_, numbers=(1, 2, 3, 4)),
    Operator("SpaceToDepth", structure.space_to_depth),
    Operator("Split", structure.split, numbers=(1,)),
    Operator("Squeeze", structure.squeeze, numbers=(1,)),
    Operator("Tile", structure.tile, numbers=(1,)),
    Operator("Transpose", structure.transpose),
    Operator("Trilu", structure.triangle, numbers=(1,)),
    Operator("Unsqueeze", structure.unsqueeze, numbers=(1,)),
    # constants
    Operator("Constant", structure.constant),
    Operator("ConstantOfShape", structure.constant_of_shape, numbers=(0,)),
    Operator("EyeLike", structure.eye_like),
    Operator("OneHot", structure.one_hot, numbers=(1,)),
    Operator("Range", structure.range_, numbers=(0, 1, 2)),
    # recurrent
    Operator("GRU", recurrent.gru, refusal=recurrent.refusal),
    Operator("LSTM", recurrent.lstm, refusal=recurrent.refusal),
    Operator("RNN", recurrent.rnn, refusal=recurrent.refusal),
    # quantised
    Operator("DequantizeLinear", quantised.dequantise),
    _quantised("QLinearConv", quantised.quantised_convolution),
    _quantised("QLinearMatMul", quantised.of_two(torch.matmul)),
    _quantised("QuantizeLinear", quantised.quantise),
    _quantised("com.microsoft::QGemm", quantised.gemm),
    _quantised("com.microsoft::QLinearAdd", quantised.of_two(torch.add)),
    _quantised("com.microsoft::QLinearAveragePool", quantised.of_one(pooling.average_pool)),
    _quantised("com.microsoft::QLinearConcat", quantised.concatenate),
    _quantised("com.microsoft::QLinearGlobalAveragePool", quantised.of_one(pooling.global_average)),
    _quantised("com.microsoft::QLinearLeakyRelu", quantised.of_one(p.leaky_relu)),
    _quantised("com.microsoft::QLinearMul", quantised.of_two(torch.mul)),
    _quantised("com.microsoft::QLinearSigmoid", quantised.of_one(p.plain(torch.sigmoid))),
)

OPERATORS: Final[Mapping[str, Operator]] = {row.name: row for row in ROWS}
