"""What does a network answer to the root of an input, and to the signal, the rest of it?"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Scores = Callable[[Tensor], Tensor]
"""Inputs (N, ...) -> scores (N, classes)."""


def answers(scores: Scores, x: Tensor, signal: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """f(x), f(root) and f(signal) of the class, (N,), and whether it is the best one there, (N,), by what is shown.

    A root leaves nothing of the class: f(x - s) is near 0, and f(s) near f(x).
    Formula: the root is x - s.
    Source: Zhang et al. 2024, released code, whose root at the input belongs to an input of ones; here it is that of x.

    Args:
        scores: the network.
        x: (N, ...).
        signal: s, in the shape of x.
        targets: the classes, (N,).
    """
    found = dict[str, tuple[Tensor, Tensor]]()
    for name, shown in {"x": x, "root": x - signal, "signal": signal}.items():
        all_scores = scores(shown)
        found[name] = all_scores.gather(1, targets[:, None])[:, 0], all_scores.argmax(1) == targets
    return found
