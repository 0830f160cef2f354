"""PyTorch model -> canonical graph: what compiling and calibrating have in common."""

from __future__ import annotations

import hashlib
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule

from passes.pipelines import CANONICALIZE
from passes.rewrites.optimise.merge_branches import MergeBranches
from passes.runner import PassReport, run_passes
from passes.stages import verify_canonical, verify_captured
from relcompile.errors import InputSpecError
from relcompile.files.arrays import DTYPES
from relcompile.frontend.capture import Captured, capture, forward_parameters
from relcompile.frontend.free_axes import FreeAxes
from relcompile.frontend.samples import check_samples

ExampleInputs: TypeAlias = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
Progress: TypeAlias = Callable[[str], None]


def captured_graph(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    progress: Progress | None = None,
    free: FreeAxes | None = None,
) -> Captured:
    """The model as it computes on `inputs`, for any batch and any size of free axes.

    Raises:
        CaptureError: see `capture` and `check_samples`.
    """
    if progress:
        progress("capture")
    captured = capture(model, {name: _at_least_two(tensor) for name, tensor in inputs.items()}, free)
    check_samples(captured.module, inputs)
    return captured


def canonicalize(
    module: GraphModule, progress: Progress | None = None, *, merge_branches: bool = True
) -> list[PassReport]:
    """Captured graph -> the operators that rules know, in place.

    Args:
        module: the graph, as captured.
        progress: told the name of every pass.
        merge_branches: linear maps of one value that are only added become one linear map.
    """
    passes = [p for p in CANONICALIZE if merge_branches or not isinstance(p, MergeBranches)]
    return run_passes(module, passes, keeps=verify_captured, ensures=verify_canonical, on_pass=progress)


def named_inputs(model: torch.nn.Module, given: ExampleInputs) -> dict[str, torch.Tensor]:
    """Inputs by parameter name of `forward`, in its order; an optional one may be None.

    Raises:
        InputSpecError: there are too many of them; one is not a tensor that ONNX Runtime takes; or their batch axes
            do not fit.
    """
    names = forward_parameters(model)
    if isinstance(given, Mapping):
        named: Mapping[str, Any] = given
    else:
        tensors: list[Any] = [given] if isinstance(given, torch.Tensor) else list(given)
        if len(tensors) > len(names):
            raise InputSpecError(f"forward takes {len(names)} inputs ({', '.join(names)}), {len(tensors)} were given")
        named = dict(zip(names, tensors, strict=False))
    position = {name: k for k, name in enumerate(names)}
    ordered = sorted(named, key=lambda name: position.get(name, len(names)))
    inputs = {name: named[name] for name in ordered if named[name] is not None}
    _check(inputs)
    return inputs


def _check(inputs: Mapping[str, Any]) -> None:
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            raise InputSpecError(
                f"input {name} is a {type(value).__name__}; every input is one tensor (a module around the model, "
                "whose forward takes tensors, can pack them)"
            )
        if str(value.dtype).removeprefix("torch.") not in DTYPES:
            raise InputSpecError(
                f"input {name} is {value.dtype}, which numpy does not have; convert the model: .float()"
            )
    unwritable = [name for name in inputs if not name.isidentifier() or keyword.iskeyword(name)]
    if unwritable:
        raise InputSpecError(f"an input is called by a parameter of forward, not {', '.join(map(repr, unwritable))}")
    without_batch = [name for name, tensor in inputs.items() if tensor.dim() == 0 or tensor.shape[0] == 0]
    if without_batch or not inputs:
        raise InputSpecError(
            f"every input needs a batch axis of at least one sample: {', '.join(without_batch) or 'none given'}"
        )
    if len({tensor.shape[0] for tensor in inputs.values()}) > 1:
        sizes = ", ".join(f"{name} {tensor.shape[0]}" for name, tensor in inputs.items())
        raise InputSpecError(f"axis 0 of every input is the same batch, but the sizes are {sizes}")


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    """A batch of one would be captured as the constant 1, and one tensor for two inputs as one input."""
    with torch.inference_mode(False):
        return (torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor.clone()).contiguous()


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of the model's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
