"""The zoo: what it measures on a network of three layers, and how it says it."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.parts.zoo_models import Inputs, Specimen
from benchmarks.zoo import Row, examine, markdown


def perceptron() -> tuple[nn.Module, Inputs]:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)), {"input": torch.randn(2, 3)}


def test_every_step_is_taken_and_measured() -> None:
    row = Row("own", "perceptron", "three-layers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        steps = list(examine(Specimen("own", "perceptron", "three-layers", perceptron), row))
    assert steps == ["build", "autograd", "compile gradient", "compile cp-lrp", "export"]
    assert row.gradient is not None
    assert row.gradient < 1e-12
    assert row.unaccounted is not None
    assert row.unaccounted < 1e-10
    assert row.parity is not None
    assert row.parity < 1e-4
    assert "| own | perceptron | three-layers | " in markdown([row])
