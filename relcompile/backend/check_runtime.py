"""Does ONNX Runtime compute what PyTorch computes? Asked after every export."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from relcompile.backend.compiled import Compiled
from relcompile.errors import ExportError
from relcompile.metadata import ABSORBED_OUTPUT

PARITY: Final = 2e-3  # of max|R|: a stabiliser of 1e-6 amplifies float32 rounding to about 1e-3
ILL_CONDITIONED: Final = 4  # or so many times what rounding moves in PyTorch itself, if that is larger
_SIGMOID_ENDS: Final = 1e-7  # a difference that is none: runtimes do not resolve smaller probabilities, torch does
_LAST_DIGITS: Final = 2
_BATCHES: Final = (1, 1, 1, 2)
_FEW: Final = (1, 2)  # for explainers that average over copies: VGG-16 on 64 photographs fills ten gigabytes
Array: TypeAlias = np.ndarray[Any, Any]
Errors: TypeAlias = dict[str, list[float]]


@dataclass(frozen=True)
class Parity:
    """Difference between ONNX Runtime and PyTorch, relative to the largest magnitude of each sample.

    Attributes:
        errors: by name of an output; of the model's own the largest of several samples, of relevance the median.
    """

    errors: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(self.errors.values())


@torch.no_grad()
def check_parity(explainer: Compiled, path: Path) -> Parity:
    """Run the file in ONNX Runtime on several batch sizes and compare with the explainer in PyTorch.

    Relevance is a function with jumps: a sample whose activation lies within rounding of a kink has other relevance on
    its other side, and deep networks have millions of activations. Therefore the median of several samples counts.
    Where even that is far (large networks, rules that divide by small numbers), what counts is how far the outputs
    move in PyTorch itself when the weights move in their last digits: no runtime can be held closer.

    Raises:
        ExportError: a value is not finite; or an output differs by more than `PARITY`, and by more than
            `ILL_CONDITIONED` times its `sensitivity`; or relevance is too small for half precision.
        RuntimeUnavailableError: ONNX Runtime is not installed.
    """
    from relcompile.runtime.production import load

    errors: Errors = defaultdict(list)
    samples = list(_samples(explainer))
    expected = [_named(explainer, explainer(*arguments)) for arguments in samples]
    _require_range(expected)
    production = load(path, device="cpu")  # only now: a session keeps the memory that it once needed
    for arguments, wanted in zip(samples, expected, strict=True):
        found = production.run(dict(zip(explainer.examples, (a.numpy() for a in arguments), strict=True)))
        _compare(explainer, found, wanted, errors)
    parity = _summary(explainer, errors)
    infinite = [name for name, error in parity.errors.items() if not np.isfinite(error)]
    if infinite:
        raise ExportError(
            f"the explainer computes NaN or infinity in {', '.join(infinite)}: values, or a stabiliser, leave the "
            "range of the model's data type"
        )
    if not parity.worst <= PARITY and not parity.worst <= ILL_CONDITIONED * sensitivity(explainer):
        listing = ", ".join(f"{name} {error:.2e}" for name, error in parity.errors.items())
        raise ExportError(f"ONNX Runtime and PyTorch disagree by more than {PARITY:g} of the maximum: {listing}")
    return parity


def _require_range(expected: Sequence[dict[str, Array]]) -> None:
    """Half precision holds what it is to hold: below its normal numbers digits are lost, and below 6e-8 all of them."""
    for name in (name for name, value in expected[0].items() if value.dtype == np.float16):
        largest = max(float(np.abs(values[name]).max(initial=0.0)) for values in expected)
        if largest < np.finfo(np.float16).tiny:
            raise ExportError(f"{name} is {largest:.1e} at most, too small for float16: leave --output-dtype out")


@torch.no_grad()
def sensitivity(explainer: Compiled) -> float:
    """How far the outputs move if every weight moves in its last digits, as rounding does: in the same measure."""
    moved, generator = copy.deepcopy(explainer.graph_module), torch.Generator().manual_seed(0)
    for weight in (*moved.parameters(), *moved.buffers()):
        if weight.is_floating_point():
            digits = _LAST_DIGITS * torch.finfo(weight.dtype).eps
            weight.mul_(1 + digits * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    errors: Errors = defaultdict(list)
    for arguments in _samples(explainer):
        _compare(explainer, _named(explainer, moved(*arguments)), _named(explainer, explainer(*arguments)), errors)
    return _summary(explainer, errors).worst


def _samples(explainer: Compiled) -> Iterator[tuple[torch.Tensor, ...]]:
    """The examples in several batches, no two samples at the same kinks.

    The k-th sample is rolled by k along its last axis and scaled by 0.9^k. (Networks without biases do not notice a
    scale.) Last, where axes are free, the examples cut along them.
    """
    k = 0
    for batch in _BATCHES if explainer.metadata.sampling is None else _FEW:
        samples = [[_moved(a, j) for a in explainer.example_arguments(1)] for j in range(k, k + batch)]
        k += batch
        yield tuple(torch.cat(same) for same in zip(*samples, strict=True))
    smaller = explainer.smaller_arguments()
    if smaller is not None:
        yield smaller


def _moved(a: torch.Tensor, k: int) -> torch.Tensor:
    return a.roll(k, -1) * 0.9**k if a.is_floating_point() else a


def _named(explainer: Compiled, values: Sequence[torch.Tensor]) -> dict[str, Array]:
    return dict(zip(explainer.metadata.output_names, (value.numpy() for value in values), strict=True))


def _compare(explainer: Compiled, found: dict[str, Array], wanted: dict[str, Array], errors: Errors) -> None:
    metadata = explainer.metadata
    for name, expected in wanted.items():
        # What is absorbed may be rounding alone: it is measured in units of what is explained.
        scale = wanted[metadata.explained if name == ABSORBED_OUTPUT else name]
        if name == metadata.explained and "sigmoid" in metadata.heads:
            scale = np.maximum(np.abs(scale), _SIGMOID_ENDS / PARITY)
        if found[name].shape != expected.shape:
            errors[name].append(np.inf)
        else:
            errors[name] += map(_error, found[name], expected, scale)


def _error(found: Array, wanted: Array, scale: Array) -> float:
    """Largest difference in one sample, relative to the largest magnitude of `scale`."""
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return np.inf
    return float(np.abs(found - wanted).max(initial=0.0)) / (float(np.abs(scale).max(initial=0.0)) or 1.0)


def _summary(explainer: Compiled, errors: Errors) -> Parity:
    own = explainer.metadata.outputs
    return Parity({name: float(max(e) if name in own or np.inf in e else np.median(e)) for name, e in errors.items()})
