"""What every operator is: one row each. Nothing else knows operators by name, but for the passes that rewrite them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, aten
from passes.graphs.graph import tensor_of, touches_complex
from passes.operators import affine, arithmetic, embedding, pooling, scattering, signs, softmax, structure
from passes.operators.call import Active, Call
from passes.operators.functions import FUNCTIONS
from passes.operators.operator import Operator, Views

_WHOLE_BATCH: Final = "it is taken over the whole batch, but every sample is explained on its own"
_COMPUTED: Final = "its weight or bias depends on the input"
_FREE_SIDES: Final = "a side of what it reads is a free axis; leave that --dynamic out"
_PLACES: Final = "it writes along the whole batch, or a part of what it is given"
_COMPLEX: Final = (
    "of complex numbers only sums, products, quotients, whole powers, exp, log, abs, angle and Fourier transforms are "
    "known, these along axes of at most 8192 numbers and of a fixed size"
)
_UNKNOWN: Final = "relevance has no way through it; write it with operators that `relcompile rules --operators` lists"


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
            aten._upsample_bilinear2d_aa.vec,
            aten._upsample_bicubic2d_aa.vec,
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
    Operator((aten.scatter.src, aten.scatter.value), (scattering.ScatterCall,), refusal=_PLACES),
    Operator((aten.scatter_add.default,), (scattering.ScatterAddCall,), refusal=_PLACES),
    Operator((aten.scatter_reduce.two,), (scattering.ScatterExtremeCall,), refusal=f"{_PLACES}, or multiplies"),
    Operator((aten.index_add.default,), (scattering.IndexAddCall,), refusal=_WHOLE_BATCH),
    Operator((aten.cat.default,), (structure.ConcatenateCall,), signs.cat),
    Operator((aten.where.self,), (structure.WhereCall,), signs.where),
    Operator((aten.where.ScalarOther,), (structure.WhereCall,), signs.where_number),
    Operator((aten.where.ScalarSelf,), (structure.WhereCall,), signs.where),
    Operator((aten.masked_fill.Scalar,), (structure.MaskedFillCall,)),
    *FUNCTIONS,
    # what relevance does not pass: written by rules
    Operator((aten.sign.default,), sign=signs.same),
    Operator((aten.ones_like.default,), sign=signs.positive),
    Operator((aten.zeros_like.default,), sign=signs.zero),
)

OPERATORS: Final[Mapping[Any, Operator]] = {target: row for row in ROWS for target in row.targets}


def describe(node: Node, emit: Emitter, active: Active) -> Call | None:
    """The operator at `node` as a `Call`, or None if relevance has no way through it: see `refusal`."""
    if touches_complex(node):
        return None
    calls = (view.view(node, emit, active) for view in views_of(node))
    return next((call for call in calls if call is not None), None)


def refusal(node: Node) -> str:
    """Why relevance has no way through `node`, where it has none."""
    if touches_complex(node):
        return _COMPLEX
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
