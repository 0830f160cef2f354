"""Operators by all their names: what is refused under one name and passes under another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.errors import UnsupportedOperatorError
from tests.compare import FLOAT32, FLOAT64, assert_close
from tests.oracles.nets import Function

X = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ROWS = torch.arange(12.0, dtype=torch.float64).reshape(2, 6)
F = Callable[[Tensor], Tensor]


def assigned(x: Tensor) -> Tensor:
    """Assignments to a slice and to a place."""
    y = x.clone()
    y[:, 1:3] = y[:, 2:4] * 2
    y[:, 0] = y[:, 1].exp()
    return y


JOINED: dict[str, F] = {
    "concat": lambda x: torch.concat([x, x * x], 1),
    "concatenate": lambda x: torch.concatenate([x, x * x], 1),
    "hstack": lambda x: torch.hstack([x, x * x]),
    "dstack": lambda x: torch.dstack([x, x * x]),
    "column_stack": lambda x: torch.column_stack([x, x * x]),
    "tile": lambda x: torch.tile(x, (1, 2, 1)),
    "tile of fewer axes": lambda x: torch.tile(x, (2,)),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, 3, 1),
    "CircularPad1d": nn.CircularPad1d((1, 2)),
    "CircularPad2d": lambda x: nn.CircularPad2d((1, 2, 0, 1))(x[:, None]),
    "assigned": assigned,
    "new_zeros": lambda x: torch.cat([x, x.new_zeros(x.shape[0], 1, 6)], 1),
    "new_empty": lambda x: torch.cat([x, x.new_empty(x.shape[0], 1, 6).fill_(1.0)], 1),
    "full_like": lambda x: x * torch.full_like(x, 2.0) + torch.ones_like(x),
}
ARITHMETIC: dict[str, F] = {
    "clip": lambda x: x.clip(-0.5, 0.5),
    "clip by tensors": lambda x: x.clip(ROWS[0] - 3.0, ROWS[1] - 6.0),
    "clamp from below by a tensor": lambda x: x.clamp(min=ROWS[0] - 3.0),
    "subtract": lambda x: torch.subtract(x, x * x, alpha=2),
    "multiply": lambda x: torch.multiply(x, x),
    "divide": lambda x: torch.divide(x, x * x + 1),
    "true_divide": lambda x: torch.true_divide(x, x * x + 1),
    "negative": torch.negative,
    "absolute": torch.absolute,
    "addcdiv": lambda x: torch.addcdiv(x, x, x * x + 1),
    "frac": torch.frac,
    "fmod": lambda x: x.fmod(0.7),
    "remainder": lambda x: x.remainder(0.7),
    "hypot": lambda x: torch.hypot(x, x * x),
    "logaddexp": lambda x: torch.logaddexp(x, x * x),
    "xlogy": lambda x: torch.xlogy(x, x * x + 1),
    "deg2rad": torch.deg2rad,
    "nan_to_num": torch.nan_to_num,
    "a number to the power": lambda x: 2.0**x,
    "float_power": lambda x: (x * x).float_power(2),
    "mask by a cast": lambda x: x * (x > 0).to(x.dtype),
    "type_as": lambda x: x.type_as(ROWS) * 2,
}


def of(name: str, inner: F = lambda x: x) -> F:
    """torch's function of that name, of what `inner` makes of x."""
    return lambda x: getattr(torch, name)(inner(x))


