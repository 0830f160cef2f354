"""The comparator must refuse wrong answers: a check that cannot fail is a defect."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests import compare

TOLERANCES = {"FLOAT64": compare.FLOAT64, "FLOAT32": compare.FLOAT32, "ONNX": compare.ONNX}
RIGHT = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _with(index: tuple[int, ...], value: float) -> torch.Tensor:
    wrong = RIGHT.clone()
    wrong[index] = value
    return wrong


PEAK = tuple(int(i) for i in np.unravel_index(int(RIGHT.abs().argmax()), RIGHT.shape))
MUTANTS = {
    "halved": RIGHT / 2,
    "doubled": RIGHT * 2,
    "one per cent more": RIGHT * 1.01,
    "one per cent less": RIGHT * 0.99,
    "negated": -RIGHT,
    "absolute": RIGHT.abs(),
    "permuted": RIGHT.flatten()[torch.randperm(24, generator=torch.Generator().manual_seed(1))].reshape(2, 3, 4),
    "samples swapped": RIGHT.flip(0),
    "zeros": torch.zeros_like(RIGHT),
    "NaN": _with((0, 0, 0), math.nan),
    "infinite": _with((1, 2, 3), math.inf),
    "wrong shape": RIGHT.reshape(2, 4, 3),
    "extra axis": RIGHT[None],
    "broadcastable": RIGHT[:1],
    "largest element one per cent off": _with(PEAK, float(RIGHT[PEAK]) * 1.01),
    "one element wrong": _with((1, 0, 2), float(RIGHT[1, 0, 2]) + 0.1),
    "empty": RIGHT[:0],
}


@pytest.mark.parametrize("tolerance", TOLERANCES.values(), ids=TOLERANCES)
@pytest.mark.parametrize("wrong", MUTANTS.values(), ids=MUTANTS)
def test_mutants_fail(wrong: torch.Tensor, tolerance: float) -> None:
    with pytest.raises(AssertionError):
        compare.assert_close(wrong, RIGHT, tolerance)
    with pytest.raises(AssertionError):
        compare.assert_close(RIGHT, wrong, tolerance)


@pytest.mark.parametrize("tolerance", TOLERANCES.values(), ids=TOLERANCES)
@pytest.mark.parametrize(
    "convert", [torch.clone, torch.Tensor.numpy, torch.Tensor.tolist], ids=["torch", "numpy", "list"]
)
def test_right_answer_passes(convert, tolerance: float) -> None:
    compare.assert_close(convert(RIGHT), RIGHT, tolerance)
    compare.assert_close(RIGHT * (1 + tolerance / 2), RIGHT, tolerance)
    compare.assert_close(RIGHT[:0], RIGHT[:0], tolerance)
    compare.assert_close(RIGHT[0, 0, 0], RIGHT[0, 0, 0], tolerance)


def test_data_type_is_free() -> None:
    compare.assert_close(RIGHT.float(), RIGHT, compare.FLOAT32)
    with pytest.raises(AssertionError):
        compare.assert_close(RIGHT.float(), RIGHT, compare.FLOAT64)
    compare.assert_close(torch.tensor([1, 2]), np.asarray([1.0, 2.0]), compare.FLOAT64)


@pytest.mark.parametrize("tolerance", TOLERANCES.values(), ids=TOLERANCES)
def test_expected_zero_is_absolute(tolerance: float) -> None:
    zero = torch.zeros(2, 3)
    compare.assert_close(zero, zero, tolerance)
    compare.assert_close(zero + tolerance / 2, zero, tolerance)
    with pytest.raises(AssertionError):
        compare.assert_close(zero + tolerance * 2, zero, tolerance)


def test_nan_in_both_is_still_wrong() -> None:
    for value in (math.nan, math.inf):
        both = _with((0, 1, 2), value)
        with pytest.raises(AssertionError, match=r"not finite, the first at \(0, 1, 2\)"):
            compare.assert_close(both, both, compare.ONNX)


def test_message_names_error_place_and_cosine() -> None:
    with pytest.raises(AssertionError, match=r"max error 1\.000e-01.*at \(1, 0, 2\): actual .* cosine 0\.99"):
        compare.assert_close(MUTANTS["one element wrong"], RIGHT, compare.ONNX)


@pytest.mark.parametrize("tolerance", [0.1, 1.0, -1e-9, math.nan, math.inf])
def test_useless_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="could not fail"):
        compare.assert_close(RIGHT, RIGHT, tolerance)
    with pytest.raises(ValueError, match="could not fail"):
        compare.assert_conserved(RIGHT, RIGHT.sum((1, 2)), tolerance)


SUMS = torch.tensor([1e3, 1e-3], dtype=torch.float64)
CONSERVED = torch.stack([torch.full((2, 5), 100.0, dtype=torch.float64), torch.full((2, 5), 1e-4, dtype=torch.float64)])
LEAKS = {
    "halved": CONSERVED / 2,
    "one per cent more": CONSERVED * 1.01,
    "negated": -CONSERVED,
    "zeros": torch.zeros_like(CONSERVED),
    "small sample leaks": torch.stack([CONSERVED[0], CONSERVED[1] * 1.01]),
    "samples swapped": CONSERVED.flip(0),
    "NaN": torch.full_like(CONSERVED, math.nan),
    "one NaN": torch.stack([CONSERVED[0], torch.full_like(CONSERVED[1], math.inf)]),
    "one sample missing": CONSERVED[:1],
}


@pytest.mark.parametrize("tolerance", TOLERANCES.values(), ids=TOLERANCES)
@pytest.mark.parametrize("leaking", LEAKS.values(), ids=LEAKS)
def test_leaks_fail(leaking: torch.Tensor, tolerance: float) -> None:
    with pytest.raises(AssertionError):
        compare.assert_conserved(leaking, SUMS, tolerance)


@pytest.mark.parametrize("tolerance", TOLERANCES.values(), ids=TOLERANCES)
def test_conserved_passes(tolerance: float) -> None:
    compare.assert_conserved(CONSERVED, SUMS, tolerance)
    compare.assert_conserved(torch.zeros(2, 3), torch.zeros(2), tolerance)
    compare.assert_conserved(torch.zeros(0, 3), torch.zeros(0), tolerance)
    with pytest.raises(AssertionError):
        compare.assert_conserved(torch.ones(2, 3), torch.zeros(2), tolerance)


def test_cosine() -> None:
    assert compare.cosine([1.0, 0.0], [0.0, 2.0]) == 0.0
    assert compare.cosine(RIGHT, 3 * RIGHT) == pytest.approx(1.0)
    assert compare.cosine(RIGHT, -RIGHT) == pytest.approx(-1.0)
    assert math.isnan(compare.cosine([0.0], [1.0]))
    with pytest.raises(AssertionError):
        compare.cosine([1.0], [1.0, 1.0])
