"""Does relevance lie where the object is?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


def pointing(relevance: Map, mask: Mask) -> float:
    """Pointing game: 1 if the most relevant pixel lies in the mask, else 0; of several, their share that does.

    Source: Zhang et al. 2018.
    """
    return float(mask[relevance == relevance.max()].mean())


def mass(relevance: Map, mask: Mask) -> float:
    """Relevance mass accuracy: Σ_mask R⁺ / Σ R⁺; NaN if no relevance is positive.

    Source: Arras, Osman, Samek 2022 (2003.07258).
    """
    positive = np.maximum(relevance, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float("nan")


def rank(relevance: Map, mask: Mask) -> float:
    """Relevance rank accuracy: share of the |mask| most relevant pixels that lie in the mask.

    Of equally relevant pixels at the border each counts with its chance to be chosen.
    Source: Arras, Osman, Samek 2022 (2003.07258).
    """
    size = int(mask.sum())
    if size == 0:
        return float("nan")
    border = np.partition(relevance.ravel(), -size)[-size]
    above, tied = relevance > border, relevance == border
    chance = (size - above.sum()) / tied.sum()
    return float((mask[above].sum() + chance * mask[tied].sum()) / size)


def iou(relevance: Map, mask: Mask, *, parity: bool = False) -> float:
    """Intersection over union of the mask and the pixels above the map's mean.

    Source: Zhang, Zhong, Jiang 2024.

    Args:
        relevance: (H, W).
        mask: (H, W).
        parity: divide by half the union, as the released code does: up to 2.
    """
    chosen = relevance > relevance.mean()
    union = (chosen | mask).sum()
    return float((chosen & mask).sum() / union) * (2 if parity else 1) if union else float("nan")


def pixel_accuracy(relevance: Map, mask: Mask) -> float:
    """Share of the mask that lies above the map's mean (called mPA, but it is a recall).

    Source: Zhang, Zhong, Jiang 2024.
    """
    return float((relevance > relevance.mean())[mask].mean()) if mask.any() else float("nan")
