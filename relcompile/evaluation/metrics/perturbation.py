"""Does the prediction change when relevant pixels go, and stay when irrelevant ones do?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Score = Callable[[Tensor], Tensor]
"""Inputs (N, C, H, W) -> what is watched of each, (N,)."""
Occluder = Callable[[Tensor], Tensor]
"""Inputs (N, C, H, W) -> what their pixels become when they are removed, in the same shape."""

SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def patches(height: int, width: int, size: int) -> Tensor:
    """The number of the square that each pixel lies in, (H, W): squares of `size` pixels from the upper left corner."""
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    return rows[:, None] * (int(columns[-1]) + 1) + columns


def superpixels(image: NDArray[np.floating[Any]], number: int) -> Tensor:
    """The number of the superpixel that each pixel of an image (C, H, W) lies in, (H, W).

    Source: SLIC (Achanta et al. 2012), as scikit-image has it.
    """
    from skimage.segmentation import slic

    low, high = image.min(), image.max()
    unit = (image - low) / (high - low or 1)
    found = slic(unit, n_segments=number, channel_axis=0, start_label=0)
    return torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(found.shape))


def mean_value(images: Tensor) -> Tensor:
    """Zero: the mean of the data, for a model with normalised inputs."""
    return torch.zeros_like(images)


def blurred(images: Tensor) -> Tensor:
    """The picture, blurred by a Gaussian of an eighth of its width."""
    sigma = images.shape[-1] / 8
    reach = int(2 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = (line / line.sum()).reshape(1, 1, 1, -1).to(images.dtype)
    flat = images.reshape(-1, 1, *images.shape[2:])
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), "replicate"), line)
    flat = functional.conv2d(functional.pad(flat, (0, 0, reach, reach), "replicate"), line.transpose(2, 3))
    return flat.reshape(images.shape)


def noise(images: Tensor) -> Tensor:
    """Uniform noise between the smallest and the largest value of all pictures (seed 0)."""
    drawn = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return (images.min() + (images.max() - images.min()) * drawn).to(images.dtype)


OCCLUDERS: Final[Mapping[str, Occluder]] = {"mean": mean_value, "blur": blurred, "noise": noise}


def ranks(relevance: Tensor, segments: Tensor) -> Tensor:
    """Rank of every segment by its mean relevance, (N, S), 0 for the least relevant one; ties in random order (seed 0).

    Args:
        relevance: (N, H, W).
        segments: (H, W), or (N, H, W), numbers from 0.
    """
    index = segments.expand(relevance.shape).flatten(1)
    sums = torch.zeros(len(relevance), int(index.max()) + 1, dtype=torch.float64)
    counts = torch.zeros_like(sums).scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))
    sums.scatter_add_(1, index, relevance.double().flatten(1))
    means = sums / counts.clamp(min=1)
    shuffled = torch.randperm(means.shape[1], generator=torch.Generator().manual_seed(0))
    order = shuffled[means[:, shuffled].argsort(dim=1, stable=True)]
    return order.argsort(dim=1)


def curves(
    score: Score, images: Tensor, replaced: Tensor, rank: Tensor, segments: Tensor, shares: Sequence[float] = SHARES
) -> Tensor:
    """The score at every removed share, least relevant segments first and most relevant ones first: LeRF and MoRF.

    Source: Samek et al. 2017.

    Args:
        score: what is watched.
        images: (N, C, H, W).
        replaced: what removed pixels become.
        rank: of `ranks`, (N, S).
        segments: (H, W) or (N, H, W).
        shares: of the segments, between 0 and 1; 0 and 1 are added.

    Returns:
        (N, 2, 1 + shares + 1): LeRF, then MoRF.
    """
    pieces = rank.shape[1]
    index = segments.expand(len(images), *images.shape[2:])
    of_pixel = rank.gather(1, index.flatten(1)).reshape(index.shape)[:, None]
    values = torch.zeros(len(images), 2, len(shares) + 2)
    values[:, :, 0] = score(images)[:, None]
    for k, share in enumerate((*shares, 1.0), start=1):
        removed = round(share * pieces)
        for side, mask in enumerate((of_pixel < removed, of_pixel >= pieces - removed)):
            values[:, side, k] = score(torch.where(mask, replaced, images))
    return values


def srg(values: NDArray[np.floating[Any]], shares: Sequence[float] = SHARES) -> NDArray[np.float64]:
    """Symmetric relevance gain: area between the curves LeRF and MoRF over the removed share, by the trapezium rule.

    Higher is better, 0 is what random maps get; it hardly depends on the occluder.
    Source: Blücher, Vielhaben, Strodthoff 2024 (2401.06654).

    Args:
        values: (N, 2, 1 + shares + 1), as `curves` returns them.
        shares: of the segments.
    """
    steps = np.array([0.0, *shares, 1.0])
    wide = np.asarray(values, dtype=np.float64)
    return np.asarray(np.trapezoid(wide[:, 0] - wide[:, 1], steps, axis=1))


def subsets(segments: Tensor, n: int, draws: int, seed: int = 0) -> Tensor:
    """Which pixels go when n random segments do, (draws, H, W)."""
    number = int(segments.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.stack([torch.randperm(number, generator=generator) < n for _ in range(draws)])
    return chosen[:, segments.flatten()].reshape(draws, *segments.shape)


def falls(score: Score, image: Tensor, masks: Tensor) -> Tensor:
    """By how much the score of an image (C, H, W) falls when the pixels of each mask become 0, (draws,)."""
    return score(image[None]) - score(image * ~masks[:, None])


def sensitivity_n(relevance: Tensor, masks: Tensor, fall: Tensor) -> float:
    """Correlation of Σ R over n random segments with the fall of the score without them.

    1 for a linear model and its contributions; NaN if one of the two does not vary.
    Source: Ancona et al. 2018.

    Args:
        relevance: (H, W).
        masks: of `subsets`, (draws, H, W).
        fall: of `falls`, (draws,).
    """
    sums = (relevance.double() * masks).flatten(1).sum(1)
    if sums.std() == 0 or fall.std() == 0:
        return float("nan")
    return float(torch.corrcoef(torch.stack([sums, fall.double()]))[0, 1])
