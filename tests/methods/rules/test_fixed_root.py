"""One equation for all directions v of the root, and the rule of a root that is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from passes.relevance.protocol.rule import AnyRule
from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.rules.affine import AlphaBeta, Epsilon
from relcompile.methods.rules.input_layer import WSquared, ZBox
from relcompile.methods.rules.roots.fixed_root import FixedRoot, Reference
from relcompile.methods.spelling import rule_named
from tests.compare import FLOAT64, assert_close
from tests.oracles import affine

LOW, HIGH = -2.0, 3.0
Layers = dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]
LAYERS: Layers = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "convolution": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 4)),
}
# direction of every unit, from x (N, J) and W (K, J), as (N|1, K, J)
Direction = Callable[[Tensor, Tensor], Tensor]
DIRECTIONS: dict[str, tuple[AnyRule, Direction, float]] = {
    "v = x": (Epsilon(1e-6, "none"), lambda x, W: x[:, None].expand(-1, len(W), -1), 1e-6),
    "v = w": (WSquared(), lambda x, W: W[None], 1e-9),
    "v = x 1[w > 0]": (AlphaBeta(1, 0), lambda x, W: x[:, None] * (W > 0), 1e-9),
    "v = x - box": (
        ZBox(LOW, HIGH),
        lambda x, W: x[:, None] - LOW * (W > 0).double() - HIGH * (W < 0).double(),
        1e-6,
    ),
}


def sample(name: str, *, signed: bool) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The layer, its matrix, x and R."""
    build, shape = LAYERS[name]
    torch.manual_seed(5)
    layer = build().double()
    x = torch.rand(3, *shape, dtype=torch.float64) * (HIGH - LOW) + LOW
    x = x if signed else x.clamp(min=0)
    return layer, affine.matrix_of(layer, shape)[0], x, torch.rand_like(layer(x)).detach()


def explained(layer: nn.Module, x: Tensor, R: Tensor, rule: AnyRule) -> Tensor:
    return relcompile.compile(layer, x, rule=Composite("one", (Entry(rule),)), target="seed")(x, R)[1]


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_rules_are_directions_of_one_equation(name: str, layer_name: str) -> None:
    rule, direction, epsilon = DIRECTIONS[name]
    layer, W, x, R = sample(layer_name, signed=name != "v = x 1[w > 0]")
    flat = x.flatten(1)
    v = direction(flat, W)
    expected = affine.root_direction(flat, W, torch.zeros(len(W)), R.flatten(1), v=v, eps=epsilon)
    assert_close(explained(layer, x, R, rule).flatten(1), expected, FLOAT64)


REFERENCES: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "zero": lambda shape: 0.0,
    "number": lambda shape: 0.5,
    "per channel": lambda shape: tuple(0.1 * k - 0.2 for k in range(shape[0])),
    "tensor": lambda shape: torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape),
}


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("name", REFERENCES)
def test_fixed_root_equals_its_oracle(name: str, layer_name: str) -> None:
    layer, W, x, R = sample(layer_name, signed=True)
    reference = REFERENCES[name](tuple(x.shape[1:]))
    root = torch.as_tensor(reference, dtype=torch.float64)
    root = root.reshape(-1, *[1] * (x.dim() - 2)) if isinstance(reference, tuple) else root
    v = (x - root).flatten(1)[:, None]  # one direction for all units
    expected = affine.root_direction(x.flatten(1), W, torch.zeros(len(W)), R.flatten(1), v=v, eps=1e-6)
    assert_close(explained(layer, x, R, FixedRoot(reference)).flatten(1), expected, FLOAT64)


def test_fixed_root_by_name() -> None:
    assert rule_named("fixed-root=0.5").__repr__() == "FixedRoot(root=0.5, epsilon=1e-06)"
    assert repr(FixedRoot(torch.zeros(2, 3))) == "FixedRoot(root=[2, 3], epsilon=1e-06)"


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ((0.0, 1.0, 2.0), r"root=\(0.0, 1.0, 2.0\): give one number, or one for each of the 2 channels"),
        (torch.zeros(2, 5), r"root has the shape \[2, 5\], the input \[2, 5, 4\]"),
    ],
)
def test_fixed_root_of_another_shape_is_refused(root: Reference, message: str) -> None:
    layer, _, x, R = sample("convolution", signed=True)
    with pytest.raises(CompositeError, match=message):
        explained(layer, x, R, FixedRoot(root))
