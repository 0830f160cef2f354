"""Relevance of layers beside that of the input, in one walk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relcompile
from tests.compare import FLOAT64, ONNX, assert_close
from tests.question.networks import TARGET, X, captured, residual

LAYERS = ("pool", "stem", "head", "branch")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("rule", ["z+", "epsilon", "gradient", "deeplift-rescale"])
def test_a_tap_is_what_is_read_there_alone(rule: str) -> None:
    model = residual()
    found = relcompile.compile(model, X, rule=rule, taps=LAYERS)(X, TARGET)
    assert_close(found[1], relcompile.compile(model, X, rule=rule)(X, TARGET)[1], FLOAT64)
    for layer, relevance in zip(LAYERS, found[2:], strict=True):
        assert_close(relevance, relcompile.compile(model, X, rule=rule, at=layer)(X, TARGET)[1], FLOAT64)


def test_taps_beside_a_layer_and_a_report() -> None:
    model, explainer = residual(), captured().compile(rule="z+", at="pool", taps=["stem"], absorbed=True)
    _, at, tap, absorbed = explainer(X, TARGET)
    whole = relcompile.compile(model, X, rule="z+", taps=["pool", "stem"], absorbed=True)(X, TARGET)
    assert_close(at, whole[2], FLOAT64)
    assert_close(tap, whole[3], FLOAT64)
    assert absorbed.shape == whole[4].shape
    assert explainer.metadata.output_names[1:] == ["relevance", "relevance_at_stem", "absorbed"]


def test_taps_of_copies_are_means() -> None:
    explainer = captured().compile(rule="smoothgrad=3", taps=["pool"])
    noise = torch.zeros(3, 3, *X.shape[1:], dtype=torch.float64)
    gradient = captured().compile(rule="gradient", at="pool")(X, TARGET)[1]
    assert_close(explainer(X, TARGET, noise)[2], gradient, FLOAT64)


def test_a_file_says_what_its_taps_are(tmp_path: Path) -> None:
    explainer = relcompile.compile(residual().float(), X.float(), rule="z+", taps=["pool", "head"])
    explainer.save(tmp_path / "taps.onnx")
    loaded = relcompile.load(tmp_path / "taps.onnx", device="cpu")
    assert [(tap.name, tap.layer, tap.shape) for tap in loaded.metadata.taps] == [
        ("relevance_at_pool", "pool", ("batch", 4, 4, 4)),
        ("relevance_at_head", "head", ("batch", 5)),
    ]
    explanation = loaded.explain(X.float().numpy(), target=TARGET.numpy())
    for array, tensor in zip(explanation.taps.values(), explainer(X.float(), TARGET)[2:], strict=True):
        assert_close(array, tensor, ONNX)
    assert list(explanation.taps) == ["pool", "head"]
    assert np.isfinite(explanation.relevance).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"taps": ["nothing"]}, relcompile.UnknownLayerError, "there are: stem"),
        ({"taps": ["pool"], "rule": "integrated-gradients"}, relcompile.RelcompileError, "at the input only"),
        ({"taps": ["head"], "rule": "grad-cam"}, relcompile.RelcompileError, "spatial"),
    ],
)
def test_what_cannot_be_read(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        captured().compile(**options)
