"""Do numbers come near the end of their type? Asked after every compilation from the command line, on the examples."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.fx import Interpreter, Node

from relcompile.backend.compiled import Compiled

SUSPICIOUS: Final = 1e-12  # of the largest number: relevance is divided by stabilisers of 1e-9


@torch.no_grad()
def nearest_to_overflow(explainer: Compiled) -> float:
    """The largest finite |value| inside the graph on the examples, over the largest number that its type holds.

    1 if one is infinite or NaN. Where numbers overflow, relevance is NaN for some inputs and fine for others.
    """
    watch = _Largest(explainer.graph_module)
    watch.run(*explainer.example_arguments(2))
    return watch.share


class _Largest(Interpreter):
    """Runs a graph and keeps the largest share of its type that a value takes."""

    share = 0.0

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.is_floating_point() and result.numel():
            largest = float(result.abs().max()) / torch.finfo(result.dtype).max
            self.share = max(self.share, largest if largest < 1 else 1.0)
        return result
