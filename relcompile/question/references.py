"""What differences are taken from: a constant input, or a runtime input `reference`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import torch

from passes.relevance.annotations.add_reference import REFERENCE_INPUT
from relcompile.errors import CompositeError, InputSpecError
from relcompile.files.arrays import map_array, native
from relcompile.methods.composites import Composite

_LARGEST: Final = 2**28  # bytes of an .npy file; it holds one sample
OneReference: TypeAlias = float | tuple[float, ...] | torch.Tensor | Literal["input"]
Reference: TypeAlias = OneReference | Mapping[str, OneReference]
"""One for every explained input, or one for each by name."""


def chosen_reference(composite: Composite, given: Reference | None) -> Reference | None:
    """The reference that was given, or the method's own; None for a method without one.

    Raises:
        CompositeError: a reference was given to a method that takes no differences and no way from a baseline.
    """
    start = None if composite.sampling is None else composite.sampling.start
    own = composite.reference if start is None else start
    if own is None and given is not None:
        raise CompositeError(
            f"rule {composite.name} takes no differences from a reference; the deeplift rules and "
            "integrated-gradients do"
        )
    return own if given is None else given


def parse_reference(text: str) -> OneReference:
    """Read a number, one number per channel ("0.1,0.2,0.3"), "input", or the name of an .npy file of one sample.

    Raises:
        InputSpecError: it is none of these, or the file cannot be read.
    """
    if text == "input":
        return "input"
    if (path := reference_file(text)) is not None:
        return torch.from_numpy(native(map_array(path, "the reference", _LARGEST)))
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputSpecError(f"reference {text!r} must be a number, A,B,C, input, or an .npy file") from None
    if not all(map(math.isfinite, numbers)):
        raise InputSpecError(f"reference {text!r} must be finite")
    first, *others = numbers
    return numbers if others else first


def reference_file(text: str | None) -> Path | None:
    """The file that `parse_reference` reads, if it reads one."""
    return Path(text) if text is not None and text.endswith(".npy") else None


def reference_tensors(
    reference: Reference, inputs: Mapping[str, torch.Tensor], sources: tuple[str, ...]
) -> dict[str, torch.Tensor | None]:
    """For every explained input a constant of one sample, or of several, or None for the runtime input.

    Raises:
        InputSpecError: the reference does not fit the input, or would have to be of several inputs.
    """
    if isinstance(reference, complex) or (isinstance(reference, torch.Tensor) and reference.is_complex()):
        raise InputSpecError("the reference is complex: inputs are real numbers, and its imaginary part would be lost")
    if isinstance(reference, Mapping):
        return _by_name(reference, inputs, sources)
    if isinstance(reference, float | int):
        return {name: _number(reference, inputs[name]) for name in sources}
    if len(sources) != 1:
        raise InputSpecError(
            f"a reference that is not one number needs one explained input, there are {', '.join(sources)}; "
            f"give one by name, reference={{{sources[0]!r}: ..., ...}}, or choose with explain=[...] (--explain)"
        )
    (name,) = sources
    if isinstance(reference, str):
        if REFERENCE_INPUT in inputs:
            raise InputSpecError(f"the model has an input called {REFERENCE_INPUT} itself; give a constant reference")
        return {name: None}
    return {name: _like_samples(reference, inputs[name])}


def _by_name(
    references: Mapping[str, OneReference], inputs: Mapping[str, torch.Tensor], sources: tuple[str, ...]
) -> dict[str, torch.Tensor | None]:
    if set(references) != set(sources):
        raise InputSpecError(
            f"there are references of {', '.join(references) or 'nothing'}, and the explained inputs are "
            f"{', '.join(sources)}: give one for each"
        )
    if len(sources) > 1 and "input" in [one for one in references.values() if isinstance(one, str)]:
        raise InputSpecError("a runtime reference needs one explained input; give constants by name")
    singles = {name: reference_tensors(references[name], inputs, (name,))[name] for name in sources}
    if len({1 if tensor is None else len(tensor) for tensor in singles.values()}) > 1:
        raise InputSpecError("the references of all inputs are of one sample each, or of equally many")
    return singles


def number_of_references(references: Mapping[str, torch.Tensor | None]) -> int:
    """How many samples the references of an input are."""
    return max((len(tensor) for tensor in references.values() if tensor is not None), default=1)


def describe_reference(reference: Reference | None) -> str | None:
    """As the metadata record it: "0", "0.1,0.2,0.3", "input", "tensor", "a: 0, b: tensor", or None."""
    if isinstance(reference, Mapping):
        if len(reference) == 1:
            return describe_reference(next(iter(reference.values())))
        return ", ".join(f"{name}: {describe_reference(one)}" for name, one in reference.items())
    if isinstance(reference, torch.Tensor):
        return "tensor"
    if isinstance(reference, tuple):
        return ",".join(f"{value:g}" for value in reference)
    return reference if reference is None or isinstance(reference, str) else f"{reference:g}"


def _number(value: float, example: torch.Tensor) -> torch.Tensor:
    return torch.full([1] * example.dim(), float(value), dtype=torch.float64)


def _like_samples(reference: tuple[float, ...] | torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """(n, ...), from one number per channel, from one sample, or from a batch of samples."""
    sample = list(example.shape[1:])
    if isinstance(reference, tuple):
        if not sample or len(reference) != sample[0]:
            raise InputSpecError(f"reference {reference} has {len(reference)} channels, the input is {sample}")
        return torch.tensor(reference, dtype=torch.float64).reshape([1, -1, *[1] * (len(sample) - 1)])
    single = list(reference.shape) == sample
    if not single and (list(reference.shape[1:]) != sample or len(reference) == 0):
        raise InputSpecError(
            f"reference has the shape {list(reference.shape)}, one sample is {sample} (several are a background, "
            f"[n, ...], over which is averaged)"
        )
    return reference.detach().reshape([-1, *sample]).clone()
