"""A probability in the place of its score turns the map's sign: what is explained under a head is the score."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from tests.compare import FLOAT64, assert_close

METHODS = ["z+", "gamma", "epsilon", "epsilon-plus", "lrp-0", "dtd", "root", "deeplift-rescale", "excitation-backprop"]
METHODS += ["root-v1", "root-v2", "root-v3"]
Head = Callable[[Tensor], Tensor]
HEADS: dict[str, Head] = {
    "sigmoid": torch.sigmoid,
    "log-sigmoid": functional.logsigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "tanh": torch.tanh,
    "softmax": lambda z: z.softmax(1),
    "softmax over the last axis": lambda z: z.softmax(-1),
    "log-softmax": lambda z: z.log_softmax(1),
    "moved": lambda z: torch.cat([torch.sigmoid(z), torch.sigmoid(z[:, :1])], 1).flip(1).flip(1),
    "reshaped": lambda z: torch.sigmoid(z.reshape(-1, 3)).view(-1, 3, 1, 1),
}


class Net(nn.Module):
    """Two layers and a head; the scores of class 1 are negative."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.b.bias[1] = -4.0
        self.head = head
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(torch.relu(self.a(x))))


def none(z: Tensor) -> Tensor:
    return z


@cache
def captured(head: Head, shape: tuple[int, ...]) -> relcompile.CapturedModel:
    return relcompile.capture(Net(head), torch.ones(shape, dtype=torch.float64))


def relevance(head: Head, rule: str, x: Tensor) -> tuple[Tensor, Tensor]:
    return captured(head, tuple(x.shape)).compile(rule=rule, target=1)(x)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rule", METHODS)
def test_the_map_is_that_of_the_score(head: str, rule: str) -> None:
    x = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores, wanted = relevance(none, rule, x)
    assert (scores[:, 1] < 0).all()
    assert_close(relevance(HEADS[head], rule, x)[1], wanted, FLOAT64)


def test_over_places_the_score_of_a_place_is_explained() -> None:
    """A softmax over the places of a map, (N, classes, places): the seed is given, as it comes, to the scores."""
    x = torch.rand(2, 3, 5, dtype=torch.float64)
    found = relevance(lambda z: z.softmax(1), "epsilon", x)[1]
    assert_close(found, relevance(none, "epsilon", x)[1], FLOAT64)


def test_a_gate_inside_is_no_head() -> None:
    x = torch.rand(3, 5, dtype=torch.float64)
    explainer = relcompile.compile(Net(lambda z: torch.sigmoid(z) * z), x, rule="z+", target=1)
    assert not any("ScoresUnder" in layer.rule for layer in explainer.metadata.layers)


@pytest.mark.parametrize(
    ("rule", "head", "wanted"),
    [
        ("z+", torch.sigmoid, "the score under sigmoid"),
        ("z+", lambda z: z, "the output"),
        ("gradient", torch.sigmoid, "the output of sigmoid"),
        ("gradient", lambda z: z.softmax(1), "the output of softmax"),
    ],
)
def test_the_explainer_says_what_it_explains(rule: str, head: Head, wanted: str) -> None:
    x = torch.rand(3, 5, dtype=torch.float64)
    assert relcompile.compile(Net(head), x, rule=rule, target=1).metadata.quantity == wanted
