"""The rule `gradient` is `torch.autograd.grad`, on architectures that nobody here wrote."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.backend.onnx_file import lowered
from tests.compare import FLOAT32, FLOAT64, assert_close

pytestmark = pytest.mark.sampled(13)

GATE: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (64, {}),
    "mobilenet_v3_small": (64, {}),
    "resnet18": (48, {}),
    "shufflenet_v2_x0_5": (64, {}),
    "squeezenet1_1": (48, {}),
    "vgg11_bn": (48, {}),
}
SLOW: dict[str, tuple[int, dict[str, Any]]] = {
    "densenet121": (48, {}),
    "efficientnet_b0": (48, {}),
    "googlenet": (48, {"aux_logits": False, "init_weights": False}),
    "inception_v3": (96, {"aux_logits": False, "init_weights": False}),
    "mnasnet0_5": (48, {}),
    "mobilenet_v2": (48, {}),
    "regnet_y_400mf": (48, {}),
    "resnet50": (48, {}),
    "resnext50_32x4d": (48, {}),
}
ALL = [
    *(pytest.param(name, *case, id=name) for name, case in GATE.items()),
    *(pytest.param(name, *case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()),
]
TARGET = torch.tensor([0, 7, 3])


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[torch.arange(len(x)), TARGET].sum(), leaf)[0]


@pytest.mark.parametrize(("name", "size", "settings"), ALL)
def test_gradient_is_autograd(name: str, size: int, settings: dict[str, Any], network) -> None:
    model = network(name, **settings)
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    explainer = relcompile.compile(model, x[:2], rule="gradient")
    forward_only = lowered(explainer.graph_module)
    output, expected = model(x).detach(), gradient(model, x)
    assert expected.abs().max() > 0
    for module, single, tolerance in (
        (explainer, False, FLOAT64),
        (forward_only, False, FLOAT64),
        (explainer, True, FLOAT32),
        (forward_only, True, FLOAT32),
    ):
        run, sample = (module.float(), x.float()) if single else (module, x)
        with torch.no_grad():
            predicted, relevance = run(sample, TARGET)
        assert relevance.dtype == sample.dtype
        assert_close(predicted, output, tolerance)
        assert_close(relevance, expected, tolerance)
