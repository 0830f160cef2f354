"""Do nearly equal inputs have nearly equal explanations?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SMALLEST = 1e-6


def max_sensitivity(relevance: Array, perturbed: Array) -> float:
    """max_δ |Φ(x + δ) - Φ(x)| / |Φ(x)|, over the perturbations that were drawn: 0 for a map that does not change.

    Source: Yeh et al. 2019 (who leave the denominator out: their value has the unit of the relevance).

    Args:
        relevance: Φ(x), any shape.
        perturbed: Φ(x + δ), one more axis in front.
    """
    changes = np.linalg.norm((perturbed - relevance).reshape(len(perturbed), -1), axis=1)
    size = np.linalg.norm(relevance)
    return float(changes.max() / size) if size > 0 else float("nan")


def relative_input_stability(relevance: Array, perturbed: Array, x: Array, inputs: Array) -> float:
    """max_x' |(Φ(x) - Φ(x')) / Φ(x)| / max(|(x - x') / x|, ε): relative change of the map per relative change of x.

    Quotients are taken element by element; where a denominator is 0 it is ε = 1e-6 with the sign +.
    Source: Agarwal et al. 2022, equation 2.

    Args:
        relevance: Φ(x), in the shape of x.
        perturbed: Φ(x'), one more axis in front.
        x: the input.
        inputs: x', one more axis in front.
    """
    maps = _relative(relevance, perturbed)
    return float((maps / np.maximum(_relative(x, inputs), _SMALLEST)).max())


def _relative(value: Array, others: Array) -> Array:
    quotient = (value - others) / np.where(value == 0, _SMALLEST, value)
    return np.linalg.norm(quotient.reshape(len(others), -1), axis=1)
