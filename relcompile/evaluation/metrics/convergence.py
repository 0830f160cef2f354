"""Do different relevances at the top become one map further down?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta
from torch import Tensor


def csc(relevance: Tensor, channels: int = 1) -> Tensor:
    """Cosine similarity convergence: |cos| between relevances of one layer that started as different vectors.

    Formula: |⟨r_a, r_b⟩| / (|r_a| |r_b|) along the channels, for all pairs a < b of vectors, at every place. A layer of
    one channel is compared as a whole map, since the cosine of two numbers is always 1.
    Source: Sixt, Granz, Landgraf 2020, section 4.

    Args:
        relevance: (K, C, ...) of one sample: K vectors that were started, C channels.
        channels: the axis of C.

    Returns:
        (pairs x places,) in float64, in 0..1; NaN where a vector is zero: nothing arrives there.
    """
    vectors = relevance.detach().double().movedim(channels, -1)
    whole = vectors.shape[-1] == 1
    rows = vectors.reshape(len(vectors), 1, -1) if whole else vectors.reshape(len(vectors), -1, vectors.shape[-1])
    rows = rows / rows.abs().amax(-1, keepdim=True)  # neither overflow nor underflow in squares; 0 / 0 stays NaN
    rows = rows / rows.norm(dim=-1, keepdim=True)
    pairs = [(rows[a] * rows[b]).sum(-1).abs() for a, b in combinations(range(len(rows)), 2)]
    return torch.stack(pairs).flatten().clamp(max=1.0) if pairs else torch.empty(0, dtype=torch.float64)


def quantiles(cosines: Tensor, levels: tuple[float, ...]) -> NDArray[np.float64]:
    """Quantiles of what `csc` returned, without NaN; all NaN if nothing else is left."""
    known = cosines[~cosines.isnan()].numpy()
    return np.quantile(known, levels) if len(known) else np.full(len(levels), np.nan)


def random_cosine(channels: int) -> float:
    """Median |cos| of two independent standard normal vectors: what `csc` is if nothing converges.

    Formula: √ of the median of Beta(1/2, (channels - 1) / 2), the distribution of cos².
    Source: Sixt et al. 2020, figure 5, where 1000 x 1000 pairs are drawn.
    """
    return 1.0 if channels == 1 else float(beta.median(0.5, (channels - 1) / 2)) ** 0.5
