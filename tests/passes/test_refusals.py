"""What has no rule is said in one error: every sort of operator once, with the reason and the first places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.errors import UnsupportedOperatorError
from passes.relevance.protocol.refuse import Refuse
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets import z_plus

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
NO_SIGMOID = Entry(Refuse("sigmoids are not ours"), operator="sigmoid")
NO_PRODUCT = Entry(Refuse("nor are products"), kind="product")


class Net(nn.Module):
    """Five softmaxes that pay no attention, a factorial, a gate and the slope of a factorial."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(5)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            y = layer(x)
            x = x + functional.softmax(y, -1)
        x = x.lgamma()
        x = x * torch.sigmoid(x)
        return x.digamma().mean(1)


def error(rule: str | Composite) -> str:
    with pytest.raises(UnsupportedOperatorError) as caught:
        relcompile.compile(Net(), X, rule=rule)
    return str(caught.value)


def test_all_refusals_stand_in_one_error() -> None:
    lines = error(z_plus().with_entries(NO_SIGMOID, NO_PRODUCT)).splitlines()
    heads = [line.partition(":")[0] for line in lines if not line.startswith("  ")]
    assert heads[0] == "9 operators have no rule"
    assert sorted(heads[1:-1]) == ["digamma", "lgamma", "mul", "sigmoid", "softmax, 5 times"]
    assert lines[-1].startswith("--fallback gradient")
    assert "7 of them" in lines[-1]


def test_a_sort_of_operator_is_named_once_with_its_first_places() -> None:
    lines = error("z+").splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("softmax, 5 times: "))
    places = lines[start + 1 : start + 5]
    assert all("  " in line and "(softmax, output " in line for line in places[:3])
    assert all("test_refusals.py:" in line and "functional.softmax" in line for line in places[:3])
    assert places[3] == "  and 2 more"


def test_the_reason_is_the_methods_own() -> None:
    assert "sigmoid: sigmoids are not ours\n  sigmoid (sigmoid, output " in error(z_plus().with_entries(NO_SIGMOID))


def test_gradients_are_refused_only_where_there_is_no_adjoint() -> None:
    text = error("gradient")
    assert "softmax" not in [line.split(",")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert "lgamma" in text
    assert "relcompile rules --operators" in text
    assert "--fallback" not in text
