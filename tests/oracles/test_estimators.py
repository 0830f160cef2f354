"""The pattern estimators against closed forms and torch's own covariance and unfold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.compare import FLOAT64, assert_close
from tests.oracles import estimators


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (0, 0)), ((2, 1), (1, 2))])
def test_patches_are_what_a_convolution_sees(stride: tuple[int, int], padding: tuple[int, int]) -> None:
    x, weight = randn(2, 3, 5, 6, seed=1), randn(4, 3, 3, 2, seed=2)
    rows = estimators.patches(x, (3, 2), stride, padding)
    unfolded = functional.unfold(x, (3, 2), stride=stride, padding=padding)  # (N, J, L)
    assert_close(rows, unfolded.transpose(1, 2).reshape(-1, 18), FLOAT64)
    y = functional.conv2d(x, weight, stride=stride, padding=padding)
    assert_close(rows @ weight.reshape(4, -1).T, estimators.rows_of(y), FLOAT64)


def test_linear_pattern_is_covariance_over_variance() -> None:
    x, weight = randn(50, 6, seed=1) @ randn(6, 6, seed=2) + 1.0, randn(3, 6, seed=3)
    y = x @ weight.T
    joint = torch.cov(torch.cat([x, y], 1).T, correction=0)  # (9, 9)
    expected = joint[6:, :6] / y.var(0, correction=0)[:, None]
    pattern = estimators.linear_pattern(x, weight)
    assert_close(pattern, expected, FLOAT64)
    cov_x = joint[:6, :6]
    text = (weight @ cov_x) / (weight @ cov_x * weight).sum(1, keepdim=True)  # P1 eq. 9
    assert_close(pattern, text, FLOAT64)
    assert_close((pattern * weight).sum(1), torch.ones(3), FLOAT64)


def test_haufe_example() -> None:
    """x = y (1, 0) + noise (1, 1), read by w = (1, -1): the pattern is the signal (1, 0), not the weight."""
    y, noise = randn(20000, seed=1), randn(20000, seed=2)
    x = torch.stack([y + noise, noise], 1)
    pattern = estimators.linear_pattern(x, torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    assert_close(pattern, torch.tensor([[1.0, 0.0]]), 0.03)


def test_relu_pattern_sees_only_the_active_component() -> None:
    """Signal a where y > 0, another one where y < 0; distractors cancel in pairs, so this is exact."""
    w, a, other = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, -1.0], [1.0, 0.0], [0.5, -0.5]))
    y, noise = randn(40, seed=1), randn(40, seed=2)
    signal = y[:, None] * torch.where(y[:, None] > 0, a, other)
    distractor = noise[:, None] * torch.ones(2, dtype=torch.float64)
    x = torch.cat([signal + distractor, signal - distractor])
    active = (x @ w > 0)[:, None]
    assert_close(estimators.relu_pattern(x, w[None], active), a[None], FLOAT64)
    assert_close(estimators.relu_pattern(x, w[None], ~active), other[None], FLOAT64)


def test_relu_pattern_moments() -> None:
    """E[x] and E[x y] over the active rows, E[y] over all: worked for two rows, one of them active."""
    x = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 1.0]], dtype=torch.float64)  # y = 3, 3: E[y] = 3
    active = torch.tensor([[True], [False]])
    dead = estimators.relu_pattern(x, weight, active)  # (6, 3) - (2, 1) * 3 = 0: denominator 0 becomes 1
    assert dead.tolist() == [[0.0, 0.0]]
    x[1] = 0.0  # E[y] = 1.5: (6, 3) - (3, 1.5) = (3, 1.5), over w . that = 4.5
    assert_close(estimators.relu_pattern(x, weight, active), torch.tensor([[2.0, 1.0]]).double() / 3.0, FLOAT64)


def test_a_neuron_that_is_never_active_has_no_pattern() -> None:
    x, weight = randn(5, 3, seed=1), randn(2, 3, seed=2)
    active = torch.zeros(5, 2, dtype=torch.bool)
    assert_close(estimators.relu_pattern(x, weight, active), torch.zeros(2, 3), FLOAT64)


def test_all_active_is_linear() -> None:
    x, weight = randn(9, 3, seed=1), randn(2, 3, seed=2)
    active = torch.ones(9, 2, dtype=torch.bool)
    assert_close(estimators.relu_pattern(x, weight, active), estimators.linear_pattern(x, weight), FLOAT64)
