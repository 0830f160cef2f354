"""Parallel linear branches of one value cancel, and a proportional split of their sum has no bound.

The right value: the map of the block that was trained as several linear maps is that of the one linear map that it is.
That one's weights are found by sending unit impulses through the block, not by adding kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.backend.cancellation import largest_share
from tests.compare import FLOAT64, assert_close
from tests.conftest import randomise

C, SIZE = 4, 7
IMAGE, TOKENS = (C, SIZE, SIZE), (3, C)


class Branches(nn.Module):
    """Layers a, b, c and a batch norm, joined by `join`."""

    def __init__(self, join: Callable[[Any, Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = (*layers, nn.Identity(), nn.Identity(), nn.Identity())[:3]
        self.norm = nn.BatchNorm2d(C)
        randomise(self.norm)
        self.scale = nn.Parameter(torch.randn(C, 1, 1))
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, x)


class OneMap(nn.Module):
    """The same block as a matrix: what it answers to every unit impulse, and to nothing."""

    def __init__(self, block: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        unit = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).reshape(-1, *shape)
        with torch.no_grad():
            shift = block(torch.zeros(1, *shape, dtype=torch.float64))
            self.weight = nn.Parameter((block(unit) - shift).flatten(1).T.contiguous())
            self.bias = nn.Parameter(shift.flatten())
        self.shape = shift.shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.flatten(1), self.weight, self.bias).unflatten(1, self.shape)


def conv(kernel: Any, padding: Any = 0, **settings: Any) -> nn.Module:
    return nn.Conv2d(C, settings.pop("out", C), kernel, padding=padding, **settings)


def two(net: Any, x: Tensor) -> Tensor:
    return net.a(x) + net.b(x)


CASES: dict[str, tuple[Branches, tuple[int, ...]]] = {}


def case(name: str, join: Callable[[Any, Tensor], Tensor], *layers: nn.Module, shape: tuple[int, ...] = IMAGE) -> None:
    torch.manual_seed(len(CASES))
    CASES[name] = (Branches(join, *layers).double().eval(), shape)


case("repvgg", lambda n, x: n.a(x) + n.b(x) + n.norm(x), conv(3, 1), conv(1))
case("minus", lambda n, x: n.a(x) - n.b(x), conv(3, 1), conv(1))
case("identity", lambda n, x: x + n.a(x), conv(3, 1))
case("depthwise and identity", lambda n, x: x - n.a(x), conv(3, 1, groups=C))
case("groups 2 and 4", two, conv(3, 1, groups=2), conv(1, groups=4))
case("depthwise and dense", two, conv(3, 1, groups=C), conv(1))
case("groups that widen", two, conv(3, 1, groups=2, out=2 * C), conv(1, groups=4, out=2 * C))
case("stride", two, conv(3, 1, stride=2), conv(1, stride=2))
case("askew", two, conv((3, 1), (1, 0)), conv((1, 5), (0, 2)))
case("dilated", two, conv(3, 2, dilation=2), conv(5, 2))
case("dilated alike", two, conv(3, 2, dilation=2), conv(1))
case("scaled sum", lambda n, x: x + n.scale * (n.a(x) - n.norm(x)), conv(3, 1, groups=C))
case("norm behind", lambda n, x: n.norm(n.a(x) + n.b(x) + x), conv(3, 1), conv(1))
case("alpha, numbers", lambda n, x: torch.add(n.a(x), n.b(x), alpha=-0.9) / 2 + 1 - -x, conv(3, 1), conv(1))
case("python's sum", lambda n, x: n.a(x) + 0 + n.b(x) + n.c(x), conv(3, 1), conv(3, 1), conv(1))
case("shift of places", lambda n, x: n.a(x) + n.b(x) + torch.arange(SIZE).double(), conv(3, 1), conv(1))
case("linear", lambda n, x: x + n.a(x) - n.b(x), nn.Linear(C, C), nn.Linear(C, C, bias=False), shape=TOKENS)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_branches_are_explained_as_the_one_map_that_they_are(name: str) -> None:
    block, shape = CASES[name]
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    head = nn.Sequential(nn.ReLU(), nn.Flatten(1))
    branches, one = (relcompile.capture(nn.Sequential(part, head), x) for part in (block, OneMap(block, shape)))
    for rule in ("z+", "epsilon=1e-14"):
        found, wanted = (model.compile(rule=rule, target="argmax")(x)[1] for model in (branches, one))
        assert_close(found, wanted, FLOAT64)


def cancelling() -> nn.Module:
    """A 3 x 3 kernel whose middle is -0.9 times the 1 x 1 kernel beside it."""
    wide, narrow = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.Conv2d(C, C, 1, bias=False)
    with torch.no_grad():
        nn.init.kaiming_normal_(wide.weight)
        nn.init.kaiming_normal_(narrow.weight)
        wide.weight[..., 1:2, 1:2] = -0.9 * narrow.weight
    return Branches(two, wide, narrow)


def test_a_stack_of_blocks_keeps_its_relevance() -> None:
    """Twelve blocks whose branches cancel to a tenth; without biases z+ hands on everything: Σ R is the logit."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(cancelling(), nn.ReLU()) for _ in range(12)]
    head = nn.Linear(C * SIZE * SIZE, 1, bias=False)
    nn.init.uniform_(head.weight)
    model = nn.Sequential(*blocks, nn.Flatten(1), head).double()
    x = torch.rand(2, *IMAGE, dtype=torch.float64)
    score, relevance = relcompile.compile(model, x, rule="z+")(x, torch.zeros(2, dtype=torch.int64))
    assert_close(relevance.flatten(1).sum(1), score[:, 0], 1e-6)  # the stabiliser of z+ is 1e-9


