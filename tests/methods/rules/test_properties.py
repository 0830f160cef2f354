"""What the rules are known for, whatever the input: theorems of the papers, on compiled explainers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT64, assert_close

INPUTS, OUTPUTS = 6, 4
EPSILON = 1e-9  # of alpha-beta


def network(*, bias: bool, positive: bool = False) -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(12, 8, bias=bias),
        nn.ReLU(),
        nn.Linear(8, OUTPUTS, bias=bias),
    ).double()
    for layer in list(layers)[1:] if positive else []:
        for parameter in layer.parameters():
            parameter.data.abs_()
    return layers


@cache
def explainer(rule: str, *, bias: bool = False, positive: bool = False) -> relcompile.Explainer:
    example = torch.ones(2, 1, INPUTS, dtype=torch.float64)
    return relcompile.compile(network(bias=bias, positive=positive), example, rule=rule, target="seed")


def matrix(rule: str, x: Tensor, *, bias: bool = False) -> Tensor:
    """M (inputs, outputs) with R_in = M R_out at the input x: one output is the seed at a time."""
    _, relevance = explainer(rule, bias=bias)(x.expand(OUTPUTS, -1, -1), torch.eye(OUTPUTS, dtype=torch.float64))
    return relevance.flatten(1).T


@cache
def one_layer(rule: str) -> tuple[nn.Sequential, relcompile.Explainer]:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, OUTPUTS, bias=False)).double()
    example = torch.ones(2, 1, INPUTS, dtype=torch.float64)
    return layer, relcompile.compile(layer, example, rule=rule, target="seed")


def of(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, INPUTS)


numbers = st.floats(-3, 3, allow_nan=False).map(lambda v: v if abs(v) > 1e-3 else 0.5)
inputs = st.lists(numbers, min_size=INPUTS, max_size=INPUTS).map(of)


@settings(max_examples=50, deadline=None)
@given(inputs)
def test_z_plus_is_a_non_negative_matrix_that_creates_nothing(x: Tensor) -> None:
    """Sixt et al. 2020, section 3: products of such matrices converge to rank 1."""
    columns = matrix("z+", x)
    assert float(columns.min()) >= 0
    assert float(columns.sum(0).max()) <= 1 + 1e-12  # 1 less what the stabiliser takes


@pytest.mark.parametrize(("rule", "alpha", "beta"), [("alpha2beta1", 2, 1), ("alpha5beta4", 5, 4)])
@settings(max_examples=50, deadline=None)
@given(x=inputs)
def test_columns_of_alpha_beta_sum_to_their_difference(rule: str, alpha: int, beta: int, x: Tensor) -> None:
    """One layer: α of the excitation and -β of the inhibition leave a unit that has both; α or -β if it has one."""
    layer, found = one_layer(rule)
    total = found(x.expand(OUTPUTS, -1, -1), torch.eye(OUTPUTS, dtype=torch.float64))[1].flatten(1).sum(1)
    contributions = x.reshape(-1) * layer.get_parameter("1.weight").detach()
    excitation, inhibition = contributions.clamp(min=0).sum(1), contributions.clamp(max=0).sum(1)
    expected = alpha * excitation / (excitation + EPSILON) - beta * inhibition / (inhibition - EPSILON)
    assert_close(total, expected, FLOAT64)


@pytest.mark.parametrize("rule", ["w2", "flat"])
@settings(max_examples=25, deadline=None)
@given(x=inputs)
def test_the_input_does_not_matter_to_one_layer(rule: str, x: Tensor) -> None:
    _, found = one_layer(rule)
    seed = torch.linspace(-1, 2, OUTPUTS, dtype=torch.float64)[None]
    assert_close(found(x, seed)[1], found(torch.ones_like(x), seed)[1], FLOAT64)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@settings(max_examples=50, deadline=None)
@given(x=inputs)
def test_lrp_0_is_gradient_times_input(bias: bool, x: Tensor) -> None:
    """Networks of ReLU and max pooling, the bias in the denominator: Ancona et al. 2018, Kindermans et al. 2016."""
    output, relevance = explainer("lrp-0", bias=bias)(x, explainer("lrp-0", bias=bias)(x, torch.zeros(1, OUTPUTS))[0])
    _, expected = explainer("gradient*input", bias=bias)(x, torch.ones_like(output))
    assert_close(relevance, expected, 1e-9)


@settings(max_examples=50, deadline=None)
@given(inputs)
def test_guided_backprop_is_the_gradient_where_none_is_negative(x: Tensor) -> None:
    seed = torch.ones(1, OUTPUTS, dtype=torch.float64)
    guided = explainer("guided-backprop", positive=True)(x, seed)[1]
    assert_close(guided, explainer("gradient", positive=True)(x, seed)[1], FLOAT64)
