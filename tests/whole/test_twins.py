"""The same computation written in different ways has the same relevance, whoever spelt it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import relcompile
from tests.compare import FLOAT64, assert_close

Spelling = Callable[[Tensor], Tensor]
GENERATOR = torch.Generator().manual_seed(0)
W, V = (torch.randn(6, 6, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
SCALE, SHIFT, BIAS = (torch.randn(6, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
X = torch.randn(3, 4, 6, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([0, 5, 2])
EPSILON = 1e-5


def mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def attention(weigh: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Spelling:
    return lambda x: weigh(x @ W, x @ V, x)


def after_linear(f: Spelling) -> Spelling:
    return lambda x: f(x @ W)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, 3)).transpose(1, 2)


def softmax_by_hand(z: Tensor) -> Tensor:
    e = torch.exp(z - z.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def weighed(module: nn.Module, **weights: Tensor) -> nn.Module:
    """The module with these weights."""
    module.load_state_dict(weights, strict=False)
    return module


def linear() -> nn.Module:
    return weighed(nn.Linear(6, 6).double(), weight=W, bias=BIAS)


class Block(nn.Module):
    """Two layers with an activation each, beside what they read."""

    def __init__(self, first: nn.Module, second: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.activation = first, second, activation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.activation(self.second(self.activation(self.first(x))))


def block_in_place(x: Tensor) -> Tensor:
    y = F.linear(F.linear(x, W, BIAS).relu_(), W).add_(BIAS)
    y.relu_()
    y += x
    return y


def block_of_one_layer(layer: nn.Module) -> nn.Module:
    return Block(layer, layer, nn.ReLU())


IN_PROJECTION = torch.cat([W, V, W + V])
ATTENTION = weighed(
    nn.MultiheadAttention(6, 2, batch_first=True).double(),
    **{"in_proj_weight": IN_PROJECTION, "in_proj_bias": BIAS.repeat(3), "out_proj.weight": V, "out_proj.bias": SHIFT},
)


def self_attention(weigh: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Spelling:
    def attend(x: Tensor) -> Tensor:
        q, k, v = (heads(part) for part in F.linear(x, IN_PROJECTION, BIAS.repeat(3)).chunk(3, -1))
        return F.linear(weigh(q, k, v).transpose(1, 2).flatten(2), V, SHIFT)

    return attend


class SelfAttention(nn.Module):
    """PyTorch's own module, with or without the weights that it can return."""

    def __init__(self, attention: nn.Module, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = attention, need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


TWINS: dict[str, tuple[Spelling, ...]] = {
    "layer norm": (
        weighed(nn.LayerNorm(6, EPSILON).double(), weight=SCALE, bias=SHIFT),
        lambda x: F.layer_norm(x, (6,), SCALE, SHIFT, EPSILON),
        lambda x: (x - mean(x)) / (x.var(-1, unbiased=False, keepdim=True) + EPSILON).sqrt() * SCALE + SHIFT,
        lambda x: (x - mean(x)) * torch.rsqrt(mean(x**2) - mean(x) ** 2 + EPSILON) * SCALE + SHIFT,
        lambda x: SHIFT + SCALE * ((x - mean(x)) / torch.sqrt(mean((x - mean(x)).pow(2)) + EPSILON)),
    ),
    "rms norm": (
        weighed(nn.RMSNorm(6, EPSILON).double(), weight=SCALE),
        lambda x: F.rms_norm(x, (6,), SCALE, EPSILON),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * SCALE,
        lambda x: SCALE * (x / (mean(x * x) + EPSILON).sqrt()),
    ),
    "unit length": (
        lambda x: F.normalize(x, dim=-1),
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda x: x / x.square().sum(-1, keepdim=True).sqrt(),
    ),
    "group norm": (
        lambda x: F.group_norm(x, 2, SCALE[:4], SHIFT[:4], EPSILON),
        lambda x: (
            F.layer_norm(x.unflatten(1, (2, 2)), (2, 6), None, None, EPSILON).flatten(1, 2) * SCALE[:4, None]
            + SHIFT[:4, None]
        ),
    ),
    "instance norm": (
        lambda x: F.instance_norm(x, eps=EPSILON),
        lambda x: F.group_norm(x, 4, eps=EPSILON),
    ),
    "linear": (
        linear(),
        lambda x: F.linear(x, W, BIAS),
        lambda x: x @ W.T + BIAS,
        lambda x: torch.einsum("nti,oi->nto", x, W) + BIAS,
        lambda x: torch.addmm(BIAS, x.reshape(-1, 6), W.T).reshape(-1, 4, 6),
        lambda x: (W @ x.transpose(1, 2)).transpose(1, 2) + BIAS,
    ),
    "block": (
        block_of_one_layer(linear()),
        Block(linear(), linear(), nn.ReLU(inplace=True)),
        lambda x: x + F.relu(F.linear(F.relu(F.linear(x, W, BIAS)), W, BIAS)),
        block_in_place,
    ),
    "self-attention": (
        SelfAttention(ATTENTION, need_weights=False),
        SelfAttention(ATTENTION, need_weights=True),
        self_attention(F.scaled_dot_product_attention),
        self_attention(lambda q, k, v: torch.einsum("nhts,nhsd->nhtd", (q @ k.mT / 3**0.5).softmax(-1), v)),
    ),
    "attention": (
        attention(F.scaled_dot_product_attention),
        attention(lambda q, k, v: (q @ k.transpose(-1, -2) / 6**0.5).softmax(-1) @ v),
        attention(lambda q, k, v: torch.bmm(F.softmax(torch.bmm(q * 6**-0.5, k.mT), 2), v)),
        attention(
            lambda q, k, v: torch.einsum("nts,nsd->ntd", (torch.einsum("ntd,nsd->nts", q, k) / 6**0.5).softmax(2), v)
        ),
        attention(lambda q, k, v: softmax_by_hand(q @ k.transpose(-1, -2) / 6**0.5) @ v),
        attention(lambda q, k, v: ((q @ k.mT / 6**0.5).softmax(-1)[..., None] * v[:, None]).sum(2)),
    ),
    "causal attention of two heads": (
        attention(
            lambda q, k, v: (
                F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=True).transpose(1, 2).flatten(2)
            )
        ),
        attention(
            lambda q, k, v: (
                (
                    (heads(q) @ heads(k).mT / 3**0.5)
                    .masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), float("-inf"))
                    .softmax(-1)
                    @ heads(v)
                )
                .transpose(1, 2)
                .flatten(2)
            )
        ),
    ),
    "gates": (
        lambda x: F.glu(torch.cat([x @ W, x @ V], -1)),
        lambda x: (x @ W) * torch.sigmoid(x @ V),
        lambda x: torch.sigmoid(x @ V) * (x @ W),
    ),
    "gelu": (
        after_linear(F.gelu),
        after_linear(nn.GELU()),
        after_linear(lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5))),
    ),
    "gelu by tanh": (
        after_linear(lambda z: F.gelu(z, approximate="tanh")),
        after_linear(lambda z: 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))),
    ),
    "silu": (after_linear(F.silu), after_linear(lambda z: z * torch.sigmoid(z))),
}
METHODS = ("gradient", "attnlrp=held", "cp-lrp", "z+")
CASES = [(name, method) for name in TWINS for method in METHODS]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("name", "method"), CASES)
def test_twins_have_one_relevance(name: str, method: str) -> None:
    assert_twins([(spelling,) for spelling in TWINS[name]], method)


@settings(derandomize=True, max_examples=3, deadline=None)
@given(drawn=st.data(), names=st.lists(st.sampled_from(list(TWINS)), min_size=2, max_size=3))
@pytest.mark.parametrize("method", ["attnlrp=held", "epsilon"])
def test_chains_of_twins_have_one_relevance(method: str, names: list[str], drawn: st.DataObject) -> None:
    chains = [tuple(drawn.draw(st.sampled_from(TWINS[name])) for name in names) for _ in range(2)]
    assert_twins(chains, method)


def assert_twins(chains: Sequence[tuple[Spelling, ...]], method: str) -> None:
    first, *others = (relcompile.compile(Chain(chain), X, rule=method)(X, TARGET) for chain in chains)
    for other in others:
        assert_close(other[0], first[0], FLOAT64)
        assert_close(other[1], first[1], FLOAT64)


class Chain(nn.Module):
    """Functions and modules one after the other, a mean over tokens, a linear head."""

    def __init__(self, steps: Sequence[Spelling]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.layers = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return F.linear(x.mean(1) * 2, V)
