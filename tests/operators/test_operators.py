"""Operators one by one: the rule `gradient` is autograd, in PyTorch and as lowered for export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import relcompile
from relcompile.backend.onnx_file import lowered
from tests.compare import FLOAT32, FLOAT64, ONNX, assert_close
from tests.oracles.nets import Function

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([0, 5, 2])
MEAN, VARIANCE = torch.linspace(-1, 1, 6, dtype=torch.float64), torch.linspace(0.5, 2, 6, dtype=torch.float64)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "where, two branches": lambda x: torch.where(x > 0.2, x * 3, x.sigmoid()),
    "where, one value twice": lambda x: torch.where(x > 0.2, x, x),
    "where, second branch": lambda x: torch.where(x > 0.2, x.detach(), x * 2),
    "where, number second": lambda x: torch.where(x > 0.2, x * 2, 1.5),
    "where, number first": lambda x: torch.where(x > 0.2, 1.5, x * 2),
    "logit": lambda x: torch.logit(x.sigmoid()),
    "logit, clamped": lambda x: torch.logit(x, eps=0.2),
    "power 0 at 0": lambda x: x.relu() ** 0 + x,
    "power 1 at 0": lambda x: x.relu() ** 1,
    "detached gate": lambda x: x * x.sigmoid().detach(),
    "detached summand": lambda x: x.tanh() + (x * 2).detach(),
    "instance norm, learned": lambda x: F.instance_norm(x[..., None], MEAN, VARIANCE, use_input_stats=False)[..., 0],
}
PLACES = torch.tensor([[0, 2, 4, 4, 1, 0]])
ROWS = torch.tensor([0, 2, 2, 1, 4, 0])
WEIGHT, BIAS = (
    torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) for shape in ((4, 6, 3), (4,))
)


def places(x: Tensor) -> Tensor:
    """One position for every element."""
    return PLACES.expand(x.shape[0], 6)


def zeros(x: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], 6)


def assigned(x: Tensor, place: Any, values: Tensor | float) -> Tensor:
    y = x.clone()
    y[place] = values
    return y


CELLS = torch.randn(24, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def images(x: Tensor) -> Tensor:
    """(N, 6) -> (N, 1, 4, 6)."""
    return x.reshape(x.shape[0], 1, 2, 3).repeat(1, 1, 2, 2)


def grid(x: Tensor) -> Tensor:
    """Six places in an image."""
    return torch.stack([x.sin() * 1.2, x.tanh()], -1)[:, None]


def scatter_reduce(how: str, included: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * 2).scatter_reduce(1, places(x), x.tanh(), how, include_self=included)


REWRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "scatter": lambda x: x.scatter(1, torch.tensor([[0, 4, 2]]).expand(x.shape[0], 3), x[:, :3] * 2),
    "scatter of numbers": lambda x: x.scatter(1, places(x), 1.5),
    "scatter to places of the input": lambda x: zeros(x).scatter(1, x.topk(2)[1], x.topk(2)[0]),
    "scatter_add": lambda x: zeros(x).scatter_add(1, places(x), x * 2),
    "scatter_add to itself": lambda x: x.scatter_add(1, places(x), x),
    "scatter_reduce, sum": scatter_reduce("sum", included=False),
    "scatter_reduce, mean": scatter_reduce("mean", included=True),
    "scatter_reduce, mean of others": scatter_reduce("mean", included=False),
    "scatter_reduce, amax": scatter_reduce("amax", included=True),
    "scatter_reduce, amin of others": scatter_reduce("amin", included=False),
    "index_add": lambda x: zeros(x).index_add(1, ROWS, x, alpha=-0.5),
    "index_copy": lambda x: x.index_copy(1, torch.tensor([4, 0]), x[:, 1:3] * 2),
    "assigned to a list": lambda x: assigned(x, (slice(None), [0, -1]), x[:, 1:3] * 3),
    "assigned to every other": lambda x: assigned(x, (slice(None), slice(0, 6, 2)), x[:, 3:] * 3),
    "assigned to a mask": lambda x: assigned(x, x < 0, 0.5),
    "index_put that adds": lambda x: torch.ops.aten.index_put(x, [None, ROWS], x * 2, True),
    "fold": lambda x: F.fold(x[:, None].expand(-1, 4, -1), (3, 4), 2).flatten(1),
    "fold, padded": lambda x: F.fold(
        x[:, None, :3].expand(-1, 6, -1), (2, 7), (3, 2), padding=1, stride=(2, 3)
    ).flatten(1),
    "max_unpool": lambda x: F.max_unpool1d(*F.max_pool1d(x[:, None], 2, return_indices=True), [2]).flatten(1),
    "prod": lambda x: x[:, :5].prod(1, keepdim=True) + x,
    "cumprod": lambda x: x.cumprod(1),
    "cummax": lambda x: x.cummax(1).values,
    "cummin of equals": lambda x: x.round().detach().add(x * 0).cummin(1).values,
    "renorm": lambda x: x.renorm(2, 0, 0.7),
    "bilinear": lambda x: F.pad(F.bilinear(x, x[:, :3].tanh(), WEIGHT.to(x), BIAS.to(x)), (0, 2)),
    "adaptive max pool, uneven": lambda x: F.adaptive_max_pool1d(x.repeat(1, 2)[:, None, :10], 6).flatten(1),
    "nearest-exact": lambda x: F.interpolate(x[:, None], 9, mode="nearest-exact")[:, 0, 2:8],
    "nearest-exact in two axes": lambda x: F.interpolate(images(x), (3, 2), mode="nearest-exact").flatten(1),
    "antialias": lambda x: F.interpolate(images(x), (3, 2), mode="bilinear", antialias=True).flatten(1),
    "grid_sample": lambda x: F.grid_sample(images(x), grid(x), align_corners=False).flatten(1),
    "grid_sample at the border": lambda x: F.grid_sample(
        images(x), grid(x * 3), padding_mode="border", align_corners=True
    ).flatten(1),
    "grid_sample, nearest": lambda x: F.grid_sample(images(x), grid(x), "nearest", align_corners=False).flatten(1),
    "power of a stored number": lambda x: (
        x.square().pow(BIAS[:1].abs().to(x) + 1).sum(1, keepdim=True).pow(1 / BIAS[:1].to(x)) + x
    ),
    "power of stored numbers": lambda x: (x * x + 0.1) ** BIAS.repeat(2)[:6].to(x),
    "power of more of them": lambda x: ((x[:, :1] * x[:, :1] + 0.1) ** MEAN.to(x)) * x,
    "atan2": lambda x: torch.atan2(x, x.flip(1) + 0.1) + torch.atan2(MEAN.to(x), x) + torch.atan2(x, MEAN.to(x)),
    "logcumsumexp": lambda x: (x * 30).logcumsumexp(1),
    "sinc": lambda x: torch.sinc(x) + torch.sinc(x.relu()),
    "xlogy": lambda x: torch.xlogy(x, x * x + 1) + torch.xlogy(x.relu(), x.relu() + x.relu().sign().detach()),
    "xlogy of zeros": lambda x: torch.xlogy(x - x.detach(), torch.zeros_like(x)) + x,
    "xlog1py": lambda x: torch.special.xlog1py(x, x * x) + torch.special.xlog1py(x.relu(), x.relu() - 0.5),
    "entropy": lambda x: torch.special.entr(x * x + 0.1),
    "fmax": lambda x: torch.fmax(x, x.flip(1)) + torch.fmin(x, x.round().detach() + x * 0),
    "rest of a division": lambda x: x.fmod(x * x + 1) + x.remainder(VARIANCE.to(x)),
    "rounded division": lambda x: (
        x * x.div(VARIANCE.to(x), rounding_mode="floor") + x.div(VARIANCE.to(x), rounding_mode=None)
    ),
    "errors": lambda x: (
        F.mse_loss(x, x.cos(), reduction="none")
        + F.huber_loss(x, MEAN.to(x).expand_as(x), reduction="none")
        + F.smooth_l1_loss(x, x.sin(), reduction="none")
    ),
    "cross entropies": lambda x: (
        F.binary_cross_entropy(x.sigmoid(), MEAN.to(x).sigmoid().expand_as(x), reduction="none")
        + F.binary_cross_entropy_with_logits(x, MEAN.to(x).sigmoid().expand_as(x), reduction="none")
        + F.soft_margin_loss(x, MEAN.to(x).sign().expand_as(x), reduction="none")
    ),
    "grid_sample of a volume": lambda x: F.grid_sample(
        x.reshape(-1, 1, 1, 2, 3).repeat(1, 1, 2, 2, 1),
        torch.stack([x.sin() * 1.2, x.tanh(), x.cos()], -1).reshape(-1, 1, 2, 3, 3),
        align_corners=True,
    ).flatten(1),
    "gru_cell": lambda x: torch.gru_cell(x, x.tanh(), CELLS[:18].to(x), CELLS[6:].to(x)),
    "lstm_cell": lambda x: torch.lstm_cell(x, (x.tanh(), x.sin()), CELLS.to(x), CELLS.to(x))[0],
    "diag_embed": lambda x: x.diag_embed().cumsum(1)[:, :, 3],
    "table of positions": lambda x: x[:, torch.tensor([[0, 5, -1], [2, 2, 1]])].flatten(1),
    "two lists of positions": lambda x: x.unflatten(1, (2, 3))[:, [0, 1, 1, -1, 0, 0], [2, 0, -2, 1, 1, 0]],
    "one of each sample": lambda x: x.unflatten(1, (2, 3))[torch.arange(x.shape[0]), x[:, :2].argmax(1)].repeat(1, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_autograd(name: str) -> None:
    assert_gradient(CASES[name])


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", REWRITTEN)
def test_gradient_of_what_is_rewritten_is_autograd(name: str) -> None:
    assert_gradient(REWRITTEN[name])


def assert_gradient(function: Callable[[Tensor], Tensor]) -> None:
    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf)[torch.arange(3), TARGET].sum(), leaf)
    explainer = relcompile.compile(Function(function), X[:2], rule="gradient")
    for module in (explainer, lowered(explainer.graph_module)):
        output, found = module(X, TARGET)
        assert_close(output, function(X), FLOAT64)
        assert_close(found, expected, FLOAT64)


def test_tails_in_onnx_runtime(tmp_path: Path) -> None:
    """Far from the example, where exponentials leave float32."""
    functions = (F.logsigmoid, F.softplus, torch.tanh, F.gelu, F.silu, lambda x: torch.logaddexp(x, x / 2))
    model = Function(lambda x: torch.cat([f(x) for f in functions], 1))
    relcompile.compile(model, torch.tensor([[0.5]]), rule="gradient").save(tmp_path / "x.onnx")
    production = relcompile.load(tmp_path / "x.onnx")
    x = torch.linspace(-90, 90, 37, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    for target, wanted in enumerate(model(x).unbind(1)):
        (slope,) = torch.autograd.grad(wanted.sum(), x, retain_graph=True)
        found = production.explain(x.detach().float().numpy(), target=target)
        assert_close(found.output[:, target], wanted.detach(), FLOAT32)
        assert_close(found.relevance, slope, FLOAT32)


@pytest.mark.parametrize("rule", ["z+", "deeplift-rescale"])
def test_what_is_added_up_by_an_index_is_a_sum(rule: str) -> None:
    def summed(x: Tensor) -> Tensor:
        rows = x[:, 0] + x[:, 5], x[:, 3], x[:, 1] + x[:, 2], x[:, 0] * 0, x[:, 4], x[:, 0] * 0
        return torch.stack(rows, 1)

    spellings = (
        lambda x: zeros(x).index_add(1, ROWS, x),
        lambda x: zeros(x).scatter_add(1, ROWS.expand_as(x), x),
        summed,
    )
    explained = [relcompile.compile(Function(lambda x, f=f: f(x.relu()) @ WEIGHT[0]), X, rule=rule) for f in spellings]
    first, *others = (explainer(X, torch.tensor([0, 1, 2]))[1] for explainer in explained)
    for other in others:
        assert_close(other, first, FLOAT64)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("start", range(9))
def test_what_is_rewritten_in_onnx_runtime(start: int, tmp_path: Path) -> None:
    chosen = list(REWRITTEN.values())[start::9]
    model, leaf = Function(lambda x: torch.stack([f(x)[:, :6] for f in chosen]).sum(0)), X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[torch.arange(3), TARGET].sum(), leaf)
    relcompile.compile(model, X.float(), rule="gradient").save(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(X.float().numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected, ONNX)
