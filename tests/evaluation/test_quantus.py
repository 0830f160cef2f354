"""Quantus has some of the measures, too: on the same maps it finds the same numbers. And it can ask an explainer."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relcompile
from relcompile.errors import EvaluationError
from relcompile.evaluation import quantus_explain
from relcompile.evaluation.metrics import localisation, similarity, stability
from relcompile.evaluation.randomised import layers_with_weights, randomise
from tests.compare import FLOAT32, assert_close
from tests.evaluation.networks import BatchNormed, small_cnn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus: Any = importlib.import_module("quantus")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 3, 12, 12)).astype(np.float32)
Y = np.array([0, 3, 1])
MAPS = RNG.random((3, 12, 12))
MASKS = np.zeros((3, 12, 12), bool)
MASKS[:, 2:7, 3:9] = True


def theirs(metric: Any, **more: Any) -> np.ndarray:
    arguments = {"model": small_cnn(), "x_batch": X, "y_batch": Y, "a_batch": MAPS[:, None], "s_batch": MASKS[:, None]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(metric(**{**arguments, **more}), dtype=float)


QUIET: dict[str, Any] = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("RelevanceMassAccuracy", localisation.mass),
        ("RelevanceRankAccuracy", localisation.rank),
        ("PointingGame", localisation.pointing),
    ],
)
def test_localisation(name: str, metric: Any) -> None:
    found = [metric(relevance, mask) for relevance, mask in zip(MAPS, MASKS, strict=True)]
    np.testing.assert_allclose(theirs(getattr(quantus, name)(**QUIET)), found, rtol=1e-6)


def test_complexity_of_efficient_mprt() -> None:
    expected = [quantus.functions.complexity_func.discrete_entropy(a=m.ravel(), x=m.ravel()) for m in MAPS]
    np.testing.assert_allclose([similarity.entropy(m) for m in MAPS], expected, rtol=1e-9)


def test_ssim() -> None:
    a, b = similarity.normalised(MAPS[0]), similarity.normalised(MAPS[1])
    expected = quantus.functions.similarity_func.ssim(a.ravel().reshape(12, 12), b, win_size=5, data_range=1.0)
    assert similarity.ssim(a, b) == pytest.approx(expected)


def test_relative_input_stability() -> None:
    """Their objective on one perturbation; ours is its maximum over several."""
    own, other = MAPS[:1, None], MAPS[1:2, None]
    noisy = X[:1, :1] * 1.1
    metric = quantus.RelativeInputStability(**QUIET)
    expected = metric.relative_input_stability_objective(X[:1, :1], noisy, own, other)
    found = stability.relative_input_stability(own[0], other, X[0, :1].astype(float), noisy.astype(float))
    assert found == pytest.approx(float(np.asarray(expected).ravel()[0]), rel=1e-3)


@pytest.fixture(scope="module")
def explain() -> Any:
    example = torch.from_numpy(X)
    return quantus_explain(relcompile.compile(BatchNormed(), example, rule="epsilon"))


def test_own_weights_run_the_explainer(explain: Any) -> None:
    network = BatchNormed()
    compiled = relcompile.compile(network, torch.from_numpy(X), rule="epsilon")
    with torch.no_grad():
        expected = compiled(torch.from_numpy(X), torch.from_numpy(Y))[1]
    np.testing.assert_array_equal(explain(model=network, inputs=X, targets=Y, device="cpu"), expected.numpy())


def test_other_weights_are_fed(explain: Any) -> None:
    network = BatchNormed()
    changed = randomise(network, layers_with_weights(network)[-2:], 3)
    found = explain(model=changed, inputs=X, targets=Y)
    compiled = relcompile.compile(changed, torch.from_numpy(X), rule="epsilon")
    with torch.no_grad():
        expected = compiled(torch.from_numpy(X), torch.from_numpy(Y))[1]
    assert_close(torch.from_numpy(found), expected, FLOAT32)
    assert np.abs(found - explain(model=network, inputs=X, targets=Y)).max() > 0.01 * np.abs(found).max()


class Another(BatchNormed):
    """The same tensors, another forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (small_cnn(), "another architecture"),
        (BatchNormed(1), None),
        (Another(), "does not predict|another architecture"),
    ],
)
def test_another_network_is_an_error(network: nn.Module, message: str | None, explain: Any) -> None:
    if message is None:
        assert explain(model=network, inputs=X, targets=Y).shape == X.shape
        return
    with pytest.raises(EvaluationError, match=message):
        explain(model=network, inputs=X, targets=Y)


def test_their_randomisation_metrics_see_the_change(explain: Any) -> None:
    """MPRT, from the top down: the similarity falls; with the same map in silence it would be 1 everywhere."""
    metric = quantus.MPRT(
        layer_order="top_down",
        similarity_func=quantus.similarity_func.correlation_spearman,
        return_average_correlation=False,
        skip_layers=False,
        **QUIET,
    )
    network = BatchNormed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = metric(
            model=network,
            x_batch=X,
            y_batch=Y,
            a_batch=explain(model=network, inputs=X, targets=Y),
            explain_func=explain,
        )
    scores = np.array(list(found.values()) if isinstance(found, dict) else found, dtype=float)
    assert scores.size
    assert np.nanmin(scores) < 0.9


def test_explainers_that_quantus_cannot_ask() -> None:
    explainer = relcompile.compile(small_cnn(), torch.from_numpy(X), rule="epsilon", target="argmax")
    with pytest.raises(EvaluationError, match="one input and one class"):
        quantus_explain(explainer)
