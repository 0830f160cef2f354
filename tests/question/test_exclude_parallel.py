"""Concept relevance propagation against zennit, whose hooks and autograd are told to mask, and to leave ways out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit import composites, rules, types
from zennit.layer import Sum

import relcompile
from passes.graphs.emitter import Emitter
from passes.views.active import describe_active, explained_output
from passes.views.named_layers import layer_output
from passes.views.ways import ways_through
from relcompile.errors import InputSpecError
from relcompile.frontend.capture import capture
from tests.compare import FLOAT64, assert_close
from tests.question.networks import TARGET, X, residual
from tests.question.test_masks import TwoLayers

LOW, HIGH = -5.0, 5.0
NORM = [(Sum, rules.Norm(stabilizer=1e-18)), (types.AvgPool, rules.Norm(stabilizer=1e-18))]
COMPOSITES: dict[str, Callable[..., Any]] = {
    "epsilon-plus": composites.EpsilonPlus,
    "epsilon-plus-flat": composites.EpsilonPlusFlat,
    "epsilon-alpha2-beta1": composites.EpsilonAlpha2Beta1,
    "epsilon-alpha2-beta1-flat": composites.EpsilonAlpha2Beta1Flat,
    "epsilon-gamma-box": partial(composites.EpsilonGammaBox, LOW, HIGH),
}
MASKS = {
    name: torch.rand(3, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    for k, name in enumerate(("outer", "inner"))
}


class Plus(nn.Module):
    """What zennit's Sum computes."""

    def forward(self, pair: Tensor) -> Tensor:
        return pair[..., 0] + pair[..., 1]


class TwoBlocks(nn.Module):
    """Two residual blocks, every operator a module, as zennit needs it."""

    def __init__(self, plus: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner, self.outer = (nn.Conv2d(c, 4, 3, padding=1) for c in (2, 4, 4))
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(5))
        self.sums = nn.ModuleList(plus() for _ in range(2))
        self.pool, self.mean, self.flat = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.stem(x))
        x = self.acts[2](self.sums[0](torch.stack([x, self.acts[1](self.inner(x))], -1)))
        x = self.pool(x)
        x = self.acts[4](self.sums[1](torch.stack([x, self.acts[3](self.outer(x))], -1)))
        return self.head(self.flat(self.mean(x)))


