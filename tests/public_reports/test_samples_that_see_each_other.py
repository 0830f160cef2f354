"""Models that compute along the batch: an explanation that changed with the company of its sample, without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.errors import CaptureError
from tests.compare import FLOAT64, assert_close
from tests.oracles.nets import Function

X = torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FIRST = torch.tensor([0])
MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda x: x * x.amax(0),
    "max": lambda x: x * x.max(0)[0],
    "sort": lambda x: x.sort(0)[0],
    "softmax": lambda x: x.softmax(0),
    "mean": lambda x: x - x.mean(0),
    "mean of everything": lambda x: (x - x.mean()) / x.std(),
    "roll": lambda x: x.roll(1, 0) + x,
    "index": lambda x: x + x[FIRST],
    "index_select": lambda x: x + x.index_select(0, FIRST),
    "gather": lambda x: x.gather(0, torch.zeros_like(x, dtype=torch.int64)) * x,
    "the best row": lambda x: x[x.sum((1, 2)).argmax()][None] * x,
    "samples times samples": lambda x: (x.flatten(1) @ x.flatten(1).T) @ x.flatten(1),
    "features times features": lambda x: x.flatten(1) @ (x.flatten(1).T @ x.flatten(1)),
    "a convolution along the batch": lambda x: functional.conv1d(
        x.permute(1, 2, 0), torch.ones(6, 6, 3, dtype=x.dtype), padding=1
    ).permute(2, 0, 1),
    "attention with the batch second": nn.MultiheadAttention(6, 2, dtype=torch.float64).eval(),
    "batch statistics": lambda x: functional.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("examples", [X, X[:1]], ids=["three", "one"])
def test_are_refused_by_the_line(name: str, examples: Tensor) -> None:
    mixed = MIXED[name]
    net = Function((lambda x: mixed(x, x, x)[0]) if isinstance(mixed, nn.Module) else mixed)
    with pytest.raises(CaptureError, match=r"samples of a batch see each other(.|\n)*nets\.py"):
        relcompile.compile(net, examples, rule="gradient", target=0)


def test_a_batch_that_is_the_second_axis_for_a_while_is_none_of_them() -> None:
    net = Function(lambda x: x.transpose(0, 1).reshape(-1, 6).square().reshape(4, -1, 6).amax(0))
    found = relcompile.compile(net, X, rule="gradient", target=0)
    assert_close(found(X)[1][1:2], found(X[1:2])[1], FLOAT64)
