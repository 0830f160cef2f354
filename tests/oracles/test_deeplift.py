"""The DeepLIFT oracle: completeness, the papers' own examples, and LRP where the two must agree."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.compare import FLOAT64, assert_close, assert_conserved
from tests.oracles import affine, deeplift, local, nets, network
from tests.oracles.network import Activation, Add, Affine, Concat, Step

SHIFT = 1e-6  # RevealCancel moves contributions below 0.5e-7 by 1e-7: completeness holds only this far


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without_max_pool(name: str) -> nets.Net:
    net = nets.build(name, seed=3, bias=True)
    assert not any(isinstance(step.op, network.MaxPool) for step in net.steps)
    return net


@pytest.mark.parametrize(("rule", "tolerance"), [("rescale", FLOAT64), ("reveal_cancel", SHIFT)])
@pytest.mark.parametrize("name", ["mlp", "shared", "normalised"])
def test_maps_sum_to_the_difference_from_the_reference(name: str, rule, tolerance: float) -> None:
    net, target = without_max_pool(name), torch.tensor([0, 2, 1])
    x, reference = net.batch(3, seed=4), net.batch(3, seed=5)
    x[0, 0] = reference[0, 0]  # some deltas are exactly zero
    maps = deeplift.attribute(net.steps, x, reference, target, rule=rule, variant="full")
    logits = [network.forward(net.steps, v)[net.steps[-1].name][torch.arange(3), target] for v in (x, reference)]
    assert_conserved(maps["input"], logits[0] - logits[1], tolerance)


@pytest.mark.parametrize(("rule", "tolerance"), [("rescale", FLOAT64), ("reveal_cancel", SHIFT)])
@pytest.mark.parametrize("name", ["cnn", "residual", "branches"])
def test_crossed_max_pools_sum_to_the_difference_too(name: str, rule, tolerance: float) -> None:
    net, target = nets.build(name, seed=3, bias=True), torch.tensor([0, 2, 1])
    x, reference = net.batch(3, seed=4), net.batch(3, seed=5)
    x[0, 0] = reference[0, 0]
    maps = deeplift.attribute(net.steps, x, reference, target, rule=rule, variant="full", maxima="crossed")
    logits = [network.forward(net.steps, v)[net.steps[-1].name][torch.arange(3), target] for v in (x, reference)]
    assert_conserved(maps["input"], logits[0] - logits[1], tolerance)


def test_crossed_max_pool_by_hand() -> None:
    """Windows (5, 1 | 2, 3) over (0, 4 | 6, 1): y 5 and 3, y0 4 and 6; +1 to the 5, -3 to where the 6 was."""
    x, reference = torch.tensor([[[[5.0, 1.0, 2.0, 3.0]]]]).double(), torch.tensor([[[[0.0, 4.0, 6.0, 1.0]]]]).double()
    m = deeplift.Pair(torch.full((1, 1, 1, 2), 10.0).double(), torch.full((1, 1, 1, 2), 100.0).double())
    got = deeplift.crossed_max_pool(x, reference, local.Pool((1, 2), (1, 2)), m)
    assert_close(got * (x - reference), torch.tensor([[[[10.0, 0.0, -300.0, 0.0]]]]), FLOAT64)


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "shared"])
def test_rescale_from_zero_without_bias_is_lrp_0(name: str) -> None:
    """Ancona 2018, on ReLU networks; max pools route alike, too, since all of the reference is zero."""
    net = nets.build(name, seed=3, bias=False)
    x, target = net.batch(3, seed=4), torch.tensor([0, 2, 1])
    lrp_0 = partial(affine.lrp_0, bias="none")
    rules = {
        "affine": lrp_0,
        "average": lrp_0,
        "activation": local.pass_through,
        "add": partial(local.proportional, eps=0.0),
        "max_pool": local.winner_takes_all,
    }
    expected = network.explain(net.steps, x, target, rules, start="logit")["input"]
    zero = torch.zeros_like(x)
    got = deeplift.attribute(net.steps, x, zero, target, rule="rescale", variant="full")["input"]
    assert_close(got, expected, FLOAT64)


def test_reveal_cancel_shares_the_minimum() -> None:
    """Shrikumar 2017 section 3.5.3: o = min(i1, i2) = i1 - relu(i1 - i2); min / 2 to either input."""
    weight = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    last = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    steps = [
        Step("difference", Affine(functional.linear, {"weight": weight}), ("input",)),
        Step("relu", Activation(functional.relu), ("difference",)),
        Step("both", Concat(), ("input", "relu")),
        Step("minimum", Affine(functional.linear, {"weight": last}), ("both",)),
    ]
    x = torch.tensor([[3.0, 2.0], [1.0, 4.0]], dtype=torch.float64)
    run = partial(deeplift.attribute, steps, x, torch.zeros_like(x), torch.zeros(2, dtype=torch.int64), variant="full")
    assert_close(run(rule="reveal_cancel")["input"], torch.tensor([[1.0, 1.0], [0.5, 0.5]]), SHIFT)
    assert_close(run(rule="rescale")["input"], torch.tensor([[0.0, 2.0], [1.0, 0.0]]), FLOAT64)


def test_a_summand_that_did_not_change_gets_the_mean_multiplier() -> None:
    """relu(u + v + w), deltas 0, 3, -1: y+ = 2.5, y- = -0.5, so m+ = 5/6, m- = 1/2 and m_u = 2/3."""
    rows = {"u": [1.0, -1.0, 0.0, 0.0], "v": [0.0, 0.0, 3.0, 0.0], "w": [0.0, 0.0, 0.0, -1.0]}
    weights = {name: {"weight": torch.tensor([row], dtype=torch.float64)} for name, row in rows.items()}
    steps = [
        *(Step(name, Affine(functional.linear, weight), ("input",)) for name, weight in weights.items()),
        Step("sum", Add(), ("u", "v", "w")),
        Step("relu", Activation(functional.relu), ("sum",)),
    ]
    x = torch.ones(1, 4, dtype=torch.float64)
    maps = deeplift.attribute(steps, x, torch.zeros_like(x), torch.tensor([0]), rule="reveal_cancel", variant="full")
    assert_close(maps["input"], torch.tensor([[2 / 3, -2 / 3, 2.5, -0.5]]), SHIFT)


def test_linear_contributions_sum_to_delta() -> None:
    D, W = randn(3, 6, seed=1), randn(4, 6, seed=2)
    plus, minus = deeplift.linear_contributions(D, W)
    assert (plus >= 0).all()
    assert (minus <= 0).all()
    assert_close(plus + minus, D @ W.T, FLOAT64)


def test_linear_multipliers_carry_the_contributions() -> None:
    D, W = randn(3, 6, seed=1), randn(4, 6, seed=2)
    D[:, 0] = 0.0
    out = deeplift.linear_contributions(D, W)
    m = deeplift.Pair(randn(3, 4, seed=3), randn(3, 4, seed=4))
    got = deeplift.linear_multiplier(D, W, m, variant="full")
    assert_conserved(got * D, (m.plus * out.plus + m.minus * out.minus).sum(1), FLOAT64)
    assert_close(got[:, 0], 0.5 * ((m.plus + m.minus) @ W)[:, 0], FLOAT64)


# w = (2, -3), m+ = 1, m- = 10, deltas +, -, 0 on three copies of either weight.
VARIANTS = {
    "full": [2.0, 20.0, 11.0, -30.0, -3.0, -16.5],
    "ablation_code": [2.0, 20.0, 11.0, 0.0, 0.0, -16.5],
    "ablation_text": [2.0, 0.0, 11.0, 0.0, -30.0, -16.5],
}


@pytest.mark.parametrize(("variant", "expected"), VARIANTS.items())
def test_variants_by_hand(variant, expected: list[float]) -> None:
    W = torch.tensor([[2.0, 2.0, 2.0, -3.0, -3.0, -3.0]], dtype=torch.float64)
    D = torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
    m = deeplift.Pair(torch.ones(1, 1).double(), torch.full((1, 1), 10.0).double())
    assert_close(deeplift.linear_multiplier(D, W, m, variant=variant)[0], torch.tensor(expected), FLOAT64)


def test_rescale_near_zero_takes_the_slope_at_the_reference() -> None:
    reference = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    z = reference + torch.tensor([0.0, 1e-9, 2.0], dtype=torch.float64)
    slope = (reference > 0).double()
    assert_close(deeplift.rescale(functional.relu, slope, reference, z), torch.tensor([0.0, 1.0, 0.5]), FLOAT64)


def test_shift_moves_only_what_is_near_zero() -> None:
    got = deeplift.shift(torch.tensor([0.0, -1e-9, 0.4e-7, 0.6e-7, -2.0], dtype=torch.float64))
    expected = torch.tensor([1e-7, -1e-9 - 1e-7, 1.4e-7, 0.6e-7, -2.0], dtype=torch.float64)
    assert_close(got[:4], expected[:4], FLOAT64)
    assert float(got[4]) == -2.0


def test_batch_norm_and_average_scale_pairs() -> None:
    W = torch.diag(torch.tensor([2.0, -3.0], dtype=torch.float64))
    pair = deeplift.Pair(torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[-10.0, -20.0]]).double())
    plus, minus = deeplift.scale_contributions(pair, W)
    assert plus.tolist() == [[2.0, 60.0]]
    assert minus.tolist() == [[-20.0, -6.0]]
    plus, minus = deeplift.scale_multipliers(W, pair)
    assert plus.tolist() == [[2.0, 60.0]]
    assert minus.tolist() == [[-20.0, -6.0]]
