"""What every operator is: one row each. Nothing else knows operators by name, but for the passes that rewrite them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import tensor_of
from passes.operators import affine, arithmetic, embedding, pooling, signs, softmax, structure
from passes.operators import curvature as c
from passes.operators import derivatives as d
from passes.operators import secants as s
from passes.operators.activation import Curvature, Derivative, Pointwise, Secant, between
from passes.operators.call import Active, Call

View: TypeAlias = type[Call] | Pointwise
Views: TypeAlias = tuple[View, ...]


@dataclass(frozen=True)
class Operator:
    """One operator of aten, or several that differ in their rank or their spelling only.

    Attributes:
        targets: its overloads.
        views: what it can be; the first that fits is what it is. Each has an exact adjoint. None at all: relevance does
            not pass, and the row is there for the sign.
        sign: the sign of its value, from those of its operands.
        gate: its values lie in -1..1: what multiplies another value by them lets a part of it through.
        refusal: why no view fits, where none does.
    """

    targets: tuple[Any, ...]
    views: Views = ()
    sign: signs.SignRule | None = None
    gate: bool = False
    refusal: str = ""


_WHOLE_BATCH: Final = "it is taken over the whole batch, but every sample is explained on its own"
_COMPUTED: Final = "its weight or bias depends on the input"
_FREE_SIDES: Final = "a side of what it reads is a free axis; leave that --dynamic out"
_TENSORS: Final = "its parameters are tensors, or come from the size of an input"
_UNKNOWN: Final = "relevance has no way through it; write it with operators that `relcompile rules --operators` lists"


def _pointwise(
    target: Any,
    derivative: Derivative,
    curvature: Curvature,
    sign: signs.SignRule | None = None,
    *,
    secant: Secant = s.smooth,
    gate: bool = False,
    jumps: bool = False,
) -> Operator:
    """A function of one value, with numbers for parameters."""
    return Operator((target,), (Pointwise(derivative, curvature, secant, jumps=jumps),), sign, gate, _TENSORS)


def _clamp(derivative: Derivative, target: Any, low: str | None, high: str | None) -> Operator:
    """A clamp to numbers, in the arguments of these names."""
    bounds = between(low, high)
    return Operator(
        (target,), (Pointwise(derivative, c.flat, s.smooth, bounds),), partial(signs.clamp, bounds), refusal=_TENSORS
    )


def _below_one(z: Value) -> Value:
    return -(z * z) + 1.0


def _above_one(z: Value) -> Value:
    return z * z + 1.0


def _from_one(z: Value) -> Value:
    return z * z - 1.0


ROWS: Final[tuple[Operator, ...]] = (
    # affine
    Operator((aten.linear.default,), (affine.LinearCall,), signs.affine, refusal=_COMPUTED),
    Operator((aten.convolution.default,), (affine.ConvolutionCall,), signs.affine, refusal=_COMPUTED),
    # sums and products, of two values that depend on the input, or with a constant
    Operator((aten.add.Tensor,), (arithmetic.SumCall, arithmetic.ShiftCall), signs.plain_sum),
    Operator((aten.sub.Tensor,), (arithmetic.SumCall, arithmetic.ShiftCall), signs.negated_sum),
    Operator((aten.mul.Tensor,), (arithmetic.ProductCall, arithmetic.ScaleCall), signs.product),
    Operator((aten.div.Tensor,), (arithmetic.QuotientCall, arithmetic.ScaleCall), signs.quotient),
    Operator((aten.neg.default,), (arithmetic.NegateCall,), signs.negated),
    Operator(
        (aten.matmul.default, aten.bmm.default),
        (arithmetic.MatmulCall, arithmetic.MixCall),
        signs.matrix_product,
        refusal="one of the two is a vector along the batch",
    ),
    # pools
    Operator((aten.mean.dim,), (arithmetic.MeanCall,), signs.same, refusal=_WHOLE_BATCH),
    Operator((aten.sum.dim_IntList,), (arithmetic.ReduceCall,), signs.same, refusal=_WHOLE_BATCH),
    Operator((aten.cumsum.default,), (arithmetic.CumulativeSumCall,), signs.same, refusal=_WHOLE_BATCH),
    Operator((aten.max_pool2d.default, aten.max_pool3d.default), (pooling.MaxPoolCall,), signs.same),
    Operator(
        (aten.avg_pool2d.default, aten.avg_pool3d.default), (pooling.AveragePoolCall,), signs.same, refusal=_FREE_SIDES
    ),
    Operator(
        (aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default),
        (pooling.AdaptiveAverageCall,),
        signs.same,
        refusal=_FREE_SIDES,
    ),
    Operator(
        (
            aten.upsample_nearest1d.vec,
            aten.upsample_nearest2d.vec,
            aten.upsample_nearest3d.vec,
            aten.upsample_linear1d.vec,
            aten.upsample_bilinear2d.vec,
            aten.upsample_trilinear3d.vec,
            aten.upsample_bicubic2d.vec,
            aten.reflection_pad1d.default,
            aten.reflection_pad2d.default,
            aten.reflection_pad3d.default,
            aten.replication_pad1d.default,
            aten.replication_pad2d.default,
            aten.replication_pad3d.default,
        ),
        (pooling.ResampleCall,),
        refusal=_FREE_SIDES,
    ),
    Operator((aten.amax.default,), (structure.ExtremeCall,), signs.same),
    Operator((aten.amin.default,), (structure.AminCall,), signs.same),
    Operator((aten.maximum.default,), (structure.MaximumCall,)),
    Operator((aten.minimum.default,), (structure.MinimumCall,)),
    # softmax
    Operator((aten.softmax.int,), (softmax.SoftmaxCall,), signs.positive, gate=True, refusal=_WHOLE_BATCH),
    Operator((aten.log_softmax.int,), (softmax.LogSoftmaxCall,), refusal=_WHOLE_BATCH),
    Operator((aten.embedding.default,), (embedding.EmbeddingCall,), refusal="its table depends on the input"),
    # structure
    Operator(
        (
            aten.view.default,
            aten._unsafe_view.default,
            aten.reshape.default,
            aten.flatten.using_ints,
            aten.unsqueeze.default,
            aten.squeeze.dims,
            aten.squeeze.default,
        ),
        (structure.ReshapeCall,),
        signs.same,
    ),
    Operator((aten.clone.default,), (structure.CopyCall,), signs.same),
    Operator(
        (aten._to_copy.default,), (structure.CastCall,), signs.same, refusal="it turns numbers into integers, or back"
    ),
    Operator((aten.permute.default,), (structure.PermuteCall,), signs.same),
    Operator((aten.transpose.int,), (structure.TransposeCall,), signs.same),
    Operator((aten.slice.Tensor,), (structure.SliceCall,), signs.same, refusal=_WHOLE_BATCH),
    Operator((aten.select.int,), (structure.SelectCall,), signs.same, refusal=_WHOLE_BATCH),
    Operator((aten.constant_pad_nd.default,), (structure.PadCall,), signs.pad),
    Operator((aten.expand.default,), (structure.ExpandCall,), signs.same),
    Operator((aten.repeat.default,), (structure.RepeatCall,), signs.same),
    Operator((aten.flip.default,), (structure.FlipCall,), signs.same),
    Operator((aten.roll.default,), (structure.RollCall,), signs.same),
    Operator((aten.index_select.default,), (structure.IndexSelectCall,), signs.same),
    Operator(
        (aten.index.Tensor,),
        (structure.IndexCall,),
        signs.same,
        refusal="it takes several axes at once, or a mask or a table of positions",
    ),
    Operator((aten.gather.default,), (structure.GatherCall,), signs.same),
    Operator((aten.cat.default,), (structure.ConcatenateCall,), signs.cat),
    Operator((aten.where.self,), (structure.WhereCall,), signs.where),
    Operator((aten.where.ScalarOther,), (structure.WhereCall,), signs.where_number),
    Operator((aten.where.ScalarSelf,), (structure.WhereCall,), signs.where),
    Operator((aten.masked_fill.Scalar,), (structure.MaskedFillCall,)),
    # activations, with f' and f''
    Operator((aten.relu.default,), (Pointwise(d.relu, c.flat, s.slope, lambda _node: (0.0, math.inf)),), signs.relu),
    _clamp(d.clamp, aten.clamp.default, "min", "max"),
    _clamp(d.clamp, aten.clamp_min.default, "min", None),
    _clamp(d.clamp, aten.clamp_max.default, None, "max"),
    _clamp(
        d.of_input(aten.hardtanh_backward.default, "min_val", "max_val"), aten.hardtanh.default, "min_val", "max_val"
    ),
    _pointwise(aten.elu.default, d.elu, c.elu),
    _pointwise(aten.leaky_relu.default, d.leaky_relu, c.flat, secant=s.slope),
    Operator(
        (aten._prelu_kernel.default,),
        (Pointwise(d.prelu, c.flat, s.slope, parametric=True),),
        refusal="its slopes depend on the input",
    ),
    _pointwise(aten.threshold.default, d.threshold, c.flat, jumps=True),
    _pointwise(aten.log_sigmoid.default, d.log_sigmoid, lambda call: -c.bump(c.logistic(call.x))),
    _pointwise(aten.gelu.default, d.gelu, c.gelu, secant=s.gelu),
    _pointwise(aten.hardshrink.default, d.of_input(aten.hardshrink_backward.default, "lambd"), c.flat, jumps=True),
    _pointwise(
        aten.hardsigmoid.default, d.of_input(aten.hardsigmoid_backward.default), c.flat, signs.positive, gate=True
    ),
    _pointwise(
        aten.hardswish.default,
        d.of_input(aten.hardswish_backward.default),
        c.hardswish,
        secant=s.of_input(aten.hardsigmoid.default),
    ),
    _pointwise(aten.mish.default, d.mish, c.mish, secant=s.mish),
    _pointwise(aten.silu.default, d.silu, c.silu, secant=s.of_input(aten.sigmoid.default)),
    _pointwise(
        aten.softplus.default,
        d.of_input(aten.softplus_backward.default, "beta", "threshold"),
        c.softplus,
        signs.positive,
    ),
    _pointwise(aten.softshrink.default, d.of_input(aten.softshrink_backward.default, "lambd"), c.flat),
    _pointwise(aten.sigmoid.default, d.of_output(aten.sigmoid_backward.default), c.sigmoid, signs.positive, gate=True),
    _pointwise(aten.tanh.default, d.of_output(aten.tanh_backward.default), c.tanh, gate=True),
    _pointwise(aten.exp.default, d.times(lambda call: call.output), lambda call: call.output, signs.positive),
    _pointwise(aten.log.default, lambda call, m: m / call.x, lambda call: c.log(call.x)),
    _pointwise(aten.log1p.default, lambda call, m: m / (call.x + 1.0), lambda call: c.log(call.x + 1.0)),
    _pointwise(aten.expm1.default, d.times(lambda call: call.output + 1.0), lambda call: call.output + 1.0),
    _pointwise(aten.sqrt.default, lambda call, m: m / (call.output * 2.0), c.sqrt, secant=s.quotient),
    _pointwise(aten.rsqrt.default, d.times(lambda call: c.cubed(call.output) * -0.5), c.rsqrt, jumps=True),
    _pointwise(
        aten.reciprocal.default,
        d.times(lambda call: -(call.output * call.output)),
        lambda call: c.cubed(call.output) * 2.0,
        jumps=True,
    ),
    _pointwise(aten.abs.default, d.times(d.unary(aten.sign.default)), c.flat, signs.magnitude),
    _pointwise(aten.sin.default, d.times(d.unary(aten.cos.default)), lambda call: -call.output),
    _pointwise(aten.cos.default, d.cos, lambda call: -call.output),
    _pointwise(aten.atan.default, d.atan, c.atan),
    _pointwise(aten.erf.default, d.erf, c.erf),
    _pointwise(aten.erfc.default, d.erfc, c.erf, signs.positive),
    _pointwise(
        aten.tan.default,
        d.times(lambda call: call.output * call.output + 1.0),
        lambda call: call.output * (call.output * call.output + 1.0) * 2.0,
    ),
    _pointwise(aten.asin.default, d.inverse_of(_below_one), c.inverse_of(_below_one)),
    _pointwise(aten.acos.default, d.inverse_of(_below_one, -1.0), c.inverse_of(_below_one, -1.0), signs.positive),
    _pointwise(aten.sinh.default, d.times(d.unary(aten.cosh.default)), lambda call: call.output),
    _pointwise(aten.cosh.default, d.times(d.unary(aten.sinh.default)), lambda call: call.output, signs.positive),
    _pointwise(aten.asinh.default, d.inverse_of(_above_one), c.inverse_of(_above_one, -1.0)),
    _pointwise(aten.acosh.default, d.inverse_of(_from_one), c.inverse_of(_from_one, -1.0), signs.positive),
    _pointwise(aten.atanh.default, lambda call, m: m / _below_one(call.x), c.atanh),
    _pointwise(aten.logit.default, d.logit, c.logit),
    _pointwise(aten.pow.Tensor_Scalar, d.power, c.power, secant=s.quotient),
    # what relevance does not pass: written by rules
    Operator((aten.sign.default,), sign=signs.same),
    Operator((aten.ones_like.default,), sign=signs.positive),
    Operator((aten.zeros_like.default,), sign=signs.zero),
)

OPERATORS: Final[Mapping[Any, Operator]] = {target: row for row in ROWS for target in row.targets}


def describe(node: Node, emit: Emitter, active: Active) -> Call | None:
    """The operator at `node` as a `Call`, or None if relevance has no way through it: see `refusal`."""
    calls = (view.view(node, emit, active) for view in views_of(node))
    return next((call for call in calls if call is not None), None)


def refusal(node: Node) -> str:
    """Why relevance has no way through `node`, where it has none."""
    row = OPERATORS.get(node.target)
    return row.refusal if row is not None and row.views else _UNKNOWN


def views_of(node: Node) -> Views:
    """What the operator at `node` can be; nothing for any other node."""
    row = OPERATORS.get(node.target)
    return row.views if row is not None else ()


def is_a(node: Node, call: type[Call]) -> bool:
    """The operator at `node` can be such a call, and nothing else."""
    views = views_of(node)
    return bool(views) and all(isinstance(view, type) and issubclass(view, call) for view in views)


def is_gate(node: Node) -> bool:
    """The values of `node` lie in -1..1 by the operator that makes them."""
    row = OPERATORS.get(node.target)
    return row is not None and row.gate


def infer_sign(node: Node, module: GraphModule) -> signs.Sign:
    """Sign of the value of `node`, from the signs that were found for its operands."""
    tensor = tensor_of(module, node)
    if tensor is not None:
        return signs.of_tensor(tensor)
    row = OPERATORS.get(node.target)
    return row.sign(node) if row is not None and row.sign is not None else None
