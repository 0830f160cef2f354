"""Attention against autoLRP, which changes the gradients of autograd's nodes.

Its conventions (docs/conventions.md): it starts at 1 instead of the score; sums, biases, gated products and averages
are shared by magnitude, and a layer norm hands down what arrives. So sums are shared by magnitude here, too, and the
networks have neither biases nor gates nor layer norms. Its preset for AttnLRP multiplies relevance by f(x) / x at an
activation, which loses that share; it is asked to pass relevance on, as its default does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autolrp
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets.transformers import attn_lrp, cp_lrp
from relcompile.methods.rules.residual import SplitByShare
from tests.compare import assert_close

STABILISED = 1e-8  # its divisors carry 1e-11
X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([0, 2])
RULES: dict[str, tuple[Composite, dict[str, Any]]] = {
    "attnlrp": (attn_lrp(), autolrp.ATTNLRP),
    "cp-lrp": (cp_lrp(), autolrp.CPLRP),
}


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Block(nn.Module):
    """x + attention(norm(x)), and x + dense(norm(x)), with the norm by root mean square."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (linear(8, 8) for _ in range(4))
        self.wide, self.narrow, self.activation = linear(8, 12), linear(12, 8), activation

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self._attended(normal(x)))
        return x + self.narrow(self.activation(self.wide(normal(x))))

    def _attended(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        heads = functional.scaled_dot_product_attention(queries, keys, values)
        return heads.transpose(1, 2).flatten(2)


def normal(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class First(nn.Module):
    """Two blocks, and the scores of the first token."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(activation), Block(activation))
        self.head = linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[:, 0])


@pytest.mark.parametrize("activation", [functional.relu, functional.gelu])
@pytest.mark.parametrize("rule", RULES)
def test_equals_autolrp(rule: str, activation: Callable[[Tensor], Tensor]) -> None:
    composite, theirs = RULES[rule]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = First(activation).double().eval()
    by_magnitude = Composite(rule, (Entry(SplitByShare("absolute"), kind="sum"), *composite.entries))
    output, relevance = relcompile.compile(model, X, rule=by_magnitude)(X, TARGET)
    for sample, score in enumerate(output[torch.arange(len(X)), TARGET]):
        expected = of_autolrp(model, X[sample : sample + 1], int(TARGET[sample]), theirs)
        assert_close(relevance[sample : sample + 1], score * expected, STABILISED)


def of_autolrp(model: nn.Module, x: Tensor, target: int, rules: dict[str, Any]) -> Tensor:
    """Shares of the score, which add up to 1."""
    wrapped = autolrp.tensor(x.clone())
    model(wrapped)[0, target].lrp(rule={**autolrp.BASE, **rules})
    assert wrapped.relevance is not None
    return wrapped.relevance.detach().as_subclass(Tensor)
