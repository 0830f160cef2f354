"""How alike are two maps, as pictures?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Map = NDArray[np.float64]
_WINDOW = 5


def normalised(relevance: Map, percentile: float = 99.5) -> Map:
    """A map (H, W) in 0..1: clip((R - low) / (high - low)), low and high its outer percentiles.

    Source: Sixt et al. 2020, released code, which clips at the 99.5th and 0.5th percentile. A map without any
    difference between them is 0.
    """
    high, low = np.percentile(relevance, (percentile, 100 - percentile))
    if high == low:
        return np.zeros_like(relevance)
    return np.clip((relevance - low) / (high - low), 0.0, 1.0)


def ssim(first: Map, second: Map, data_range: float = 1.0) -> float:
    """Structural similarity of two maps in 0..1; 1 for equal ones. Windows of 5 x 5, K1 = 0.01, K2 = 0.03.

    Source: Wang et al. 2004, as scikit-image has it. Sixt et al. 2020 call it with a `data_range` of 2.
    """
    found: Any = structural_similarity(first, second, win_size=_WINDOW, data_range=data_range)
    return float(found)


def similarity(first: Map, second: Map, *, parity: bool = False) -> tuple[float, float]:
    """SSIM of two relevance maps, and the larger one of it and of SSIM with the second map's sign flipped.

    Formula: s(a, b) and max(s(a, b), s(a, 1 - b)) of normalised maps.
    Source: Sixt et al. 2020, section 4.1.

    Args:
        first: relevance (H, W), at least 5 x 5.
        second: the same.
        parity: as the released code has it: maps upside down, and a data range of 2.
    """
    a, b = normalised(first), normalised(second)
    if parity:
        a, b = 1 - a, 1 - b
    span = 2.0 if parity else 1.0
    plain = ssim(a, b, span)
    return plain, max(plain, ssim(a, 1 - b, span))


def entropy(relevance: Map, bins: int = 100) -> float:
    """Complexity of a map: entropy, in nats, of the histogram of its values.

    Source: Hedström et al. 2024 (efficient MPRT).
    """
    counts, _ = np.histogram(relevance, bins=bins)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def complexity_rise(trained: Map, random: Map) -> float:
    """How much more complex the map is when all weights are random, relative to that of the trained network.

    Formula: (h(R_random) - h(R)) / h(R), h the entropy of a map. NaN if one of the maps is the same everywhere:
        relevance has vanished, and what is not there is not simple (its entropy would be 0, the rise -1).
    Source: Hedström et al. 2024, efficient MPRT.
    """
    before, after = entropy(trained), entropy(random)
    return (after - before) / before if before and after else float("nan")
