"""What lies below the layer that is read, or beside it, needs no rule; what is above keeps its place in the network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relcompile
from passes.errors import UnsupportedOperatorError
from tests.compare import FLOAT64, assert_close


class Stem(nn.Module):
    """An operator that no rule passes (log Γ), under two convolutions; another beside them; `late`: one above."""

    def __init__(self, *, late: bool = False, opaque: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.top, self.late, self.opaque = nn.Linear(4, 3), late, opaque
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = (h.abs() + 1).lgamma() if self.opaque else h.relu()
        y = torch.relu(self.body(h)) + ((h.abs() + 1).lgamma() if self.opaque else h)[:, :, 1:-1, 1:-1]
        y = (y.abs() + 1).lgamma() if self.late else y
        return self.top(y.mean((2, 3)))


X = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_autograd(model: Stem, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of `body`, and the gradient of class 1 there."""
    kept = list[Tensor]()
    with_hook = model.body.register_forward_hook(lambda _module, _x, y: (kept.append(y), y.retain_grad())[0])
    model(x.clone().requires_grad_())[:, 1].sum().backward()
    with_hook.remove()
    gradient = kept[0].grad
    assert gradient is not None
    return kept[0].detach(), gradient


def test_a_gradient_at_a_layer() -> None:
    model = Stem()
    found = relcompile.compile(model, X, rule="gradient", at="body", target=1)(X)[1]
    assert_close(found, by_autograd(model, X)[1], FLOAT64)


def test_grad_cam() -> None:
    model = Stem()
    feature_map, gradient = by_autograd(model, X)
    coarse = (feature_map * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    wanted = nn.functional.interpolate(coarse, X.shape[2:], mode="bilinear")
    assert_close(relcompile.compile(model, X, rule="grad-cam", at="body", target=1)(X)[1], wanted, FLOAT64)


def test_layers_above_keep_their_place() -> None:
    """The first affine layer of z+-flat is the stem, whether or not relevance would pass what is above it."""
    rules = [
        {
            layer.name: layer.rule
            for layer in relcompile.compile(model, X, rule="epsilon-plus-flat", at=at).metadata.layers
        }
        for model, at in ((Stem(), "body"), (Stem(opaque=False), "body"))
    ]
    assert rules[0]["body"] == rules[1]["body"]
    assert rules[0]["body"] != rules[0]["stem"]


@pytest.mark.parametrize(("late", "at"), [(True, "body"), (False, None), (False, "stem")])
def test_what_lies_above_is_refused(late: bool, at: str | None) -> None:
    with pytest.raises(UnsupportedOperatorError, match="lgamma"):
        relcompile.compile(Stem(late=late), X, rule="gradient", at=at)