EVERYWHERE = ("tan", "sinh", "cosh", "asinh", "exp2", "erfc", "arctan", "expm1", "square", "positive")
POINTWISE: dict[str, F] = {
    **{name: of(name) for name in EVERYWHERE},
    **{name: of(name, lambda x: x * 0.2) for name in ("asin", "acos", "atanh", "arcsin", "arccos", "arctanh")},
    **{name: of(name, lambda x: x * x + 1.5) for name in ("acosh", "arccosh", "log2", "log10")},
    "softsign": functional.softsign,
    "tanhshrink": functional.tanhshrink,
}
REDUCED: dict[str, F] = {
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "nansum": lambda x: x.nansum(1),
    "aminmax": lambda x: sum(x.aminmax(dim=1), torch.zeros(())),
    "cumsum": lambda x: x.cumsum(1),
    "diff": lambda x: x.diff(dim=1),
    "trapezoid": lambda x: torch.trapezoid(x, dim=1),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "cosine_similarity": lambda x: functional.cosine_similarity(x, x.flip(1) * x, dim=2),
    "cosine_similarity with a constant": lambda x: functional.cosine_similarity(x, ROWS[0], dim=2),
    "cdist": lambda x: torch.cdist(x, x.flip(1) * 2),
    "cdist, of itself": lambda x: torch.cdist(x, x),
    "cdist, p=1": lambda x: torch.cdist(x, x.flip(1) * 2, p=1.0),
    "inner": lambda x: torch.inner(x, ROWS),
    "tensordot": lambda x: torch.tensordot(x, ROWS.T, 1),
    "cross": lambda x: torch.linalg.cross(x[..., :3], x[..., 3:]),
}
VIEWS: dict[str, F] = {
    "unfold": lambda x: x.unfold(1, 2, 1) * 2,
    "functional.unfold": lambda x: functional.unfold(x[:, None], (2, 3), dilation=(1, 2), padding=1, stride=(2, 1)),
    "diagonal": lambda x: x.diagonal(1, 1, 2) * 2,
    "rot90": lambda x: x.rot90(1, (1, 2)),
    "tril": torch.tril,
    "triu": lambda x: x.triu(1),
    "movedim": lambda x: x.movedim(1, 2),
    "unflatten": lambda x: x.unflatten(2, (2, 3)),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "tensor_split": lambda x: x.tensor_split(2, 1)[0],
}
POOLS: dict[str, F] = {
    "max_pool1d": lambda x: functional.max_pool1d(x, 2, return_indices=True)[0],
    "max_pool2d": lambda x: functional.max_pool2d(x[:, None], 2, return_indices=True)[0],
    "max_pool3d": lambda x: functional.max_pool3d(x[:, None, None], (1, 2, 2), return_indices=True)[0],
    "adaptive_max_pool2d": lambda x: functional.adaptive_max_pool2d(x[:, None], 2, return_indices=True)[0],
}
WEIGHTS = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64)
PRODUCTS: dict[str, F] = {
    "relations on the left": lambda x: WEIGHTS[:20].reshape(5, 4) @ x,
    "relations of every sample": lambda x: torch.bmm(WEIGHTS[:16].reshape(1, 4, 4).expand(x.shape[0], -1, -1), x),
    "matmul, vector on the right": lambda x: x @ ROWS[1],
    "matmul, vector on the left": lambda x: WEIGHTS[:4] @ x,
    "matmul of a sample's numbers": lambda x: (x.flatten(1) @ WEIGHTS)[:, None].expand(-1, 2),
    "mv": lambda x: x.flatten(1).mv(WEIGHTS)[:, None].expand(-1, 2),
    "addmv": lambda x: torch.addmv(ROWS[1, :1], x.flatten(1), WEIGHTS, beta=0.5, alpha=2)[:, None].expand(-1, 2),
    "vecdot": lambda x: torch.linalg.vecdot(x, ROWS[1]),
    "dot, sample by sample": lambda x: torch.vmap(torch.dot)(x[:, 0], x[:, 1])[:, None].expand(-1, 2),
    "einsum": lambda x: torch.einsum("i,bij->bj", WEIGHTS[:4], x),
    "outer": lambda x: x[:, :, 0, None] * WEIGHTS,
}
SELECTED: dict[str, F] = {
    "max": lambda x: x.max(2)[0],
    "min, kept axis": lambda x: x.min(1, keepdim=True)[0] * x,
    "maxout": lambda x: x.unflatten(1, (2, 2)).max(2)[0],
    "sort": lambda x: x.sort(1)[0] * ROWS[1],
    "sort, descending and stable": lambda x: x.sort(dim=-1, descending=True, stable=True)[0],
    "msort": lambda x: x.transpose(0, 1).msort().transpose(0, 1),
    "topk": lambda x: x.topk(2, 1)[0],
    "topk, smallest": lambda x: x.topk(3, largest=False)[0],
    "topk, unsorted": lambda x: x.topk(2, 1, sorted=False)[0].sum(1),
    "topk, positions": lambda x: (x * 2).gather(1, x.topk(2, 1)[1]),
    "topk, as a threshold": lambda x: x.masked_fill(x < x.topk(2, 1)[0][:, -1:], 0.0),
    "argsort": lambda x: x.square().gather(1, x.argsort(1)),
    "median": lambda x: x.median(1)[0],
    "kthvalue": lambda x: x.kthvalue(2, 1)[0],
    "quantile": lambda x: x.quantile(0.3, dim=1),
}
SPELLINGS = {**PRODUCTS, **SELECTED, **JOINED, **ARITHMETIC, **POINTWISE, **REDUCED, **VIEWS, **POOLS}


@pytest.mark.parametrize("name", SPELLINGS)
def test_gradients_are_autograds(name: str) -> None:
    function = SPELLINGS[name]
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad((function(x).flatten(1)[:, 1]).sum(), x)
    found = relcompile.compile(Function(lambda x: function(x).flatten(1)), X, rule="gradient", target=1)(X)[1]
    assert_close(found, expected, FLOAT64)


def test_the_batch_is_no_axis_to_take_from() -> None:
    net = Function(lambda x: torch.vstack([x[:, 0], x[:, 1]])[: x.shape[0]])
    with pytest.raises(UnsupportedOperatorError, match="slice: it is taken over the whole batch"):
        relcompile.compile(net, X, rule="gradient")


@pytest.mark.parametrize("rule", ["gradient", "epsilon"])
def test_of_equal_values_the_first_is_selected_in_the_file_too(rule: str, tmp_path: Path) -> None:
    x = torch.tensor([[[1.0, 1.0, 0.0, 1.0, -1.0]], [[0.0, 2.0, 2.0, 2.0, 0.0]]])
    best = Function(lambda x: torch.cat([x.topk(2)[0], x.kthvalue(2)[0][:, :, None] * 0], 2).flatten(1))
    explainer = relcompile.compile(best, x, rule=rule, target=0)
    explainer.save(tmp_path / "best.onnx")
    found = relcompile.load(tmp_path / "best.onnx").explain(x.numpy()).relevance
    slope = torch.tensor([[[1.0, 0, 0, 0, 0]], [[0.0, 1, 0, 0, 0]]])
    expected = slope if rule == "gradient" else slope * x
    assert_close(torch.from_numpy(found), expected, FLOAT32)
    assert_close(explainer(x)[1], expected, FLOAT32)


def test_a_weight_vector_is_a_layer() -> None:
    net, layer = Function(lambda x: (x.flatten(1) @ WEIGHTS)[:, None]), nn.Linear(24, 1, bias=False, dtype=X.dtype)
    layer.weight.data = WEIGHTS[None]
    one, other = (relcompile.compile(n, X, rule="z+")(X)[1] for n in (net, nn.Sequential(nn.Flatten(), layer)))
    assert_close(one, other, FLOAT64)
