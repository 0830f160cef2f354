"""The one comparator of the test-suite, and its named tolerances.

Every tolerance is relative to the largest magnitude of the *expected* value: relevance maps hold many
entries that are tiny beside their maximum and whose own relative error means nothing. There is no default.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

# Both sides in float64, same mathematics, other order of summation: sums of 1e3 terms stay below
# 1e3 * 2e-16, and a few layers of division by sums of mixed sign cost three more digits.
FLOAT64 = 1e-10
# float32 arithmetic (6e-8 per operation) against a float64 truth: ten layers, and divisions by small sums.
FLOAT32 = 1e-4
# ONNX Runtime: float32 with fused and reordered convolutions; a 1e-6 stabiliser amplifies rounding to 1e-3.
ONNX = 2e-3
# Above this a check would pass plainly wrong answers: zeros have error 1, a halved map 0.5.
_LARGEST_TOLERANCE = 0.05

Array = Any  # a torch tensor, a numpy array, or numbers


def assert_close(actual: Array, expected: Array, tolerance: float) -> None:
    """Check `max|actual - expected| <= tolerance * max|expected|`; if it is 0, `max|actual| <= tolerance`.

    Shapes must be equal, data types need not be. A NaN or an infinity fails, even if both sides have it.
    """
    _check_tolerance(tolerance)
    a, e = _float64(actual), _float64(expected)
    if a.shape != e.shape:
        raise AssertionError(f"shapes differ: actual {a.shape}, expected {e.shape}")
    for name, values in (("actual", a), ("expected", e)):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise AssertionError(f"{name} has {len(bad)} values that are not finite, the first at {_place(bad[0])}")
    if a.size == 0:
        return
    error = np.abs(a - e)
    largest = float(np.abs(e).max())
    scale = largest if largest > 0 else 1.0
    if not float(error.max()) / scale <= tolerance:
        raise AssertionError(_message(a, e, error, scale, tolerance))


def assert_conserved(relevance: Array, expected_sum: Array, tolerance: float) -> None:
    """Check for every sample on its own that its relevance (N, ...) adds up to `expected_sum` (N,).

    The error is relative to the sample's expected sum, so a large sample cannot hide a small one.
    """
    _check_tolerance(tolerance)
    r, expected = _float64(relevance), _float64(expected_sum)
    if r.ndim == 0 or expected.shape != r.shape[:1]:
        raise AssertionError(f"one expected sum per sample: relevance {r.shape}, expected sums {expected.shape}")
    sums = np.asarray([math.fsum(sample.reshape(-1)) if np.isfinite(sample).all() else math.nan for sample in r])
    for n, (got, want) in enumerate(zip(sums, expected, strict=True)):
        error = abs(got - want) / (abs(want) or 1.0)
        if not error <= tolerance:
            raise AssertionError(
                f"sample {n} sums to {got!r}, expected {want!r}: relative error {error:.3e} > {tolerance}"
            )


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two arrays taken as vectors; NaN if either is zero."""
    x, y = _float64(a).reshape(-1), _float64(b).reshape(-1)
    if x.shape != y.shape:
        raise AssertionError(f"sizes differ: {x.size} and {y.size}")
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else math.nan


def _check_tolerance(tolerance: float) -> None:
    if not 0.0 <= tolerance <= _LARGEST_TOLERANCE:
        raise ValueError(f"tolerance {tolerance} is outside 0 .. {_LARGEST_TOLERANCE}: such a check could not fail")


def _float64(values: Array) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def _place(index: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in index)


def _message(a: np.ndarray, e: np.ndarray, error: np.ndarray, scale: float, tolerance: float) -> str:
    place = np.unravel_index(int(error.argmax()), error.shape)
    return (
        f"max error {error.max():.3e}, over max|expected| {error.max() / scale:.3e} > {tolerance:.1e}, "
        f"at {_place(np.asarray(place))}: actual {a[place]:.9g}, expected {e[place]:.9g}; "
        f"max|expected| {np.abs(e).max():.3e}, cosine {cosine(a, e):.9f}, shape {a.shape}"
    )
