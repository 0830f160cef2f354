"""Explainers for Quantus: its metrics of randomisation hand over other weights, and get the maps of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from relcompile.backend.explainer import Explainer
from relcompile.errors import EvaluationError
from relcompile.evaluation.fed import Architecture, Fed, Weights
from relcompile.frontend.canonical import weights_digest

ExplainFunc = Callable[..., NDArray[np.floating[Any]]]


def quantus_explain(explainer: Explainer) -> ExplainFunc:
    """An `explain_func` for Quantus that runs a compiled explainer.

    The weights of the model that Quantus hands over decide: those of the explainer run its graph, other weights of the
    same architecture are fed to a graph for any weights, compiled once. Never the same map in silence.

    Args:
        explainer: what `relcompile.compile` returned, for one input, with the class as its `target`.

    Returns:
        A function of `model`, `inputs` (N, ...) and `targets` (N,), numpy in, numpy out: relevance in the shape of the
        inputs. It raises an EvaluationError for a model of another architecture.

    Raises:
        EvaluationError: the explainer takes several inputs, or no class.
    """
    if len(explainer.metadata.inputs) != 1 or not explainer.metadata.target.takes_class:
        raise EvaluationError('Quantus gives one input and one class: compile with target="index" for one input')
    return _Explain(explainer)


class _Explain:
    def __init__(self, explainer: Explainer) -> None:
        self._explainer, self._metadata = explainer, explainer.metadata
        self._example = explainer.examples[self._metadata.inputs[0].name]
        self._fed: Fed | None = None
        self._weights: Weights | None = None

    def __call__(
        self, model: nn.Module, inputs: NDArray[Any], targets: NDArray[Any], **_settings: Any
    ) -> NDArray[np.floating[Any]]:
        x = torch.as_tensor(np.asarray(inputs), dtype=self._example.dtype)
        classes = torch.as_tensor(np.asarray(targets)).long().reshape(-1)
        fed = self._fed_with(model)
        with torch.no_grad():
            outputs = self._explainer(x, classes) if fed is None else fed.explain(self._of(fed, model), x, classes)
            self._check(model, x, outputs[0])
        return outputs[len(self._metadata.outputs)].numpy()

    def _fed_with(self, model: nn.Module) -> Fed | None:
        """The graph for other weights than the explainer's; None for its own."""
        if weights_digest(model) == self._metadata.weights_sha256:
            return None
        if self._fed is None:
            fed = Fed(Architecture(model, self._example), self._explainer.options)
            if (fed.metadata.layers, fed.metadata.inputs) != (self._metadata.layers, self._metadata.inputs):
                raise EvaluationError(
                    f"the explainer was compiled for another architecture than {type(model).__name__}"
                )
            self._fed = fed
        return self._fed

    def _of(self, fed: Fed, model: nn.Module) -> Weights:
        if self._weights is None or self._weights.digest != weights_digest(model):
            self._weights = fed.architecture.weights(model)
        return self._weights

    def _check(self, model: nn.Module, x: torch.Tensor, found: torch.Tensor) -> None:
        """The graph predicts what the model predicts: then it is this model's."""
        own: Any = model.eval()(x)
        expected = own if isinstance(own, torch.Tensor) else own[0]
        if found.shape != expected.shape or not torch.allclose(
            found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        ):
            raise EvaluationError(f"the explainer does not predict what {type(model).__name__} predicts")
