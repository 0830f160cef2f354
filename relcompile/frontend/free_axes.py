"""Axes of inputs, beside the batch, whose sizes the caller of an explainer chooses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch.fx import GraphModule

from relcompile.errors import CaptureError, InputSpecError

_UNBOUNDED: Final = 2**31
FreeAxes: TypeAlias = Mapping[str, frozenset[int]]
"""By name of an input; the batch, axis 0, is free anyway and not among them."""


def free_axes(asked: Sequence[str], inputs: Mapping[str, torch.Tensor]) -> FreeAxes:
    """What "input_ids:1" and the like ask for.

    Args:
        asked: "INPUT:AXIS" each, axes counted from 0, which is the batch.
        inputs: the examples by name.

    Raises:
        InputSpecError: one does not read like that, or there is no such axis; or its example is too short.
    """
    found = defaultdict[str, frozenset[int]](frozenset)
    for text in asked:
        name, _, axis = text.rpartition(":")
        if name not in inputs or not axis.isdecimal() or int(axis) not in range(1, inputs[name].dim()):
            known = ", ".join(f"{key}:{k}" for key, x in inputs.items() for k in range(1, x.dim()))
            raise InputSpecError(f"there is no axis {text!r} beside the batch; the axes are {known or 'none'}")
        if inputs[name].shape[int(axis)] < 2:
            raise InputSpecError(f"the example of {name} has size 1 along axis {axis}: what varies needs at least 2")
        found[name] |= {int(axis)}
    return found


def refuse_branches(
    module: GraphModule,
    ranges: Mapping[Any, Any],
    inputs: Mapping[str, torch.Tensor],
    runs: Callable[[dict[str, torch.Tensor]], bool],
) -> None:
    """A graph that holds for some sizes only is that of a model which fails beyond them, and does nothing else there.

    Args:
        module: the captured graph.
        ranges: of its symbols, as `ExportedProgram.range_constraints` says them.
        inputs: the examples.
        runs: does the model, on such inputs?

    Raises:
        CaptureError: the model goes another way at other sizes.
    """
    shapes = {node.name: node.meta["val"].shape for node in module.graph.find_nodes(op="placeholder")}
    for symbol, bounds in ranges.items():
        axes = {
            name: [k for k, size in enumerate(shape) if k and str(size) == str(symbol)]
            for name, shape in shapes.items()
        }
        for size in (int(bounds.lower) - 1, *([int(bounds.upper) + 1] if bounds.upper < _UNBOUNDED else ())):
            if size > 1 and any(axes.values()) and runs({n: _resized(x, axes[n], size) for n, x in inputs.items()}):
                named = ", ".join(f"{name}:{k}" for name, ks in axes.items() for k in ks)
                raise CaptureError(
                    f"the model goes another way where the size of {named} is {size}, and one graph has one way; take "
                    f"the branch out of forward, or leave --dynamic {named} out"
                )


def _resized(tensor: torch.Tensor, axes: Sequence[int], size: int) -> torch.Tensor:
    """The first elements along axes; a longer axis begins anew."""
    for axis in axes:
        tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
    return tensor
