"""Second derivatives in closed form equal autograd's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passes.graphs.emitter import Emitter
from passes.operators.activation import ActivationCall
from passes.pipelines import CANONICALIZE
from passes.runner import run_passes
from passes.stages import verify_canonical, verify_captured
from passes.views.active import describe_active
from relcompile.frontend.capture import capture
from tests.compare import FLOAT64, assert_close

Function = Callable[[Tensor], Tensor]

SMOOTH: dict[str, Function] = {
    "gelu": functional.gelu,
    "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "mish": functional.mish,
    "softplus": functional.softplus,
    "softplus 2": lambda x: functional.softplus(x, 2.0, 5.0),
    "sigmoid": torch.sigmoid,
    "log_sigmoid": functional.logsigmoid,
    "tanh": torch.tanh,
    "elu": lambda x: functional.elu(x, 1.5),
    "selu": functional.selu,
    "hardswish": functional.hardswish,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
}
POSITIVE: dict[str, Function] = {
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "pow 1.5": lambda x: x**1.5,
}
KINKED: dict[str, Function] = {
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "hardtanh": functional.hardtanh,
    "hardsigmoid": functional.hardsigmoid,
    "relu6": functional.relu6,
    "threshold": lambda x: functional.threshold(x, 0.1, 20.0),
    "abs": torch.abs,
}


class Pointwise(nn.Module):
    """One function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def written(function: Function, x: Tensor) -> Tensor:
    """f'' as the graph has it."""
    module = capture(Pointwise(function), {"x": x}).module
    run_passes(module, CANONICALIZE, keeps=verify_captured, ensures=verify_canonical)
    (call,) = describe_active(Emitter(module), ("x",), 0).values()
    assert isinstance(call, ActivationCall)
    module.graph.output_node().args = ((call.curvature().node,),)
    module.recompile()
    return module(x)[0]


def by_autograd(function: Function, x: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    slope = torch.autograd.grad(function(point).sum(), point, create_graph=True)[0]
    return torch.autograd.grad(slope.sum(), point)[0]


@pytest.mark.parametrize("name", [*SMOOTH, *POSITIVE])
def test_second_derivative_equals_autograd(name: str) -> None:
    x = torch.linspace(-3.7, 4.1, 40, dtype=torch.float64).reshape(4, 10)
    x = x if name in SMOOTH else x.abs() + 0.3
    function = {**SMOOTH, **POSITIVE}[name]
    assert_close(written(function, x), by_autograd(function, x), FLOAT64)


@pytest.mark.parametrize("name", KINKED)
def test_second_derivative_of_a_piecewise_linear_function_is_zero(name: str) -> None:
    x = torch.linspace(-3.7, 4.1, 40, dtype=torch.float64).reshape(4, 10)
    assert not written(KINKED[name], x).any()


def test_second_derivative_of_logit() -> None:
    x = torch.linspace(0.05, 0.9, 12, dtype=torch.float64).reshape(3, 4)
    assert_close(written(torch.logit, x), by_autograd(torch.logit, x), FLOAT64)
