"""Relevance that starts at a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import relcompile
from relcompile.errors import TargetError
from tests.compare import ONNX, assert_close
from tests.question.networks import TARGET, X, captured, needs, residual

EXACT = 1e-12  # float64, the same nodes but for R = x m and m = R / x at the cut
RULES = (
    "gradient",
    "gradient*input",
    "lrp-0",
    "epsilon",
    "relative-epsilon",
    "gamma",
    "z+",
    "alpha2beta1",
    "w2",
    "flat",
    "excitation-backprop",
    "contrastive-excitation-backprop",
    "guided-backprop",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "montavon",
    "deeplift-rescale",
    "root-v1",
)


@pytest.mark.parametrize("layer", ["joined", "branch"])
@pytest.mark.parametrize("rule", RULES)
def test_two_halves_are_the_whole(rule: str, layer: str) -> None:
    _, whole, cut = captured().compile(rule=rule, taps=[layer], **needs(rule))(X, TARGET)
    lower = captured().compile(rule=rule, start=layer, **needs(rule))
    output, below = lower(X, cut)
    if layer == "branch":  # the way around it
        rest = captured().compile(rule=rule, masks=[layer], **needs(rule))
        below = below + rest(X, TARGET, torch.zeros(3, 4, dtype=torch.float64))[1]
    if not (rule == "guided-backprop" and layer == "branch"):  # max(a, 0) + max(b, 0) is not max(a + b, 0)
        assert_close(below, whole, EXACT)
    assert_close(output, residual()(X), EXACT)


def test_a_gradient_starts_with_a_cotangent() -> None:
    model, x = residual(), X.clone().requires_grad_()
    v = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stem = model.get_submodule("stem")(x).relu()
    pooled = model.get_submodule("pool")((stem + model.get_submodule("branch")(stem)).relu())
    (expected,) = torch.autograd.grad((pooled * v).sum(), x)
    assert_close(captured().compile(rule="gradient", start="pool")(X, v)[1], expected, EXACT)


def test_what_lies_above_is_not_walked() -> None:
    whole, lower = (captured().compile(rule="z+", start=start) for start in (None, "stem"))
    assert len(lower.graph_module.graph.nodes) < len(whole.graph_module.graph.nodes) / 2 + 10
    assert lower.metadata.start == "stem"
    assert lower.metadata.target.takes_seed


def test_a_file_starts_at_a_layer(tmp_path: Path) -> None:
    model, x = residual().float(), X.float()
    whole = relcompile.compile(model, x, rule="z+", taps=["pool"])
    explainer = relcompile.compile(model, x, rule="z+", start="pool")
    explainer.save(tmp_path / "start.onnx")
    _, relevance, cut = whole(x, TARGET)
    loaded = relcompile.load(tmp_path / "start.onnx", device="cpu")
    explanation = loaded.explain(x.numpy(), target=cut.numpy())
    assert loaded.metadata.start == "pool"
    assert_close(explanation.relevance, relevance, ONNX)
    assert_close(explanation.output, model(x), ONNX)
    with pytest.raises(TargetError, match=r"target wants float32 \['batch', 4, 4, 4\]"):
        loaded.explain(x.numpy(), target=x.numpy())


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a class": ({"target": 3}, TargetError, "target 3 chooses from the output"),
    "the best class": ({"target": "argmax"}, TargetError, "leave the target out"),
    "read above": ({"at": "head"}, relcompile.UnknownLayerError, "no layer called 'head'"),
    "no layer": ({"start": "nothing"}, relcompile.UnknownLayerError, "no layer called 'nothing'"),
    "two walks": ({"rule": "contrastive-lrp"}, relcompile.RelcompileError, "no seed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_start_there(name: str) -> None:
    wrong, error, message = WRONG[name]
    options: dict[str, Any] = {"start": "pool", **wrong}
    with pytest.raises(error, match=message):
        captured().compile(**options)


def test_gradients_are_linear_in_the_start() -> None:
    explainer = captured().compile(rule="gradient", start="pool")
    v: Tensor = torch.ones(3, 4, 4, 4, dtype=torch.float64)
    assert_close(explainer(X, v * 3)[1], explainer(X, v)[1] * 3, EXACT)
