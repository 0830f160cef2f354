"""One model of the zoo, and its gradient by autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = dict[str, Tensor]
CLASSES = 5


@dataclass(frozen=True)
class Specimen:
    """One model.

    Attributes:
        build: makes it, and two samples of its inputs by name; the first input is explained.
        embedding: finds the module that embeds the first input, if that holds indices.
    """

    library: str
    family: str
    name: str
    build: Callable[[], tuple[nn.Module, Inputs]]
    embedding: Callable[[nn.Module], nn.Module] | None = None

    def gradient(self, model: nn.Module, inputs: Inputs, target: Tensor) -> Tensor:
        """The gradient of the target's score times the first input, by autograd; of an index, summed over its row."""
        if self.embedding is None:
            first = next(iter(inputs.values())).requires_grad_()
            (slope,) = torch.autograd.grad(_scores(model(**inputs), target), first)
            first.requires_grad_(False)
            return (first * slope).detach()
        rows: list[Tensor] = []
        hook = self.embedding(model).register_forward_hook(lambda _module, _args, result: _kept(rows, result))
        score = _scores(model(**inputs), target)
        hook.remove()
        return (rows[0] * torch.autograd.grad(score, rows[0])[0]).sum(-1).detach()


def _kept(rows: list[Tensor], result: Any) -> None:
    rows.append(result)


def _scores(output: Any, target: Tensor) -> Tensor:
    return explained(pytree.tree_leaves(output))[torch.arange(len(target)), target].sum()


def explained(outputs: Iterable[Any]) -> Tensor:
    """The first of the floating point tensors."""
    return next(x for x in outputs if isinstance(x, Tensor) and x.is_floating_point())


def images(size: int, name: str = "x") -> Inputs:
    """Two square images of three channels."""
    return {name: torch.randn(2, 3, size, size)}


def stirred(model: nn.Module) -> nn.Module:
    """Where a fresh model holds one number everywhere, other ones: gains of 0 or 1e-6 would hide whole blocks."""
    with torch.no_grad():
        for name, x in (*model.named_parameters(), *model.named_buffers()):
            constant = x.is_floating_point() and x.numel() > 1 and bool((x == x.flatten()[0]).all())
            if constant and name.endswith(("bias", "running_mean")):
                x.normal_(std=0.1)
            elif constant and (isinstance(x, nn.Parameter) or name.endswith("running_var")):
                x.uniform_(0.5, 1.5)
    return model
