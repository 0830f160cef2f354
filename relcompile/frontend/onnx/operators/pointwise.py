"""Functions of one value, and of several of one shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node, Numbers

DTYPES: Final = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}  # by their number in ONNX


def plain(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of torch that takes the operands as they come and needs no attribute."""

    def compute(_node: Node, *operands: Tensor) -> Tensor:
        return function(*operands)

    return compute


def repeated(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of two values, over any number of operands."""

    def compute(_node: Node, *operands: Tensor) -> Tensor:
        return reduce(function, operands)

    return compute


def mean(_node: Node, *operands: Tensor) -> Tensor:
    """The mean of several values."""
    return reduce(torch.add, operands) / len(operands)


def cast(node: Node, x: Tensor) -> Tensor:
    """Another data type, the number of which is an attribute."""
    dtype = DTYPES.get(node.integer("to", 0))
    return node.refuse("there is no such data type in torch") if dtype is None else x.to(dtype)


def cast_like(_node: Node, x: Tensor, like: Tensor) -> Tensor:
    """The data type of another value."""
    return x.to(like.dtype)


def clip(node: Node, x: Tensor, low: Numbers | None = None, high: Numbers | None = None) -> Tensor:
    """Between two numbers, either of which may be missing."""
    bounds = [node.attributes.get("min") if low is None else low, node.attributes.get("max") if high is None else high]
    below, above = (None if bound is None else float(bound) for bound in bounds)
    if (below, above) == (0.0, None):
        return functional.relu(x)
    return x if below is above is None else torch.clamp(x, below, above)


def divide(_node: Node, x: Tensor, y: Tensor) -> Tensor:
    """Integers divide to integers, towards zero."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def elu(node: Node, x: Tensor) -> Tensor:
    """x, and alpha (e^x - 1) where x < 0."""
    return functional.elu(x, node.number("alpha", 1.0))


def celu(node: Node, x: Tensor) -> Tensor:
    """x, and alpha (e^(x/alpha) - 1) where x < 0."""
    return functional.celu(x, node.number("alpha", 1.0))


def selu(node: Node, x: Tensor) -> Tensor:
    """Gamma times an ELU; the constants of the file, which are rounded ones of torch."""
    return functional.elu(x, node.number("alpha", 1.67326319217681884765625)) * node.number(
        "gamma", 1.05070102214813232421875
    )


def gelu(node: Node, x: Tensor) -> Tensor:
    """X Phi(x), exact or by tanh."""
    return functional.gelu(x, approximate=node.text("approximate", "none"))


def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """Alpha x + beta, clipped to 0..1; torch's own has alpha = 1/6."""
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """x, and alpha x where x < 0."""
    return functional.leaky_relu(x, node.number("alpha", 0.01))


def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """x, and a learned slope times x where x < 0; the slopes one a channel, or in any shape that broadcasts."""
    of_channels = node.opset < 7 or slope.shape[-x.dim() + 1 :] == (x.shape[1], *(1,) * (x.dim() - 2))
    if slope.numel() == 1 or (of_channels and slope.numel() == x.shape[1]):
        return functional.prelu(x, slope.flatten())
    return torch.relu(x) - slope * torch.relu(-x)


def power(_node: Node, x: Tensor, exponent: Tensor | Numbers) -> Tensor:
    """X to a power: of a number, where it is one."""
    if isinstance(exponent, Tensor):
        return torch.pow(x, exponent.to(x.dtype))
    if exponent.size == 1:
        return torch.pow(x, float(exponent.item()))
    return torch.pow(x, torch.from_numpy(exponent).to(x.dtype))


def shrink(node: Node, x: Tensor) -> Tensor:
    """0 within lambd of 0, and nearer to 0 by a bias outside."""
    lambd, bias = node.number("lambd", 0.5), node.number("bias", 0.0)
    if bias == 0.0:
        return functional.hardshrink(x, lambd)
    return functional.softshrink(x, lambd) if bias == lambd else node.refuse("its bias is neither 0 nor lambd")


def softplus(_node: Node, x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return functional.softplus(x)


def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """X where it is above alpha, else 0."""
    return functional.threshold(x, node.number("alpha", 1.0), 0.0)


def swish(node: Node, x: Tensor) -> Tensor:
    """X sigmoid(alpha x)."""
    alpha = node.number("alpha", 1.0)
    return functional.silu(x) if alpha == 1.0 else x * torch.sigmoid(x * alpha)


def modulo(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """The remainder, with the sign of the divisor, or of the dividend with `fmod`."""
    return torch.fmod(x, y) if node.integer("fmod", 0) else torch.remainder(x, y)


def where(_node: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One of two values."""
    return torch.where(condition, x, y)


def identity(_node: Node, x: Any) -> Any:
    """The value itself."""
    return x


def dropout(
    node: Node, x: Tensor, _ratio: Any = None, training: Numbers | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """The value itself, at inference; and that everything is kept, if that is asked for."""
    if training is not None and training.any():
        node.refuse("it is that of training")
    return (x, torch.ones_like(x, dtype=torch.bool)) if any(node.outputs[1:]) else x
