"""Perturbation curves: the network's confidence while the picture is removed piece by piece, in the order of a map.

Convention: the explained class is the predicted one; a piece is a square of `patch` pixels, ranked by the mean over
its pixels of the relevance summed over channels (ties in random order); a curve is the probability of the explained
class over the removed share, an average over three replacements: the mean of the data set, the blurred picture, noise.
The area is that between the curve with the least relevant pieces removed first and the curve with the most relevant
ones removed first, by the trapezium rule over 0..1: higher is better, 0 is chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.parts.networks import Subject

FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FEW = (0.1, 0.3, 0.5, 0.7, 0.9)


def replacements(images: torch.Tensor, bounds: tuple[float, float]) -> list[torch.Tensor]:
    """What removed pixels become: the mean, the picture blurred over an eighth of its side, uniform noise (seed 0)."""
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return [torch.zeros_like(images), _blurred(images), bounds[0] + (bounds[1] - bounds[0]) * noise]


def _blurred(images: torch.Tensor) -> torch.Tensor:
    sigma = images.shape[-1] / 8
    reach = int(2 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = (line / line.sum()).reshape(1, 1, 1, -1)
    flat = images.reshape(-1, 1, *images.shape[2:])
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), "replicate"), line)
    return functional.conv2d(functional.pad(flat, (0, 0, reach, reach), "replicate"), line.transpose(2, 3)).reshape(
        images.shape
    )


def ranks(maps: torch.Tensor, patch: int) -> torch.Tensor:
    """Rank of every piece, (N, rows, columns), 0 for the least relevant one."""
    pieces = functional.avg_pool2d(maps.double().sum(1, keepdim=True), patch).squeeze(1)
    flat = pieces.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0))
    order = shuffled[flat[:, shuffled].argsort(dim=1, stable=True)]
    return order.argsort(dim=1).reshape(pieces.shape)


def curves(subject: Subject, classes: torch.Tensor, maps: torch.Tensor, fractions: Sequence[float]) -> torch.Tensor:
    """Probability of `classes` at every removed share, for (least, most) relevant first: (N, 2, 1 + shares + 1)."""
    rank = ranks(maps, subject.patch)
    pieces = rank[0].numel()
    first = _probability(subject.network, subject.images, classes)
    total = torch.zeros(len(maps), 2, len(fractions) + 2)
    fillings = replacements(subject.images, subject.bounds)
    for filling in fillings:
        total[:, :, 0] += first[:, None]
        for k, fraction in enumerate((*fractions, 1.0), start=1):
            removed = round(fraction * pieces)
            for side, mask in enumerate((rank < removed, rank >= pieces - removed)):
                wide = mask[:, None].repeat_interleave(subject.patch, 2).repeat_interleave(subject.patch, 3)
                total[:, side, k] += _probability(subject.network, filling.where(wide, subject.images), classes)
    return total / len(fillings)


def areas(values: torch.Tensor, fractions: Sequence[float]) -> NDArray[np.float64]:
    """Area between the two curves of every picture, (N,)."""
    shares = np.array([0.0, *fractions, 1.0])
    return np.trapezoid((values[:, 0] - values[:, 1]).double().numpy(), shares, axis=1)


def interval(values: NDArray[np.float64], resamples: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over pictures (percentiles, seed 0)."""
    index = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[index].mean(1), [2.5, 97.5])
    return float(low), float(high)


def _probability(network: torch.nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs = torch.cat([network(part) for part in images.split(64)])
    return outputs.softmax(1).gather(1, classes[:, None])[:, 0]
