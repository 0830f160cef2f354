"""PyTorch model -> canonical graph: what compiling and calibrating have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch.fx import GraphModule

from passes.pipelines import CANONICALIZE
from passes.runner import PassReport, run_passes
from passes.stages import verify_canonical, verify_captured
from relcompile.capture import Captured, capture, forward_parameters
from relcompile.errors import InputSpecError

ExampleInputs: TypeAlias = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
Progress: TypeAlias = Callable[[str], None]


def captured_graph(
    model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], progress: Progress | None = None
) -> Captured:
    """The model as it computes on `inputs`."""
    if progress:
        progress("capture")
    return capture(model, {name: _at_least_two(tensor) for name, tensor in inputs.items()})


def canonicalize(module: GraphModule, progress: Progress | None = None) -> list[PassReport]:
    """Captured graph -> the operators that rules know, in place."""
    return run_passes(module, CANONICALIZE, keeps=verify_captured, ensures=verify_canonical, on_pass=progress)


def named_inputs(model: torch.nn.Module, given: ExampleInputs) -> dict[str, torch.Tensor]:
    """Inputs by parameter name of `forward`.

    Raises:
        InputSpecError: there are too many of them, or one has no batch axis.
    """
    if isinstance(given, Mapping):
        inputs = dict(given)
    else:
        tensors = [given] if isinstance(given, torch.Tensor) else list(given)
        names = forward_parameters(model)
        if len(tensors) > len(names):
            raise InputSpecError(f"forward takes {len(names)} inputs ({', '.join(names)}), {len(tensors)} were given")
        inputs = dict(zip(names, tensors, strict=False))
    without_batch = [name for name, tensor in inputs.items() if tensor.dim() == 0 or tensor.shape[0] == 0]
    if without_batch or not inputs:
        raise InputSpecError(
            f"every input needs a batch axis of at least one sample: {', '.join(without_batch) or 'none given'}"
        )
    return inputs


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    """A batch of one would be captured as the constant 1."""
    return torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of the model's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
