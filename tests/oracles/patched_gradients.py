"""AttnLRP and CP-LRP as gradient × input: autograd on PyTorch's own modules with the gradients of functionals changed.

The efficient form of Achtibat et al. 2024 and of their released code: an activation's gradient is f(x) / x (there
f(x) / (x + 1e-10)), a norm's deviation is detached while its mean is not, and before attention the gradient of v is
halved and those of q and k are quartered (a product of two values twice over). CP-LRP detaches q and k instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional


def explain(model: nn.Module, x: Tensor, target: Tensor, method: str | None) -> Tensor:
    """`x` times the patched gradient of the target's score; without a method, times the gradient."""
    leaf = x.clone().requires_grad_()
    with patched(method) if method else nullcontext():
        scores = model(leaf)[torch.arange(len(x)), target]
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return x * gradient


@contextmanager
def patched(method: str) -> Generator[None]:
    """`torch.nn.functional` with other gradients and the same values."""
    replaced: dict[str, Callable[..., Tensor]] = {
        name: partial(activation, getattr(functional, name)) for name in ("gelu", "relu", "silu", "hardswish", "mish")
    }
    attention = functional.scaled_dot_product_attention
    replaced["layer_norm"] = _layer_norm
    replaced["scaled_dot_product_attention"] = partial(_attention, attention, method == "cp-lrp")
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(patch.object(functional, name, function))
        yield


def activation(function: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The value of the function, the secant f(x) / x for its gradient."""
    y = function(x, *args, **kwargs).detach()
    return _with_value(x * torch.where(x == 0, 0, y / x).detach(), y)


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    deviation = (x.var(dims, unbiased=False, keepdim=True) + eps).sqrt().detach()
    y = (x - x.mean(dims, keepdim=True)) / deviation
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _attention(
    function: Callable[..., Tensor], constant: bool, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    if constant:
        return function(q.detach(), k.detach(), v, *args, **kwargs)
    return function(divided(q, 4), divided(k, 4), divided(v, 2), *args, **kwargs)


def divided(x: Tensor, by: float) -> Tensor:
    """The value x, the gradient of x / by."""
    return _with_value(x / by, x.detach())


def _with_value(x: Tensor, value: Tensor) -> Tensor:
    return x + (value - x).detach()
