"""Relevance maximisation: for every channel of a layer the samples in which it is most relevant, in one pass over data.

Notation: R (N, C, ...) relevance of a layer's output; r (N, C) relevance of its channels; k samples are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from relcompile.calibration.store import Kind, count_of, read_tensors, write_tensors
from relcompile.errors import CalibrationError

_STABILISER: Final = 1e-10
_HOW_TO: Final = "relcompile concepts MODEL DATA --layer LAYER"
CONCEPTS: Final = Kind("concepts", _HOW_TO)
STATE: Final = Kind("concepts state", _HOW_TO)
_DTYPES: Final = {"scores": torch.float64, "samples": torch.int64, "classes": torch.int64}


def channel_relevance(relevance: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The share of every channel: r_c = Σ R_c / (Σ_c |Σ R_c| + 1e-10), summed over places.

    Args:
        relevance: R (N, C, ...).

    Returns:
        r (N, C), without unit: the magnitudes of a sample add up to 1.

    Source: Achtibat et al. 2023 (zennit-crp, `ChannelConcept.attribute`).
    """
    sums = relevance.reshape(*relevance.shape[:2], -1).astype(np.float64).sum(2)
    return sums / (np.abs(sums).sum(1, keepdims=True) + _STABILISER)


@dataclass(frozen=True, eq=False)
class Maxima:
    """The samples in which each channel is most relevant, the most relevant one first.

    Attributes:
        scores: float64 (C, k), relevance of the channel there; 0 where fewer samples have any that is positive.
        samples: int64 (C, k), their numbers; -1 there.
        classes: int64 (C, k), the classes that were explained; -1 there.
    """

    scores: NDArray[np.float64]
    samples: NDArray[np.int64]
    classes: NDArray[np.int64]

    @classmethod
    def none(cls, channels: int, count: int) -> Self:
        """Before any sample was seen."""
        missing = np.full((channels, count), -1, np.int64)
        return cls(np.zeros((channels, count)), missing, missing.copy())

    def with_batch(self, r: NDArray[np.float64], first: int, classes: NDArray[np.int64]) -> Maxima:
        """With further samples: of equally relevant ones the earlier ones stay.

        Args:
            r: (N, C), finite.
            first: the number of the first of them.
            classes: (N,), which were explained.
        """
        numbers = np.arange(first, first + len(r), dtype=np.int64)
        new = np.where(r.T > 0, r.T, 0.0)
        scores = np.concatenate([self.scores, new], 1)
        samples = np.concatenate([self.samples, np.where(new > 0, numbers, -1)], 1)
        chosen = np.concatenate([self.classes, np.where(new > 0, classes, -1)], 1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.scores.shape[1]]
        return Maxima(
            np.take_along_axis(scores, best, 1),
            np.take_along_axis(samples, best, 1),
            np.take_along_axis(chosen, best, 1),
        )

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """As files hold them."""
        return {name: torch.from_numpy(getattr(self, name)) for name in _DTYPES}

    @classmethod
    def of_tensors(cls, path: Path, tensors: Mapping[str, torch.Tensor], samples: int) -> Self:
        """From what a file holds.

        Raises:
            CalibrationError: these are not the maxima of so many samples.
        """
        found = {name: tensor for name, tensor in tensors.items() if tensor.dtype == _DTYPES.get(name)}
        shapes = {tuple(tensor.shape) for tensor in found.values()}
        if found.keys() != _DTYPES.keys() or len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise CalibrationError(f"{path}: want scores, samples and classes of every channel; make one: {_HOW_TO}")
        maxima = cls(*(found[name].numpy() for name in _DTYPES))
        if not np.isfinite(maxima.scores).all() or maxima.samples.min(initial=0) < -1:
            raise CalibrationError(f"{path}: a score is not finite, or a sample is none; make one: {_HOW_TO}")
        if maxima.samples.max(initial=-1) >= samples:
            raise CalibrationError(f"{path}: names samples that there are not; make one: {_HOW_TO}")
        return maxima


@dataclass(frozen=True, eq=False)
class Concepts:
    """What was found in all samples.

    Attributes:
        maxima: by channel.
        facts: what they are of: model, layer, rule, target, data.
        samples: how many there were.
    """

    maxima: Maxima
    facts: Mapping[str, object] = field(repr=False)
    samples: int

    def save(self, path: Path) -> None:
        """Write it; the file appears whole or not at all.

        Raises:
            ExportError: it cannot be written.
        """
        write_tensors(path, CONCEPTS, self.maxima.tensors, {**self.facts, "samples": self.samples})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CalibrationError: the file cannot be read, is damaged, or is something else.
        """
        tensors, facts = read_tensors(path, CONCEPTS)
        samples = count_of(path, facts.pop("samples", None))
        facts = {name: value for name, value in facts.items() if name not in ("kind", "format")}
        return cls(Maxima.of_tensors(path, tensors, samples), facts, samples)
