"""One row an operator (or more): arguments that it is run on. Tensors that require a gradient depend on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from passes.graphs.emitter import aten

_GENERATOR = torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Case:
    """`target(*args, **settings)`."""

    target: Any
    args: Sequence[Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, a.shape)) for a in self.args if isinstance(a, Tensor))
        return f"{str(self.target).removeprefix('aten.')}({shapes})"


def x(*shape: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    """A value that depends on the input."""
    return c(*shape, low=low, high=high).requires_grad_()


def c(*shape: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    """A constant."""
    return torch.rand(shape, generator=_GENERATOR, dtype=torch.float64) * (high - low) + low


def _convolution(
    axes: int, stride: int, padding: int, dilation: int, transposed: bool, extra: int, groups: int
) -> Case:
    outputs, inputs, places = (4, 6, [9, 8, 7][:axes])
    weight = [inputs, outputs // groups] if transposed else [outputs, inputs // groups]
    geometry = ([stride] * axes, [padding] * axes, [dilation] * axes, transposed, [extra] * axes, groups)
    return Case(aten.convolution.default, (x(2, inputs, *places), c(*weight, *[3] * axes), c(outputs), *geometry))


_SQUARE = x(2, 3, 4, 4)
IMAGE, VOLUME, SIGNAL = (2, 3, 7, 6), (2, 2, 5, 6, 4), (2, 3, 7)
_IMAGES: dict[int, tuple[int, ...]] = {1: SIGNAL, 2: IMAGE, 3: VOLUME}
_MASK, _ROW = c(3, 5) > 0, x(2, 3)
_PLACES = torch.tensor([[0, 2, 0], [1, 0, 2]])

AFFINE = (
    Case(aten.linear.default, (x(2, 5, 6), c(4, 6), c(4))),
    Case(aten.linear.default, (x(3, 6), c(4, 6))),
    _convolution(1, 2, 1, 1, False, 0, 1),
    _convolution(2, 3, 2, 2, False, 0, 2),
    _convolution(3, 1, 0, 1, False, 0, 1),
    _convolution(1, 2, 1, 1, True, 1, 2),
    _convolution(2, 1, 1, 2, True, 0, 1),
    _convolution(3, 2, 0, 1, True, 1, 2),
)
ARITHMETIC = (
    Case(aten.add.Tensor, (x(2, 3, 4), x(3, 1)), {"alpha": -0.5}),
    Case(aten.add.Tensor, (_SQUARE, _SQUARE)),
    Case(aten.add.Tensor, (c(2, 3, 4), x(2, 1, 4)), {"alpha": 3}),
    Case(aten.sub.Tensor, (x(2, 3), x(3))),
    Case(aten.sub.Tensor, (c(2, 3), x(2, 3)), {"alpha": 2}),
    Case(aten.mul.Tensor, (x(2, 3, 4), x(2, 3, 1))),
    Case(aten.mul.Tensor, (_SQUARE, _SQUARE)),
    Case(aten.mul.Tensor, (x(2, 3), 1.5)),
    Case(aten.div.Tensor, (x(2, 3), x(2, 1, low=0.5))),
    Case(aten.div.Tensor, (2.0 * c(2, 3), x(2, 3, low=0.5))),
    Case(aten.div.Tensor, (x(2, 3), c(3, low=0.5))),
    Case(aten.neg.default, (x(2, 3),)),
    Case(aten.matmul.default, (x(2, 3, 4, 5), x(2, 3, 5, 2))),
    Case(aten.matmul.default, (x(2, 1, 4, 5), x(3, 5, 2))),
    Case(aten.matmul.default, (x(2, 3, 4, 5), c(5, 2))),
    Case(aten.matmul.default, (c(2, 4, 5), x(3, 2, 5, 2))),
    Case(aten.bmm.default, (x(2, 4, 5), x(2, 5, 3))),
)
POOLS = (
    Case(aten.mean.dim, (x(*IMAGE), [2, -1])),
    Case(aten.mean.dim, (x(*IMAGE), [1], True)),
    Case(aten.sum.dim_IntList, (x(*IMAGE), [1, 3])),
    Case(aten.sum.dim_IntList, (x(*IMAGE), [-2], True)),
    Case(aten.cumsum.default, (x(*IMAGE), -2)),
    Case(aten.scatter_add.default, (x(2, 5), 1, _PLACES, x(2, 3))),
    Case(aten.scatter_add.default, (_ROW, 1, _PLACES, _ROW)),
    Case(aten.scatter_add.default, (c(3, 5), 1, _PLACES, x(2, 3))),
    Case(aten.index_add.default, (x(2, 5, 3), 1, torch.tensor([3, 0, 3]), x(2, 3, 3))),
    Case(aten.index_add.default, (c(2, 5, 3), -2, torch.tensor([3, 0]), x(2, 2, 3))),
    *(
        Case(aten.scatter_reduce.two, (x(2, 5), 1, _PLACES, written, how), {"include_self": how == "amax"})
        for written in (x(2, 3), c(2, 3))
        for how in ("amax", "amin")
    ),
    Case(aten.max_pool2d.default, (x(*IMAGE), [3, 2], [2, 1], [1, 0], [1, 2], True)),
    Case(aten.max_pool2d.default, (x(*IMAGE), [2, 2])),
    Case(aten.max_pool3d.default, (x(*VOLUME), [2, 3, 2], [2, 2, 2], [1, 1, 0])),
    Case(aten.avg_pool2d.default, (x(*IMAGE), [3, 2], [2, 1], [1, 1], True, False)),
    Case(aten.avg_pool2d.default, (x(*IMAGE), [2, 2], [], [0, 0], False, True, 3)),
    Case(aten.avg_pool3d.default, (x(*VOLUME), [2, 3, 2], [2, 2, 2], [1, 1, 0])),
    Case(aten._adaptive_avg_pool2d.default, (x(*IMAGE), [3, 4])),
    Case(aten._adaptive_avg_pool3d.default, (x(*VOLUME), [2, 4, 3])),
    *(
        Case(target, (x(*_IMAGES[axes]), [11, 9, 6][:axes], *mode, None))
        for target, axes, mode in (
            (aten.upsample_nearest1d.vec, 1, ()),
            (aten.upsample_nearest2d.vec, 2, ()),
            (aten.upsample_nearest3d.vec, 3, ()),
            (aten.upsample_linear1d.vec, 1, (False,)),
            (aten.upsample_bilinear2d.vec, 2, (True,)),
            (aten.upsample_trilinear3d.vec, 3, (False,)),
            (aten.upsample_bicubic2d.vec, 2, (False,)),
            (aten._upsample_bilinear2d_aa.vec, 2, (False,)),
            (aten._upsample_bicubic2d_aa.vec, 2, (True,)),
        )
    ),
    *(
        Case(target, (x(*_IMAGES[axes]), [1, 2, 3, 0, 2, 1][: 2 * axes]))
        for target, axes in (
            (aten.reflection_pad1d.default, 1),
            (aten.reflection_pad2d.default, 2),
            (aten.reflection_pad3d.default, 3),
            (aten.replication_pad1d.default, 1),
            (aten.replication_pad2d.default, 2),
            (aten.replication_pad3d.default, 3),
        )
    ),
    *(
        Case(target, arguments)
        for target in (aten.amax.default, aten.amin.default)
        for arguments in ((x(*IMAGE), [1, -1]), (x(*IMAGE), [2], True))
    ),
    Case(aten.maximum.default, (x(2, 3, 4), x(3, 1))),
    Case(aten.minimum.default, (x(2, 3), c(2, 3))),
)
SOFTMAX = (
    Case(aten.softmax.int, (x(2, 3, 4), -1)),
    Case(aten.softmax.int, (x(2, 3, 4), 1)),
    Case(aten.log_softmax.int, (x(2, 3, 4), 1)),
)
STRUCTURE = (
    Case(aten.view.default, (x(2, 6), [2, 3, 2])),
    Case(aten._unsafe_view.default, (x(2, 6), [2, 3, 2])),
    Case(aten.reshape.default, (x(2, 6), [-1, 3, 2])),
    Case(aten.flatten.using_ints, (x(2, 3, 4), 1)),
    Case(aten.unsqueeze.default, (x(2, 3), -1)),
    Case(aten.squeeze.dims, (x(2, 1, 3, 1), [1, 3])),
    Case(aten.squeeze.default, (x(2, 1, 3, 1),)),
    Case(aten.clone.default, (x(2, 3),)),
    Case(aten._to_copy.default, (x(2, 3),), {"dtype": torch.float64}),
    Case(aten.permute.default, (x(2, 3, 4), [0, -1, 1])),
    Case(aten.transpose.int, (x(2, 3, 4), 1, -1)),
    Case(aten.slice.Tensor, (x(2, 9), 1, 1, -1)),
    Case(aten.slice.Tensor, (x(2, 9), -1, 1, 8, 3)),
    Case(aten.select.int, (x(2, 9, 3), 1, -2)),
    Case(aten.constant_pad_nd.default, (x(2, 3, 4), [1, -1, 0, 2], 0.5)),
    Case(aten.expand.default, (x(2, 1, 3), [4, 2, 5, 3])),
    Case(aten.repeat.default, (x(2, 3), [2, 1, 3])),
    Case(aten.flip.default, (x(2, 3, 4), [1, 2])),
    Case(aten.roll.default, (x(2, 3, 4), [1, -2], [1, 2])),
    Case(aten.index_select.default, (x(2, 5), 1, torch.tensor([0, 3, 3]))),
    Case(aten.index.Tensor, (x(2, 5, 3), [None, torch.tensor([0, -1, 3, 3])])),
    Case(aten.gather.default, (x(2, 5), 1, torch.tensor([[0, 0, 4], [1, 2, 2]]))),
    Case(aten.scatter.src, (x(2, 5), 1, _PLACES, x(2, 3))),
    Case(aten.scatter.src, (c(2, 5), -1, _PLACES, x(2, 3))),
    Case(aten.scatter.src, (x(2, 5), 1, _PLACES, c(2, 3))),
    Case(aten.scatter.value, (x(2, 5), 1, _PLACES, 1.5)),
    Case(aten.cat.default, ([_SQUARE, x(2, 2, 4, 4), _SQUARE], 1)),
    Case(aten.where.self, (_MASK, x(3, 5), x(3, 1))),
    Case(aten.where.self, (_MASK, c(3, 5), x(3, 5))),
    Case(aten.where.ScalarOther, (_MASK, x(3, 5), 1.5)),
    Case(aten.where.ScalarSelf, (_MASK, 1.5, x(3, 5))),
    Case(aten.masked_fill.Scalar, (x(3, 5), _MASK, 2.0)),
)
ACTIVATIONS = (
    *(
        Case(target, (x(4, 10), *parameters))
        for target, *parameters in (
            (aten.relu.default,),
            (aten.clamp.default, -0.5, 1.0),
            (aten.clamp.default, None, 1.0),
            (aten.clamp_min.default, -0.5),
            (aten.clamp_max.default, 0.5),
            (aten.hardtanh.default, -0.5, 1.0),
            (aten.elu.default, 1.5, 1.2, 0.7),
            (aten.leaky_relu.default, 0.2),
            (aten.threshold.default, 0.3, 4.0),
            (aten.log_sigmoid.default,),
            (aten.gelu.default,),
            (aten.hardshrink.default, 0.4),
            (aten.hardsigmoid.default,),
            (aten.hardswish.default,),
            (aten.mish.default,),
            (aten.silu.default,),
            (aten.softplus.default, 2.0, 3.0),
            (aten.softshrink.default, 0.4),
            (aten.sigmoid.default,),
            (aten.tanh.default,),
            (aten.exp.default,),
            (aten.expm1.default,),
            (aten.abs.default,),
            (aten.sin.default,),
            (aten.cos.default,),
            (aten.atan.default,),
            (aten.erf.default,),
            (aten.erfc.default,),
            (aten.sinh.default,),
            (aten.cosh.default,),
            (aten.asinh.default,),
            (aten.pow.Tensor_Scalar, 3),
        )
    ),
    *(
        Case(target, (x(4, 10, low=0.1), *parameters))
        for target, *parameters in (
            (aten.log.default,),
            (aten.log1p.default,),
            (aten.sqrt.default,),
            (aten.rsqrt.default,),
            (aten.reciprocal.default,),
            (aten.pow.Tensor_Scalar, -1.5),
            (aten.pow.Tensor_Tensor, c(10).round()),
        )
    ),
    *(
        Case(target, (x(4, 10, low=-0.9, high=0.9),))
        for target in (aten.asin.default, aten.acos.default, aten.atanh.default, aten.tan.default)
    ),
    Case(aten.acosh.default, (x(4, 10, low=1.1, high=4.0),)),
    Case(aten.gelu.default, (x(4, 10),), {"approximate": "tanh"}),
    Case(aten.logit.default, (x(4, 10, low=0.05, high=0.95), 0.2)),
    Case(aten._prelu_kernel.default, (x(2, 3, 4), c(3, 1))),
)


def around(*kinks: float) -> Tensor:
    """The kinks, their neighbours on both sides, and infinities."""
    at = torch.tensor(kinks, dtype=torch.float64)
    neighbours = [torch.nextafter(at, torch.full_like(at, end)) for end in (-torch.inf, torch.inf)]
    return torch.cat([at, *neighbours, at.new_tensor([-torch.inf, torch.inf])]).requires_grad_()


KINKS = tuple(
    Case(target, (around(*kinks), *parameters))
    for target, kinks, *parameters in (
        (aten.relu.default, (0.0,)),
        (aten.clamp.default, (0.0, 6.0), 0, 6),
        (aten.clamp.default, (-0.5, 1.0), -0.5, 1.0),
        (aten.clamp.default, (1.0,), None, 1.0),
        (aten.clamp_min.default, (-0.5,), -0.5),
        (aten.clamp_max.default, (0.5,), 0.5),
        (aten.hardtanh.default, (0.0, 6.0), 0.0, 6.0),
        (aten.hardtanh.default, (-0.5, 1.0), -0.5, 1.0),
        (aten.elu.default, (0.0,)),
        (aten.leaky_relu.default, (0.0,), 0.2),
        (aten.threshold.default, (0.3,), 0.3, 4.0),
        (aten.hardshrink.default, (-0.4, 0.4), 0.4),
        (aten.softshrink.default, (-0.4, 0.4), 0.4),
        (aten.hardsigmoid.default, (-3.0, 3.0)),
        (aten.hardswish.default, (-3.0, 3.0)),
        (aten.abs.default, (0.0,)),
    )
)
CASES = (*AFFINE, *ARITHMETIC, *POOLS, *SOFTMAX, *STRUCTURE, *ACTIVATIONS, *KINKS)
