"""A class that does not exist, or an input that is no number, gave a map of zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import relcompile
from tests.cli.test_cli import small_network

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rule", ["gradient", "z+", "epsilon", "contrastive-lrp", "grad-cam", "w2", "root"])
def test_a_class_that_does_not_exist_is_nan(rule: str, tmp_path: Path) -> None:
    """In plain ONNX Runtime, which asks nobody; the sample beside it is explained all the same."""
    explainer = relcompile.compile(small_network(), X, rule=rule)
    explainer.save(tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    for wrong in (-1, 5, 1000):
        feeds = {"input": X.numpy(), "target": np.array([wrong, 2])}
        relevance: Any = session.run(["relevance"], feeds)[0]
        assert np.isnan(relevance[0]).all()
        expected = explainer(X, torch.tensor([2, 2]))[1][1].numpy()
        np.testing.assert_allclose(relevance[1], expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_flagged(value: float, saved: Path) -> None:
    x = X.numpy().copy()
    x[1, 0, 5, 5] = value
    assert relcompile.load(saved, device="cpu").explain(x, target=1).finite.tolist() == [True, False]
