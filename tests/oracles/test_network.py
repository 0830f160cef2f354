"""The network oracle against autograd, conservation and small worked examples."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.compare import FLOAT64, assert_close, assert_conserved
from tests.oracles import affine, local, nets, network
from tests.oracles.local import Pool
from tests.oracles.network import Add, Affine, MaxPool, Step

LRP_0 = partial(affine.lrp_0, bias="full")
COMMON = {
    "average": partial(affine.lrp_0, bias="none"),
    "activation": local.pass_through,
    "add": partial(local.proportional, eps=0.0),
    "max_pool": local.winner_takes_all,
}
GRADIENT = {
    "affine": affine.gradient,
    "average": affine.gradient,
    "batch_norm": affine.gradient,
    "activation": local.by_gradient,
    "add": local.copied,
    "max_pool": local.winner_takes_all,
}


def case(name: str, *, bias: bool) -> tuple[nets.Net, Tensor, Tensor]:
    net = nets.build(name, seed=3, bias=bias)
    return net, net.batch(3, seed=4), torch.tensor([0, 2, 1])


def gradient(net: nets.Net, x: Tensor, target: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    module = network.as_module(net.steps)
    return torch.autograd.grad(module(leaf)[torch.arange(len(x)), target].sum(), leaf)[0]


def logits(net: nets.Net, x: Tensor, target: Tensor) -> Tensor:
    return network.forward(net.steps, x)[net.steps[-1].name][torch.arange(len(x)), target]


@pytest.mark.parametrize("name", nets.NETS)
def test_forward_is_the_module(name: str) -> None:
    net, x, _ = case(name, bias=True)
    assert_close(network.forward(net.steps, x)[net.steps[-1].name], network.as_module(net.steps)(x), FLOAT64)


@pytest.mark.parametrize("name", nets.NETS)
def test_gradient_rules_are_autograd(name: str) -> None:
    net, x, target = case(name, bias=True)
    got = network.explain(net.steps, x, target, GRADIENT, start="one")["input"]
    assert_close(got, gradient(net, x, target), FLOAT64)


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "branches", "shared"])
def test_lrp_0_is_gradient_times_input(name: str) -> None:
    """P1 section 2 (papers.md A11): on ReLU and max-pool networks, bias kept in z."""
    net, x, target = case(name, bias=True)
    got = network.explain(net.steps, x, target, {"affine": LRP_0, **COMMON}, start="logit")["input"]
    assert_close(got, x * gradient(net, x, target), FLOAT64)


# z+ keeps a unit's relevance only if something speaks for it (z+_k > 0). That fails where relevance reaches a
# unit with z_k < 0: a negative logit, or the negative summand of a proportional split.
POSITIVE_SUM = partial(local.alpha_beta, alpha=1.0, beta=0.0, eps=0.0)
CONSERVING = {
    "lrp_0": {"affine": partial(affine.lrp_0, bias="none")},
    "z_plus": {"affine": partial(affine.z_plus, bias="none", eps=0.0), "add": POSITIVE_SUM},
    "w_squared": dict.fromkeys(["affine", "average"], partial(affine.w_squared, bias="none", eps=0.0)),
    "flat": dict.fromkeys(["affine", "average"], partial(affine.flat, support=None, eps=0.0)),
}


@pytest.mark.parametrize("rules", CONSERVING.values(), ids=CONSERVING)
@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "branches"])
def test_conserved_at_the_input(name: str, rules: dict) -> None:
    net, x, _ = case(name, bias=False)
    target = network.forward(net.steps, x)[net.steps[-1].name].argmax(1)
    relevance = network.explain(net.steps, x, target, {**COMMON, **rules}, start="logit")
    positive = logits(net, x, target) > 0
    assert positive.sum() >= 2
    assert_conserved(relevance["input"][positive], logits(net, x, target)[positive], FLOAT64)


def test_z_plus_loses_the_relevance_of_a_logit_nothing_speaks_for() -> None:
    x, W = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[-1.0, -3.0]]).double()
    R = torch.tensor([[-7.0]]).double()
    got = affine.z_plus(x, W, torch.zeros(1).double(), R, bias="none", eps=0.0)
    assert_close(got, torch.zeros(1, 2), FLOAT64)


SUMS = {
    "copied": (local.copied, [[1.0, 1.0], [1.0, 1.0]]),
    "uniform": (local.uniform, [[0.5, 0.5], [0.5, 0.5]]),
    "proportional": (partial(local.proportional, eps=0.0), [[1.5, 0.25], [-0.5, 0.75]]),
    "proportional eps": (partial(local.proportional, eps=4.0), [[0.5, 0.125], [-1 / 6, 0.375]]),
    "absolute": (partial(local.absolute, eps=0.0), [[0.75, 0.25], [0.25, 0.75]]),
    "a1b0": (partial(local.alpha_beta, alpha=1.0, beta=0.0, eps=0.0), [[1.0, 0.25], [0.0, 0.75]]),
    "a2b1": (partial(local.alpha_beta, alpha=2.0, beta=1.0, eps=0.0), [[2.0, 0.5], [-1.0, 1.5]]),
}


@pytest.mark.parametrize(("rule", "expected"), SUMS.values(), ids=SUMS)
def test_sums_by_hand(rule, expected: list[list[float]]) -> None:
    summands = [torch.tensor([3.0, 1.0]).double(), torch.tensor([-1.0, 3.0]).double()]
    parts = torch.stack(rule(summands, torch.ones(2).double()))
    assert_close(parts, torch.tensor(expected, dtype=torch.float64), FLOAT64)


def test_max_pool_ties_go_to_the_first() -> None:
    x = torch.zeros(1, 1, 2, 4, dtype=torch.float64)
    x[0, 0, 1, 2:] = 5.0
    R = torch.tensor([[[[2.0, 3.0]]]], dtype=torch.float64)
    expected = torch.tensor([[[[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]]])
    assert_close(local.winner_takes_all(x, Pool((2, 2), (2, 2)), R), expected, FLOAT64)


@pytest.mark.parametrize("pool", [Pool((2, 2), (2, 2)), Pool((3, 2), (2, 1), (1, 1)), Pool((3, 3), (1, 1), (1, 1))])
def test_max_pool_is_torch_with_ties(pool: Pool) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(-1, 2, (2, 3, 6, 6), generator=generator).double().requires_grad_()
    y = functional.max_pool2d(x, *pool)
    R = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    assert_close(local.max_pool(x.detach(), pool)[0], y, FLOAT64)
    assert_close(local.winner_takes_all(x.detach(), pool, R), torch.autograd.grad(y, x, R)[0], FLOAT64)
    shared = local.proportional_pool(x.detach().abs() + 1.0, pool, R, eps=0.0)
    assert_conserved(shared, R.sum((1, 2, 3)), FLOAT64)


def test_rectified_keeps_the_largest_products() -> None:
    y = torch.arange(1.0, 101.0, dtype=torch.float64).repeat(2, 1)
    R = torch.ones_like(y)
    R[1] = -1.0
    got = local.rectified(y, y, torch.ones_like(y), R, q=98.0)  # number round(99 * 0.02) = 2 downwards is excluded
    assert got[0].nonzero().flatten().tolist() == [98, 99]
    assert got[1].nonzero().flatten().tolist() == [0, 1]


def test_a_repeated_operand_receives_both_parts() -> None:
    steps = [Step("sum", Add(), ("input", "input"))]
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    got = network.explain(steps, x, torch.tensor([1]), COMMON, start="logit")
    assert_close(got["input"], torch.tensor([[0.0, -4.0]]), FLOAT64)


def test_rule_by_name_comes_before_rule_by_kind_and_none_is_an_error() -> None:
    net, x, target = case("mlp", bias=True)
    rules = {**COMMON, "affine": LRP_0, "fc1": partial(affine.flat, support=None, eps=0.0)}
    flat = network.explain(net.steps, x, target, rules, start="logit")["input"]
    assert_close(flat, flat.mean(1, keepdim=True).expand_as(flat), FLOAT64)
    with pytest.raises(KeyError, match="no rule for step 'fc2' nor for kind 'affine'"):
        network.explain(net.steps, x, target, COMMON, start="logit")


def test_a_batch_is_its_samples_and_seeds_may_start_anywhere() -> None:
    net, x, target = case("residual", bias=True)
    rules = {**COMMON, "affine": LRP_0}
    whole = network.explain(net.steps, x, target, rules, start="logit")
    single = network.explain(net.steps, x[1:2], target[1:2], rules, start="logit")
    assert_close(whole["input"][1:2], single["input"], FLOAT64)
    restarted = network.propagate(net.steps, network.forward(net.steps, x), {"a_relu": whole["a_relu"]}, rules)
    assert_close(restarted["input"], whole["input"], FLOAT64)


def test_module_is_ordinary() -> None:
    net, x, _ = case("shared", bias=True)
    module = network.as_module(net.steps)
    names = [name for name, _ in module.named_parameters()]
    assert names == ["first.weight", "first.bias", "fc.weight", "fc.bias"]
    assert not module.training
    assert module.float()(x.float()).dtype == torch.float32


def test_module_exports() -> None:
    net, x, _ = case("residual", bias=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network.as_module(net.steps), (x,), dynamic_shapes=({0: batch},))
    more = net.batch(5, seed=6)
    assert_close(program.module()(more), network.forward(net.steps, more)["fc"], FLOAT64)


def test_any_affine_function_is_a_step() -> None:
    steps = [Step("fft", Affine(lambda x: torch.fft.rfft(x).real), ("input",))]
    x = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    got = network.explain(steps, x, torch.tensor([0]), {"affine": LRP_0}, start="logit")
    assert_close(got["input"], x, FLOAT64)
    assert isinstance(nets.build("cnn", seed=0, bias=False).steps[2].op, MaxPool)
