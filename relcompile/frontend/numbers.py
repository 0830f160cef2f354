"""Are the numbers of a model such that an explainer can be made of them? Asked before minutes of work."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from relcompile.errors import InputSpecError

_HALF = (torch.float16, torch.bfloat16)
_LISTED = 5


def check_numbers(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
    """Weights are of a precision that relevance survives and that the inputs have, and none is NaN.

    Raises:
        InputSpecError: names the tensors, and the way out.
    """
    floats = {name: t for name, t in model.state_dict().items() if _is_dense_float(t)}
    given = [f"{name} {_name(x)}" for name, x in inputs.items() if x.dtype in _HALF]
    if given:
        raise InputSpecError(
            f"inputs of half precision ({_listed(given)}) lose the relevance that is summed and stabilised in it; "
            "convert them, and the model: .float()"
        )
    half = [f"{name} {_name(tensor)}" for name, tensor in floats.items() if tensor.dtype in _HALF]
    if half:
        raise InputSpecError(
            f"the model has {len(half)} tensors of half precision ({_listed(half)}), in which stabilisers and sums of "
            "relevance are lost; convert it first: model.float()"
        )
    bad = {name: int(tensor.isnan().sum()) for name, tensor in floats.items()}
    named = [f"{name}: {count} of {floats[name].numel()}" for name, count in bad.items() if count]
    if named:
        raise InputSpecError(f"the model has weights that are NaN ({_listed(named)}): it predicts nothing to explain")
    other = [f"{name} {_name(x)}" for name, x in inputs.items() if x.is_floating_point() and x.dtype == torch.float32]
    if other and floats and all(tensor.dtype == torch.float64 for tensor in floats.values()):
        raise InputSpecError(
            f"the model is float64 and its inputs are not ({', '.join(other)}); convert it: model.float(), or them: "
            ".double()"
        )


def _is_dense_float(tensor: object) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.layout is torch.strided


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
