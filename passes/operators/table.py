"""The operators that relevance can pass through, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from passes.graphs.emitter import Emitter, aten
from passes.operators import affine, arithmetic, pooling, structure
from passes.operators.activation import DERIVATIVES, build_activation, is_pointwise_clamp
from passes.operators.call import Call, CallBuilder
from passes.operators.softmax import SoftmaxCall

OPERATORS: dict[Any, CallBuilder] = {
    aten.linear.default: affine.LinearCall.build_affine,
    aten.convolution.default: affine.ConvolutionCall.build_affine,
    aten.add.Tensor: arithmetic.build_sum,
    aten.sub.Tensor: arithmetic.build_sum,
    aten.mul.Tensor: arithmetic.build_product,
    aten.div.Tensor: arithmetic.build_quotient,
    aten.neg.default: arithmetic.NegateCall.build,
    aten.matmul.default: arithmetic.build_matmul,
    aten.bmm.default: arithmetic.build_matmul,
    aten.mean.dim: arithmetic.ReduceCall.build,
    aten.sum.dim_IntList: arithmetic.ReduceCall.build,
    aten.max_pool2d.default: pooling.MaxPoolCall.build,
    aten.max_pool3d.default: pooling.MaxPoolCall.build,
    aten.avg_pool2d.default: pooling.AveragePoolCall.build,
    aten.avg_pool3d.default: pooling.AveragePoolCall.build,
    aten._adaptive_avg_pool2d.default: pooling.ResampleCall.build,
    aten._adaptive_avg_pool3d.default: pooling.ResampleCall.build,
    aten.upsample_nearest1d.vec: pooling.ResampleCall.build,
    aten.upsample_nearest2d.vec: pooling.ResampleCall.build,
    aten.upsample_nearest3d.vec: pooling.ResampleCall.build,
    aten.upsample_linear1d.vec: pooling.ResampleCall.build,
    aten.upsample_bilinear2d.vec: pooling.ResampleCall.build,
    aten.upsample_trilinear3d.vec: pooling.ResampleCall.build,
    aten.upsample_bicubic2d.vec: pooling.ResampleCall.build,
    aten.amax.default: structure.ExtremeCall.build,
    aten.amin.default: structure.ExtremeCall.build,
    aten.maximum.default: structure.MaximumCall.build,
    aten.minimum.default: structure.MaximumCall.build,
    aten.where.self: structure.WhereCall.build,
    aten.where.ScalarOther: structure.WhereCall.build,
    aten.where.ScalarSelf: structure.WhereCall.build,
    aten.masked_fill.Scalar: structure.MaskedFillCall.build,
    aten.reflection_pad1d.default: pooling.ResampleCall.build,
    aten.reflection_pad2d.default: pooling.ResampleCall.build,
    aten.reflection_pad3d.default: pooling.ResampleCall.build,
    aten.replication_pad1d.default: pooling.ResampleCall.build,
    aten.replication_pad2d.default: pooling.ResampleCall.build,
    aten.replication_pad3d.default: pooling.ResampleCall.build,
    aten.softmax.int: SoftmaxCall.build,
    aten.log_softmax.int: SoftmaxCall.build,
    aten.cat.default: structure.ConcatenateCall.build,
    aten.view.default: structure.ReshapeCall.build,
    aten._unsafe_view.default: structure.ReshapeCall.build,
    aten.reshape.default: structure.ReshapeCall.build,
    aten.flatten.using_ints: structure.ReshapeCall.build,
    aten.unsqueeze.default: structure.ReshapeCall.build,
    aten.squeeze.dims: structure.ReshapeCall.build,
    aten.squeeze.default: structure.ReshapeCall.build,
    aten.permute.default: structure.PermuteCall.build,
    aten.transpose.int: structure.PermuteCall.build,
    aten.slice.Tensor: structure.SliceCall.build,
    aten.select.int: structure.SelectCall.build,
    aten.constant_pad_nd.default: structure.PadCall.build,
    aten.expand.default: structure.ExpandCall.build,
    aten.repeat.default: structure.RepeatCall.build,
    aten.flip.default: structure.FlipCall.build,
    aten.roll.default: structure.RollCall.build,
    aten.index_select.default: structure.IndexSelectCall.build,
    aten.index.Tensor: structure.IndexSelectCall.build_index,
    aten.gather.default: structure.GatherCall.build,
    aten.clone.default: structure.CopyCall.build,
    **dict.fromkeys(DERIVATIVES, build_activation),
}


def describe(node: Node, emit: Emitter, active: Callable[[Node], bool]) -> Call | None:
    """The operator at `node` as a `Call`, or None if relevance has no way through it."""
    builder = OPERATORS.get(node.target)
    if builder is None or (node.target in DERIVATIVES and not is_supported_activation(node)):
        return None
    return builder(node, emit, active)


def is_supported_activation(node: Node) -> bool:
    """Clamps to tensors are not pointwise functions of one operand."""
    return node.target is aten._prelu_kernel.default or is_pointwise_clamp(node)
