"""Every pass: fires, does not fire, keeps the numbers, is idempotent, counts honestly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

from passes.errors import InvariantError
from passes.graphs.emitter import aten
from passes.graphs.graph import calls
from passes.rewrites.canonical.chain_concatenations import ChainConcatenations
from passes.rewrites.canonical.decompose import Decompose
from passes.rewrites.canonical.merge_batch_norm import MergeBatchNorm
from passes.rewrites.canonical.remove_noops import RemoveNoops
from passes.rewrites.lower_adjoints import LowerAdjoints
from passes.rewrites.optimise.fold_constants import FoldConstants
from passes.rewrites.optimise.remove_dead_code import RemoveDeadCode
from passes.rewrites.optimise.share_subexpressions import ShareSubexpressions
from passes.rewrites.optimise.simplify import Simplify
from passes.runner import Pass, run_passes
from passes.stages import verify_captured, verify_lowered
from relcompile.frontend.capture import capture
from tests.compare import FLOAT64, assert_close
from tests.conftest import randomise

BATCH_NORM = aten._native_batch_norm_legit_no_training.default


class Function(nn.Module):
    """A module around a function of one tensor."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def graph_of(model: nn.Module | Callable[..., Any], *shape: int) -> tuple[GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    module = model if isinstance(model, nn.Module) else Function(model)
    x = torch.randn(3, *shape, dtype=torch.float64)
    return capture(
        module.double().eval(), {"x": x} if not isinstance(module, nn.Sequential) else {"input": x}
    ).module, x


def apply(graph: GraphModule, *passes: Pass) -> int:
    """Number of rewrites; the runner lints, verifies and checks the count."""
    return sum(report.rewrites for report in run_passes(graph, passes, keeps=verify_captured))


def norm(channels: int, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    module = kind(channels)
    torch.manual_seed(1)
    randomise(module)  # type: ignore[arg-type]
    return module


class CatThenNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 4, 3), norm(7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.cat([self.a(x), self.b(x)], 1))


