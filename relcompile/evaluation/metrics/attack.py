"""How soon does the class change if nothing but the most relevant pixels may be changed?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

Scores = Callable[[Tensor], Tensor]
"""Inputs (1, C, H, W) -> scores (1, classes), with a gradient."""
Explain = Callable[[Tensor], Tensor]
"""An input (1, C, H, W) -> its relevance, in the same shape."""

SHARE: Final = 0.01


def guided_attack(
    scores: Scores,
    explain: Explain,
    image: Tensor,
    target: int,
    steps: int,
    *,
    radius: float,
    bounds: tuple[float, float],
    share: float = SHARE,
) -> int | None:
    """Steps until another class is the best one; None if that does not come about. The fewer, the better the map.

    Every step asks the network once: the scores that tell whether the class has changed give the next gradient, too.

    Formula: x ← x + m ⊙ g / |g|, with g = ∇ₓ CE(f(x), target), and m the `share` of the pixels of every channel that
        are most relevant in the map of this x; then |x - image| <= radius and x within bounds, element by element.
    Source: Zhang et al. 2024, released code (30 steps, 500 pixels of 224 x 224, a radius of 0.05 in inputs of -1..1),
        whose cross entropy is of a softmax of a softmax, and which does not keep to its radius.

    Args:
        scores: the network.
        explain: relevance of the target.
        image: (1, C, H, W), of the class `target`; of another one it takes 0 steps.
        target: the class.
        steps: at most so many.
        radius: of the change, in units of the input.
        bounds: the smallest and the largest value of a pixel.
        share: of the pixels, in 0..1; one at least.
    """
    x, label = image, torch.tensor([target])
    for step in range(steps + 1):
        given = x.detach().requires_grad_()
        with torch.enable_grad():
            found = scores(given)
            loss = functional.cross_entropy(found, label)
        if int(found.argmax()) != target:
            return step
        if step == steps:
            break
        (gradient,) = torch.autograd.grad(loss, given)
        length = gradient.norm()
        if length == 0:
            break
        x = x + _most_relevant(explain(x), share) * gradient / length
        x = torch.minimum(torch.maximum(x, image - radius), image + radius).clamp(*bounds)
    return None


def _most_relevant(relevance: Tensor, share: float) -> Tensor:
    """1 at the most relevant pixels of every channel, 0 elsewhere."""
    flat = relevance.flatten(2)
    chosen = flat.topk(max(1, round(share * flat.shape[2])), dim=2).indices
    return torch.zeros_like(flat).scatter(2, chosen, 1.0).reshape(relevance.shape)
