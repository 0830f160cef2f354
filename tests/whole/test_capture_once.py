"""A model is captured once, and many explainers are compiled from it: each as if it were the only one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import relcompile
from relcompile.errors import CaptureError, CompositeError
from relcompile.frontend import canonical

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"rule": "z+"},
    {"rule": "epsilon", "at": "0"},
    {"rule": "gradient", "target": "topk:2"},
    {"rule": "deeplift-rescale", "taps": ("2",)},
    {"rule": "root", "absorbed": True},
)


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def test_each_is_as_if_it_were_the_only_one() -> None:
    captured = relcompile.capture(model(), X)
    for question in (*QUESTIONS, *reversed(QUESTIONS)):
        once, alone = captured.compile(**question), relcompile.compile(model(), X, **question)
        assert [node.name for node in once.graph_module.graph.nodes] == [
            node.name for node in alone.graph_module.graph.nodes
        ]
        arguments = alone.example_arguments(3)
        for a, b in zip(once(*arguments), alone(*arguments), strict=True):
            assert torch.equal(a, b)


def test_weights_are_kept_once() -> None:
    captured = relcompile.capture(model(), X)
    stores = [
        {tensor.untyped_storage().data_ptr() for tensor in captured.compile(rule=rule).graph_module.buffers()}
        for rule in ("gradient", "epsilon")
    ]
    assert len(set.intersection(*stores)) >= 6  # weights and biases of three layers


def test_it_is_captured_once_and_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()

    def captured_graph(*arguments: Any) -> Any:
        seen.append("captured")
        return canonical.captured_graph(*arguments)

    monkeypatch.setattr("relcompile.compiler.captured_graph", captured_graph)
    captured = relcompile.capture(model(), X)
    with pytest.raises(CompositeError):
        captured.compile(rule="zplus")
    assert seen == []
    captured.compile(rule="z+")
    captured.compile(rule="epsilon")
    assert seen == ["captured"]


def test_weights_that_changed_are_refused() -> None:
    changed = model()
    captured = relcompile.capture(changed, X)
    captured.compile(rule="z+")
    with torch.no_grad():
        changed[0].weight.mul_(2)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(CaptureError, match="capture it again"):
        captured.compile(rule="epsilon")
