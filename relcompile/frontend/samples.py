"""Does a model answer for every sample by itself? An explainer explains each row on its own, whatever is beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from passes.graphs.graph import describe_node
from relcompile.errors import CaptureError

_TOLERANCE: Final = 0.02
"""Of the largest magnitude: kernels for one row and for four round differently, and rounding inside may tip over."""


def check_samples(module: GraphModule, inputs: Mapping[str, torch.Tensor]) -> None:
    """The captured graph predicts the same of a sample alone and as the second of four.

    The others are the same with its numbers moved along by one place, and halved if they are floating point: within
    its range, and of its vocabulary. A graph that draws noise cannot be asked, nor one that does not run on them.

    Raises:
        CaptureError: names the first operator in which samples see each other.
    """
    one = [x[:1] for x in inputs.values()]
    four = [torch.cat([_unlike(x), x, _unlike(x), _unlike(x)]) for x in one]
    alone, beside = _predictions(module, one), _predictions(module, four)
    if not any(map(_differ, alone, beside)) or any(map(_differ, alone, _predictions(module, one))):
        return
    place = _first_that_mixes(module, one, four)
    raise CaptureError(
        "the samples of a batch see each other: what is predicted of one changes with the one beside it, and every "
        "sample is explained on its own; compute along other axes than the batch, axis 0"
        + (f"\n  {describe_node(place)}" if place else "")
    )


def _unlike(x: torch.Tensor) -> torch.Tensor:
    moved = x.roll(1, -1) if x.dim() > 1 else x
    return moved * 0.5 if x.is_floating_point() else moved


def _predictions(module: GraphModule, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """The results; none where the graph does not run."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return pytree.tree_leaves(module(*(tensor.clone() for tensor in inputs)))
    except Exception:  # whatever the model has against rows that nobody gave
        return []


def _first_that_mixes(module: GraphModule, one: Sequence[torch.Tensor], four: Sequence[torch.Tensor]) -> Node | None:
    alone, beside = (Interpreter(module, garbage_collect_values=False) for _ in range(2))
    with torch.no_grad():
        alone.run(*one)
        beside.run(*four)
    called = [node for node in module.graph.nodes if node.op == "call_function"]
    return next((node for node in called if _differ(alone.env[node], beside.env[node])), None)


def _differ(alone: Any, beside: Any) -> bool:
    """The second sample has other floating point numbers than alone; so has what is one for all samples."""
    if not isinstance(alone, torch.Tensor) or not alone.is_floating_point() or alone.dim() == 0:
        return False
    same = beside if beside.shape == alone.shape else beside[len(alone) : 2 * len(alone)]
    known = alone.isfinite()
    if same.shape != alone.shape or not known.any():
        return False
    return bool((alone - same).abs()[known].max() > _TOLERANCE * alone.abs()[known].max())
