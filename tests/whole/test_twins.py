"""The same computation written in different ways has the same relevance, whoever spelt it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import relcompile
from tests.compare import FLOAT64, assert_close
from tests.oracles.nets import Function

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


TWINS: dict[str, tuple[Spelling, ...]] = {
    "layer norm": (
        lambda x: F.layer_norm(x, (6,), SCALE, SHIFT, EPSILON),
        lambda x: (x - mean(x)) / (x.var(-1, unbiased=False, keepdim=True) + EPSILON).sqrt() * SCALE + SHIFT,
        lambda x: (x - mean(x)) * torch.rsqrt(mean(x**2) - mean(x) ** 2 + EPSILON) * SCALE + SHIFT,
        lambda x: SHIFT + SCALE * ((x - mean(x)) / torch.sqrt(mean((x - mean(x)).pow(2)) + EPSILON)),
    ),
    "rms norm": (
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
        lambda x: F.linear(x, W, BIAS),
        lambda x: x @ W.T + BIAS,
        lambda x: torch.einsum("nti,oi->nto", x, W) + BIAS,
        lambda x: torch.addmm(BIAS, x.reshape(-1, 6), W.T).reshape(-1, 4, 6),
        lambda x: (W @ x.transpose(1, 2)).transpose(1, 2) + BIAS,
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
    "gelu": (after_linear(F.gelu), after_linear(lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)))),
    "gelu by tanh": (
        after_linear(lambda z: F.gelu(z, approximate="tanh")),
        after_linear(lambda z: 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))),
    ),
    "silu": (after_linear(F.silu), after_linear(lambda z: z * torch.sigmoid(z))),
}
METHODS = ("gradient", "attnlrp=held", "cp-lrp", "z+")
CASES = [(name, method) for name in TWINS for method in METHODS]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_twins_have_one_relevance(name: str, method: str) -> None:
    first, *others = (explained(spelling, method) for spelling in TWINS[name])
    for other in others:
        assert_close(other[0], first[0], FLOAT64)
        assert_close(other[1], first[1], FLOAT64)


def explained(spelling: Spelling, method: str) -> tuple[Tensor, Tensor]:
    model = Function(lambda x: F.linear(spelling(x).mean(1) * 2, V))
    return relcompile.compile(model, X, rule=method)(X, TARGET)
