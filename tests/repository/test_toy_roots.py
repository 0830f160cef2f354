"""The numbers of the toy network, and what each root makes of conservation."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compare import assert_close

EXAMPLE = Path(__file__).parents[2] / "examples" / "toy_roots.py"


@pytest.fixture(scope="module")
def toy() -> Any:
    spec = importlib.util.spec_from_file_location("toy_roots", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_roots"] = module
    spec.loader.exec_module(module)
    return module


def column(values: list[float]) -> torch.Tensor:
    """Points on the diagonal: both pixels alike."""
    return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, 2)


def test_lrp_0_peaks_although_the_output_grows(toy: Any) -> None:
    axis = torch.linspace(0, 4, 4001, dtype=torch.float64)
    relevance = toy.lrp_0(axis[:, None].expand(-1, 2))[:, 0]
    assert_close(axis[relevance.argmax()], 1.5434, 1e-3)
    assert_close(relevance.max(), 0.22387, 1e-4)


@pytest.mark.parametrize(("a", "b", "equal"), [(0.5, 3.2401, 0.1175), (1.0, 2.2138, 0.19661), (1.25, 1.8699, 0.21638)])
def test_lrp_0_is_equal_at_points_that_differ(toy: Any, a: float, b: float, equal: float) -> None:
    assert_close(toy.lrp_0(column([a, b])), column([equal, equal]), 1e-4)
    assert float(toy.gain(torch.tensor(b)) - toy.gain(torch.tensor(a))) > 0.07


def test_gain_of_the_middle_pair(toy: Any) -> None:
    assert_close(toy.gain(torch.tensor([1.0, 2.2138])), [0.2311, 0.4015], 1e-3)


def test_root_zero_gives_a_quarter(toy: Any) -> None:
    x = torch.linspace(0, 4, 9, dtype=torch.float64)
    for order in (1, 2):
        assert_close(toy.around(torch.zeros_like(x), x, order), x / 4, 1e-12)


@pytest.mark.parametrize("name", ["neighbouring", "root 0, slope at x", "root 0, slope at 0", "half-way"])
def test_other_roots_break_conservation(toy: Any, name: str) -> None:
    x = torch.linspace(0.5, 4, 8, dtype=torch.float64)
    found = next(values for label, values in toy.curves(x).items() if label.startswith(name))
    assert float(((found - toy.gain(x)) / toy.gain(x)).abs().max()) > 0.4


def test_second_order_is_better_than_first_half_way(toy: Any) -> None:
    """Each explains what lies between its root and x."""
    x = torch.linspace(0.5, 4, 8, dtype=torch.float64)
    truth = torch.sigmoid(x) - torch.sigmoid(x / 2)
    errors = [(toy.around(x / 2, x, order) - truth).abs() for order in (1, 2)]
    assert bool((errors[1] < errors[0])[x < 3].all())


def test_learned_root_conserves(toy: Any) -> None:
    pixels = torch.tensor([[1.0, 2.2138], [0.3, 3.0], [3.2401, 0.5]], dtype=torch.float64)
    relevance, report = toy.learned(pixels)
    assert_close(relevance, toy.gain(pixels), 1e-4)
    assert bool((report[:, 0, 2] < 1e-6 * report[:, 0, 1]).all())  # the loss after the search
    root = toy.root_of(pixels, relevance)
    assert bool(((root > 0) & (root < pixels)).all())


def test_example_draws_its_figure(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--output", str(tmp_path / "toy.png")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 7
    assert (tmp_path / "toy.png").stat().st_size > 10_000
