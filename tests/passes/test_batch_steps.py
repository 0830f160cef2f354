"""What the steps of a series do alike is done once, where nothing of it has to wait and vectors are short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
import torch
from torch import Tensor

from passes.graphs.emitter import aten
from passes.graphs.graph import calls, rewrite_calls
from passes.rewrites.optimise.batch_steps import BatchSteps
from passes.rewrites.optimise.share_subexpressions import ShareSubexpressions
from tests.compare import FLOAT64, assert_close
from tests.passes.test_passes import apply, graph_of

Steps: TypeAlias = Callable[[Tensor], Tensor]
W, V = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def secant(y: Tensor, z: Tensor) -> Tensor:
    return (y + (z == 0)) / (z + (z == 0))


def joined(*weights: Tensor) -> Steps:
    return lambda x: torch.cat([(row @ w).reshape(-1, 1, 2) for row, w in zip(x.chunk(3, 1), weights, strict=True)], 1)


def walk(x: Tensor) -> Tensor:
    """Back through three cells: gates, states and their functions are known, m is not."""
    cells = [(row.sigmoid(), row.tanh(), row) for row in (x.relu()).chunk(3, 1)]
    m = x[:, :2].exp()
    for gate, y, z in reversed(cells):
        m = ((m * gate) * secant(y, z)) @ W
    return m


def waiting(x: Tensor) -> Tensor:
    """Every cell needs what the one before made."""
    m = z = x[:, :2]
    for _ in range(3):
        m = z = ((m * z.sigmoid()) * secant(z.tanh(), z)) @ W
    return m


def long(x: Tensor) -> Tensor:
    m, wide = x.repeat(1, 1000).exp(), x.repeat(1, 1000)
    for _ in range(2):
        m = (m * wide.cos()) * secant(wide.tanh(), wide)
    return m[:, :6]


def read_twice(x: Tensor) -> Tensor:
    m, parts = x[:, :2].exp(), list[Tensor]()
    for z in x.chunk(3, 1):
        scaled = m * z.sigmoid()
        parts += [scaled, scaled * secant(z.tanh(), z)]
    return torch.cat(parts, 1)


CASES: Final[dict[str, tuple[Steps, int, int]]] = {  # products with weights, and quotients, that are left
    "one weight": (joined(W, W, W), 1, 0),
    "a run of two": (joined(V, W, W), 2, 0),
    "no run": (joined(W, V, W), 3, 0),
    "a walk": (walk, 3, 1),
    "each waits": (waiting, 3, 3),
    "long": (long, 0, 1),
    "read twice": (read_twice, 0, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_done_at_once(name: str) -> None:
    steps, products, quotients = CASES[name]
    graph, x = graph_of(steps, 6)
    x[0, :4] = 0
    rewrite_calls(graph, {aten.view.default: lambda node, emit: emit.call(aten.reshape.default, *node.args)})
    apply(graph, ShareSubexpressions(), BatchSteps())
    assert len(calls(graph, aten.matmul.default)) == products
    assert len(calls(graph, aten.div.Tensor)) == quotients
    assert_close(graph(x)[0], steps(x), FLOAT64)
    assert apply(graph, BatchSteps()) == 0