@pytest.mark.parametrize(
    "join",
    [
        lambda n, x: n.a(functional.relu(x)) + n.b(x),  # of two values
        lambda n, x: torch.cat([y := n.a(x), y + n.b(x)], 1),  # one is read elsewhere
        lambda n, x: n.a(x) * n.b(x),
    ],
)
def test_what_is_not_one_map_stays(join: Callable[[Any, Tensor], Tensor]) -> None:
    x = torch.randn(2, *IMAGE)
    explainer = relcompile.compile(Branches(join, conv(3, 1), conv(1)).eval(), x, rule="z+")
    assert {report.name: report.rewrites for report in explainer.reports}["merge-branches"] == 0


def test_a_branch_can_still_be_read() -> None:
    """`at=` a branch: its relevance is that of a summand, so it stays one."""
    x = torch.randn(2, *IMAGE, dtype=torch.float64)
    block = CASES["repvgg"][0]
    (_, relevance) = relcompile.compile(block, x, rule="gradient", at="b", target=0)(x)
    assert relevance.shape == (2, *IMAGE)


def test_what_cannot_be_merged_and_cancels_is_measured() -> None:
    """y = 20 a - 19 b at a = b = x: the relevances of a and b are 20 y and -19 y; that of x is y."""
    x = torch.ones(2, 1)
    first, last = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    nn.init.ones_(first.weight)
    last.weight = nn.Parameter(torch.tensor([[20.0, -19.0]]))
    net = nn.Sequential(first, nn.ReLU(), last)
    assert largest_share(relcompile.compile(net, x, rule="epsilon", target=0, at="1")) == pytest.approx(20, rel=1e-4)
    assert largest_share(relcompile.compile(net, x, rule="epsilon", target=0)) == pytest.approx(1, rel=1e-4)


class Apart(nn.Module):
    """Two branches, of which one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.a, self.b, self.scores = nn.Linear(3, 4).double(), nn.Linear(3, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(torch.tanh(self.a(x) + self.b(x)))


def test_a_branch_that_is_read_is_not_merged() -> None:
    model, x = Apart(), torch.rand(2, 3, dtype=torch.float64)
    found = relcompile.compile(model, x, rule="gradient", at="b", target=1)(x)[1]
    h = (model.a(x) + model.b(x)).detach().requires_grad_()
    assert_close(found, torch.autograd.grad(model.scores(torch.tanh(h))[:, 1].sum(), h)[0], FLOAT64)