class NormOfRead(nn.Module):
    """The convolution is read by somebody else, too: it must not be folded into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), norm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.conv(x)
        return self.norm(z).relu() + z


# (model, input shape, multiplications left: 0 if all batch norms were folded)
NORMS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "after conv": (nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), norm(4)), (2, 6, 6), 0),
    "after grouped conv": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), norm(4)), (4, 6, 6), 0),
    "after transposed conv": (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), norm(6)), (4, 5, 5), 0),
    "after linear": (nn.Sequential(nn.Linear(4, 5), norm(5, nn.BatchNorm1d)), (4,), 0),
    "through concatenation": (CatThenNorm(), (2, 6, 6), 0),
    "before conv": (nn.Sequential(nn.ReLU(), norm(2), nn.Conv2d(2, 4, 3)), (2, 6, 6), 0),
    "before grouped conv": (nn.Sequential(nn.ReLU(), norm(4), nn.Conv2d(4, 4, 3, groups=2)), (4, 6, 6), 0),
    "before linear": (nn.Sequential(nn.ReLU(), norm(4, nn.BatchNorm1d), nn.Linear(4, 3)), (4,), 0),
    "before padded conv": (nn.Sequential(nn.ReLU(), norm(2), nn.Conv2d(2, 4, 3, padding=1)), (2, 6, 6), 1),
    "of a value that is read twice": (NormOfRead(), (2, 6, 6), 1),
    "alone": (nn.Sequential(norm(2)), (2, 6, 6), 1),
    "without affine": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 6, 6), 0),
}


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_is_merged_exactly(name: str) -> None:
    model, shape, left = NORMS[name]
    graph, x = graph_of(model, *shape)
    assert apply(graph, MergeBatchNorm()) == 1
    assert not calls(graph, BATCH_NORM)
    assert len(calls(graph, aten.mul.Tensor)) == left
    assert_close(graph(x)[0], model.eval()(x).detach(), FLOAT64)
    assert apply(graph, MergeBatchNorm()) == 0


NOOPS: dict[str, tuple[Callable[..., Any], int]] = {
    "dropout": (lambda x: functional.dropout(x, training=False) * 2, 0),
    "whole slice": (lambda x: x[:, :] * 2, 1),
    "same view": (lambda x: x.view(x.shape) * 2, 1),
    "same expand": (lambda x: x.expand(-1, 4, 6) * 2, 1),
    "contiguous copy": (lambda x: x.transpose(1, 2).contiguous() * 2, 1),
    "part of an axis": (lambda x: x[:, 1:] * 2, 1),
    "another shape": (lambda x: x.view(x.shape[0], 24) * 2, 0),
}


@pytest.mark.parametrize("name", NOOPS)
def test_noops_are_removed(name: str) -> None:
    function, rewrites = NOOPS[name]
    graph, x = graph_of(function, 4, 6)
    assert apply(graph, RemoveNoops()) == rewrites
    assert torch.equal(graph(x)[0], function(x))
    assert apply(graph, RemoveNoops()) == 0


COMPOSITES: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "celu": (lambda x: functional.celu(x, 1.5), (4, 6)),
    "rrelu": (lambda x: functional.rrelu(x, 0.1, 0.3), (4, 6)),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 3, 2, 1), (4, 7)),
    "adaptive max": (lambda x: functional.adaptive_max_pool2d(x, (2, 3)), (2, 4, 6)),
    "adaptive average": (lambda x: functional.adaptive_avg_pool2d(x, (2, 3)), (2, 4, 6)),
    "chunks": (lambda x: x.chunk(2, 1)[1] - x.split([1, 3], 1)[1][:, :2], (4, 6)),
    "same padding, even kernel": (lambda x: functional.conv1d(x, torch.ones(4, 4, 4).double(), padding="same"), (4, 6)),
    "matmul by a constant": (lambda x: x @ torch.arange(18.0, dtype=torch.float64).reshape(6, 3), (4, 6)),
    "mean of everything": (lambda x: x * x.mean(), (4, 6)),
    "maximum along an axis": (lambda x: x.max(2)[0], (4, 6)),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_are_decomposed(name: str) -> None:
    function, shape = COMPOSITES[name]
    graph, x = graph_of(function, *shape)
    assert apply(graph, Decompose()) > 0
    torch.manual_seed(0)
    assert_close(graph(x)[0], function(x), FLOAT64)


def test_equal_expressions_are_shared() -> None:
    graph, x = graph_of(lambda x: (x * 2).relu() + (x * 2).relu() + (x * 3).relu(), 4)
    expected = graph(x)[0]
    assert apply(graph, ShareSubexpressions()) == 2
    assert torch.equal(graph(x)[0], expected)
    assert apply(graph, ShareSubexpressions()) == 0


def test_number_and_float_are_not_shared() -> None:
    graph, _ = graph_of(lambda x: x.clamp(min=0) * x.clamp(min=1), 4)
    assert apply(graph, ShareSubexpressions()) == 0


def twice(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * y + y


EYE, ONES = torch.eye(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)

# (function, operators that must be gone)
SIMPLER: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "positive part of a ReLU": (lambda x: x.relu().clamp_min(0), (aten.clamp_min.default,)),
    "sum with zero": (lambda x: x.relu() + x.relu().clamp_max(0), (aten.add.Tensor, aten.clamp_max.default)),
    "linear map of zero": (
        lambda x: x - functional.linear(x.relu().clamp_max(0), EYE),
        (aten.linear.default,),
    ),
    "choice by a known sign": (lambda x: torch.where(x.relu() >= 0, x, -x), (aten.where.self, aten.neg.default)),
    "mask times ReLU": (
        lambda x: torch.where(x.relu() > 0, x, 0.0) * x.relu(),
        (aten.where.ScalarOther, aten.gt.Scalar),
    ),
    "ones": (lambda x: torch.ones_like(x) * x, (aten.mul.Tensor,)),
    "magnitude of a ReLU": (lambda x: x.relu().abs() + 1, (aten.abs.default,)),
    "divisor of what is 0 with it": (
        lambda x: x.clamp(0, 6) * x.sin() / torch.where(x >= 0, x + 0.5, x - 0.5),
        (aten.where.self, aten.ge.Scalar, aten.clamp.default),
    ),
    "product where a factor is positive": (
        lambda x: torch.where(x > 0, x.exp() * x, 0.0),
        (aten.where.ScalarOther, aten.gt.Scalar),
    ),
    "product where a factor is negative": (
        lambda x: torch.where(x < 0, x * x.exp(), 0.0),
        (aten.where.ScalarOther, aten.lt.Scalar),
    ),
    "choice by the sign of a factor": (lambda x: x * torch.where(x >= 0, x.exp(), x.sin()), (aten.where.self,)),
}
NOT_SIMPLER: dict[str, Callable[..., Any]] = {
    "positive part of anything": lambda x: x.clamp_min(0),
    "clamp above zero": lambda x: x.relu().clamp_min(1),
    "sum with a negative part": lambda x: x + x.clamp_max(0),
    "choice by an unknown sign": lambda x: torch.where(x >= 0, x, -x),
    "choice by another value's sign": lambda x: x.sin() * torch.where(x >= 0, x.exp(), x.sin()),
    "choice that is read twice": lambda x: twice(x, torch.where(x >= 0, x.exp(), x.sin())),
    "divisor of what is not 0 with it": lambda x: x.clamp(-1, 6) * x.sin() / torch.where(x >= 0, x + 0.5, x - 0.5),
    "product where another value is positive": lambda x: torch.where(x > 0, x.exp() * x.sin(), 0.0),
    "mask of another value": lambda x: torch.where(x > 0, x * 2, 0.0) * (x * 3).relu(),
    "bias is added to zero": lambda x: x + functional.linear(x.relu().clamp_max(0), EYE, ONES),
}


@pytest.mark.parametrize("name", SIMPLER)
def test_algebra_is_simplified(name: str) -> None:
    function, gone = SIMPLER[name]
    graph, x = graph_of(function, 4)
    assert apply(graph, ShareSubexpressions(), Simplify()) > 0
    assert not calls(graph, *gone)
    assert_close(graph(x)[0], function(x), FLOAT64)
    assert apply(graph, Simplify()) == 0


@pytest.mark.parametrize("name", NOT_SIMPLER)
def test_algebra_is_left_alone(name: str) -> None:
    graph, x = graph_of(NOT_SIMPLER[name], 4)
    before = str(graph.graph)
    apply(graph, Simplify())
    assert str(graph.graph) == before
    assert_close(graph(x)[0], NOT_SIMPLER[name](x), FLOAT64)


# (function, sums left)
BIASES: dict[str, tuple[Callable[..., Any], int]] = {
    "linear map": (lambda x: functional.linear(x, EYE) + 0.5, 0),
    "sum of linear maps": (lambda x: functional.linear(x, EYE) + functional.linear(x.exp(), EYE) + 0.5, 1),
    "sum with anything": (lambda x: x.exp() + functional.linear(x, EYE) + 0.5, 1),
    "has a bias": (lambda x: functional.linear(x, EYE, ONES) + 0.5, 1),
    "read twice": (lambda x: twice(functional.linear(x, EYE) + 0.5, functional.linear(x, EYE)), 2),
    "broadcast sum": (lambda x: functional.linear(x, EYE[:1]) + x + 0.5, 1),
}


@pytest.mark.parametrize("name", BIASES)
def test_numbers_become_biases(name: str) -> None:
    function, left = BIASES[name]
    graph, x = graph_of(function, 4)
    apply(graph, ShareSubexpressions(), Simplify())
    assert len(calls(graph, aten.add.Tensor)) == left
    assert_close(graph(x)[0], function(x), FLOAT64)


def test_concatenations_are_chained() -> None:
    def dense(x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for _ in range(3):
            features.append(torch.cat(features, 1).exp())
        return torch.cat(features, 1)

    graph, x = graph_of(dense, 2)
    assert apply(graph, ChainConcatenations()) == 2
    operands: list[Any] = [node.args[0] for node in calls(graph, aten.cat.default)]
    assert [len(parts) for parts in operands] == [1, 2, 2, 2]
    assert torch.equal(graph(x)[0], dense(x))
    assert apply(graph, ChainConcatenations()) == 0


def test_small_constants_are_folded_and_large_ones_are_not() -> None:
    weight = torch.randn(70, 70, dtype=torch.float64)
    graph, x = graph_of(lambda x: x * weight[0].exp() + (x @ weight.exp()), 70)
    expected = graph(x)[0]
    assert apply(graph, FoldConstants()) > 0
    assert len(calls(graph, aten.exp.default)) == 1
    assert torch.equal(graph(x)[0], expected)


def test_a_large_constant_takes_the_place_of_what_only_it_reads() -> None:
    weight, pattern = (torch.randn(70, 70, dtype=torch.float64) for _ in range(2))
    graph, x = graph_of(lambda x: x @ weight + (x @ (weight * pattern)), 70)
    expected = graph(x)[0]
    before = sum(buffer.numel() for buffer in graph.buffers())
    assert apply(graph, FoldConstants()) == 1
    assert not calls(graph, aten.mul.Tensor)
    assert sum(buffer.numel() for buffer in graph.buffers()) == before
    assert torch.equal(graph(x)[0], expected)


def test_dead_code_goes() -> None:
    graph, _ = graph_of(lambda x: x * 2, 4)
    with graph.graph.inserting_before(graph.graph.output_node()):
        unread = graph.graph.call_function(aten.exp.default, (graph.graph.find_nodes(op="placeholder")[0],))
        unread.meta["val"] = graph.graph.find_nodes(op="placeholder")[0].meta["val"]
    assert apply(graph, RemoveDeadCode()) == 1
    assert apply(graph, RemoveDeadCode()) == 0


POOLS: dict[str, tuple[int | tuple[int, int], dict[str, Any], tuple[int, ...]]] = {
    "tiles": (2, {}, (3, 6, 8)),
    "tiles with a rest": (2, {}, (3, 7, 9)),
    "overlapping, padded": (3, {"stride": 2, "padding": 1}, (3, 8, 8)),
    "stride one": (3, {"stride": 1, "padding": 1}, (2, 5, 5)),
    "ceil mode": (3, {"stride": 2, "ceil_mode": True}, (2, 8, 8)),
    "gaps": (1, {"stride": 3}, (2, 8, 8)),
    "uneven": ((2, 3), {"stride": (1, 2), "padding": (1, 0)}, (2, 6, 7)),
    "one row": ((1, 3), {"stride": (1, 3)}, (2, 4, 9)),
}
DILATED = {"dilated": (2, {"stride": 2, "dilation": 2, "padding": 1}, (2, 9, 9))}
COUNTED = {
    "padding not counted": (3, {"stride": 2, "padding": 1, "count_include_pad": False}, (2, 8, 8)),
    "own divisor": (2, {"divisor_override": 3}, (2, 6, 6)),
    "ceil mode, padding": (3, {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 8, 8)),
}
POOL_CASES = [(functional.max_pool2d, *case) for case in {**POOLS, **DILATED}.values()]
POOL_CASES += [(functional.avg_pool2d, *case) for case in {**POOLS, **COUNTED}.values()]
POOL_CASES += [(pool, 2, {"stride": 2}, (2, 4, 6, 4)) for pool in (functional.max_pool3d, functional.avg_pool3d)]
POOL_CASES += [(functional.max_pool3d, 3, {"stride": 2, "padding": 1}, (1, 5, 5, 5))]


@pytest.mark.parametrize(("pool", "kernel", "settings", "shape"), POOL_CASES)
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_pool_adjoints_are_lowered_exactly(
    pool: Callable[..., Any], kernel: Any, settings: dict[str, Any], shape: tuple[int, ...], ties: bool
) -> None:
    import relcompile

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    x = (x * 1.5).round() if ties else x
    weight = torch.randn(pool(x, kernel, **settings).shape[1:], generator=generator, dtype=torch.float64)
    model = Function(lambda x: pool(x, kernel, **settings) * weight)
    explainer = relcompile.compile(model, {"x": x}, rule="gradient", target="seed")
    seed = torch.ones_like(model(x))
    expected = torch.autograd.grad(model(x.requires_grad_()).sum(), x)[0]
    x = x.detach()
    assert_close(explainer(x, seed)[1], expected, FLOAT64)
    graph = explainer.graph_module
    assert LowerAdjoints().apply(graph) > 0
    verify_lowered(graph)
    graph.recompile()
    assert_close(graph(x, seed)[1], expected, FLOAT64)


class Lies:
    """Says that it rewrote something."""

    name: ClassVar[str] = "lies"

    def apply(self, module: GraphModule, /) -> int:
        return 1


class Breaks:
    """Leaves a node that stands after its user."""

    name: ClassVar[str] = "breaks"

    def apply(self, module: GraphModule, /) -> int:
        first = calls(module)[0]
        module.graph.output_node().prepend(first)
        return 1


@pytest.mark.parametrize(("step", "message"), [(Lies(), "did not change"), (Breaks(), "not valid")])
def test_runner_catches_bad_passes(step: Pass, message: str) -> None:
    graph, _ = graph_of(lambda x: (x * 2).relu(), 4)
    with pytest.raises(InvariantError, match=message):
        apply(graph, step)