def by_zennit(composite: Any, masks: Mapping[str, Tensor], *, exclude_parallel: bool) -> Tensor:
    """Masks by hooks on tensors; ways are left out by differentiating from one masked layer to the next."""
    model, outputs = TwoBlocks(Sum).double().eval(), dict[str, Tensor]()
    x = X.clone().requires_grad_()

    def keep(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs[name] = output * 1.0  # a tensor of its own: what arrives here is masked
        return outputs[name]

    with composite(layer_map=NORM).context(model):
        for name in masks:
            model.get_submodule(name).register_forward_hook(partial(keep, name))
        y = model(x)
        R = torch.zeros_like(y).scatter(1, TARGET[:, None], y.gather(1, TARGET[:, None]).detach())
        if not exclude_parallel:
            for name, mask in masks.items():
                outputs[name].register_hook(lambda grad, mask=mask: grad * mask[:, :, None, None])
            return torch.autograd.grad(y, x, R)[0]
        for name, mask in masks.items():
            R = torch.autograd.grad(y, outputs[name], R, retain_graph=True)[0] * mask[:, :, None, None]
            y = outputs[name]
        return torch.autograd.grad(y, x, R)[0]


def plain() -> nn.Module:
    return TwoBlocks(Plus).double().eval()


@pytest.mark.parametrize("exclude_parallel", [False, True])
@pytest.mark.parametrize("rule", COMPOSITES)
def test_conditional_maps_are_those_of_zennit(rule: str, exclude_parallel: bool) -> None:
    bounds = (LOW, HIGH) if rule == "epsilon-gamma-box" else None
    options: dict[str, Any] = {"masks": [*MASKS], "bounds": bounds, "exclude_parallel": exclude_parallel}
    explainer = relcompile.compile(plain(), X, rule=rule, **options)
    found = explainer(X, TARGET, **{f"mask_{name}": mask for name, mask in MASKS.items()})[1]
    expected = by_zennit(COMPOSITES[rule], MASKS, exclude_parallel=exclude_parallel)
    assert expected.any()
    assert_close(found, expected, FLOAT64)


def test_channels_of_a_branch_add_up_to_what_passes_it() -> None:
    options: dict[str, Any] = {"rule": "epsilon", "masks": ["branch"], "target": "indices"}
    cut, all_ways = (relcompile.compile(residual(), X, **options, exclude_parallel=cut) for cut in (True, False))
    classes, channels = TARGET[:, None].expand(3, 4), torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    ones, none = torch.ones(3, 1, 4, dtype=torch.float64), torch.zeros(3, 1, 4, dtype=torch.float64)
    branch = cut(X, classes[:, :1], ones)[1]
    assert_close(cut(X, classes, channels)[1].sum(1, keepdim=True), branch, FLOAT64)
    around = all_ways(X, classes[:, :1], none)[1]
    assert_close(branch + around, all_ways(X, classes[:, :1], ones)[1], FLOAT64)
    assert around.abs().max() > 1e-3
    assert not cut(X, classes[:, :1], none)[1].any()


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({"layer1": [1.0, 1.0], "layer2": [1.0, 1.0]}, [-11.0, 21.0]),
        ({"layer1": [1.0, 0.0], "layer2": [0.0, 0.0]}, [-1.0, 2.0]),
        ({"layer1": [1.0, 1.0]}, [-1.0, 6.0]),
        ({"layer2": [1.0, 1.0]}, [-10.0, 15.0]),
    ],
)
def test_layers_side_by_side_by_hand(masks: dict[str, list[float]], expected: list[float]) -> None:
    """W = [1, 4] and [5, 0] on layer1 = (-1 + 2, 1), layer2 = (-2 + 3, 0)."""
    x = torch.tensor([[-1.0, 1.0]])
    explainer = relcompile.compile(TwoLayers(), x, rule="lrp-0", masks=[*masks], exclude_parallel=True, target=0)
    given = {f"mask_{name}": torch.tensor([values]) for name, values in masks.items()}
    assert_close(explainer(x, **given)[1], torch.tensor([expected]), 1e-6)


def test_taps_above_the_masked_layer_read_what_will_pass_it() -> None:
    explainer = relcompile.compile(
        plain(), X, rule="epsilon", masks=["inner"], taps=["outer", "sums.1"], exclude_parallel=True, absorbed=True
    )
    _, relevance, outer, joined, _ = explainer(X, TARGET)
    whole = relcompile.compile(plain(), X, rule="epsilon", taps=["outer", "sums.1"])(X, TARGET)
    assert_close(outer, whole[2], FLOAT64)
    assert_close(joined, whole[3], FLOAT64)
    assert (relevance - whole[1]).abs().max() > 1e-3
    assert explainer.metadata.exclude_parallel


class Ladder(nn.Module):
    """One layer beside two in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.side = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.high(self.low(x).relu()) * self.side(x) + x


def test_ways_lead_through_one_of_what_lies_side_by_side() -> None:
    module = capture(Ladder(), {"x": torch.ones(2, 3)}).module
    described = describe_active(Emitter(module), ("x",), 0)
    x, sink = module.graph.find_nodes(op="placeholder")[0], explained_output(module, 0)
    low, high, side = (layer_output(module, name, [x], sink) for name in ("low", "high", "side"))
    ways = ways_through(described, (low, high, side))
    product = next(iter(high.users))
    edges = [(sink, product), (sink, x), (product, high), (product, side), (side, x), (low, x)]
    assert [ways.lead(*edge) for edge in edges] == [True, False, True, True, True, True]


def test_without_masks_there_is_nothing_to_cut() -> None:
    with pytest.raises(InputSpecError, match=r"no layer is masked: name one with masks= \(--mask\)"):
        relcompile.compile(residual(), X, exclude_parallel=True)
