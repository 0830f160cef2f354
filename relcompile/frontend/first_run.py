"""A first run of the model: a wrong input is easier to understand from it than from the capture of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from relcompile.errors import CaptureError, InputSpecError
from relcompile.frontend.capture import call_arguments, in_eval_mode


def check_runs(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
    """The model runs on these inputs, predicts numbers, and the same ones whether autograd watches or not.

    Raises:
        InputSpecError: it does not run on inputs of this shape, or its outputs are NaN or infinite.
        CaptureError: its forward asks whether gradients are wanted, and computes something else then.
    """
    shapes = ", ".join(f"{name} {list(x.shape)} {str(x.dtype).removeprefix('torch.')}" for name, x in inputs.items())
    quiet, watched = (_outputs(model, inputs, shapes, grad=grad) for grad in (False, True))
    if any(output.isnan().any() or (output.isinf().all() and output.numel()) for output in quiet):
        raise InputSpecError(
            f"the model itself predicts NaN or infinity on input {shapes}: there is nothing to explain; look at its "
            "weights (was it trained, is a statistic 0?) and at the examples"
        )
    pairs = [(a, b) for a, b in zip(quiet, watched, strict=False) if a.shape == b.shape]
    if len(pairs) != len(quiet) or any(not torch.allclose(a, b, 1e-3, 1e-6, equal_nan=True) for a, b in pairs):
        raise CaptureError(
            "the model computes something else under torch.no_grad(): its forward asks torch.is_grad_enabled(), and a "
            "graph has one answer; take that branch out of forward"
        )


def run_model(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
    """What the model returns for `inputs`."""
    args, kwargs = call_arguments(model, inputs)
    return model(*args, **kwargs)


def _outputs(
    model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], shapes: str, *, grad: bool
) -> list[torch.Tensor]:
    """The floating point tensors among the results; the model may overwrite its inputs, and draw noise."""
    copies = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    try:
        with torch.set_grad_enabled(grad), torch.random.fork_rng(devices=[]), in_eval_mode(model):
            torch.manual_seed(0)
            results = pytree.tree_leaves(run_model(model, copies))
    except InputSpecError:
        raise
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputSpecError(
            f"the model does not run on input {shapes}: {reason}\n  give the shape that it takes, the batch first, "
            "with --input or in the examples"
        ) from error
    return [leaf.detach() for leaf in results if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
