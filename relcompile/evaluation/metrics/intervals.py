"""How sure is a number: bootstrap intervals over samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

LEVEL: Final = 0.95
_RESAMPLES: Final = 2_000


@dataclass(frozen=True)
class Estimate:
    """A statistic over samples.

    Attributes:
        value: of all samples.
        low: lower end of its 95 % interval; NaN for fewer than two samples.
        high: upper end.
        samples: how many there are, without those that are NaN.
    """

    value: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g}..{self.high:.3g})"


def estimate(
    values: NDArray[np.floating[Any]], statistic: Callable[..., Any] = np.mean, resamples: int = _RESAMPLES
) -> Estimate:
    """A statistic of `values` (samples,) with its percentile bootstrap interval (seed 0); NaN are left out.

    Source: Efron 1979; `scipy.stats.bootstrap`.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        only = float(known[0]) if len(known) else float("nan")
        return Estimate(only, float("nan"), float("nan"), len(known))
    found: Any = bootstrap(
        (known,), statistic, confidence_level=LEVEL, n_resamples=resamples, method="percentile", rng=0
    ).confidence_interval
    return Estimate(float(statistic(known)), float(found.low), float(found.high), len(known))
