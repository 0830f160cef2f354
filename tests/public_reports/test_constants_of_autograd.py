"""What autograd takes as a constant, in every spelling; and backwards that no graph of forward operators has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.cli import main
from relcompile.cli.commands import compile as compile_command
from relcompile.errors import CaptureError, RelcompileError
from tests.compare import FLOAT64, assert_close

Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Two layers a and b; `forward` is the case."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
        self.body = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def gate_in_block(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(net.a(x))
    return net.b(x) * gate


def divisor_in_block(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    with torch.no_grad():
        largest = h.abs().amax(1, keepdim=True)
    return h / largest


def inference_mode(net: Net, x: Tensor) -> Tensor:
    with torch.inference_mode():
        gate = torch.sigmoid(net.a(x))
    return net.b(x) * gate.clone()  # autograd saves no tensor of inference mode


@torch.no_grad()
def decorated(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * 2


def nested(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    with torch.no_grad():
        gate = torch.sigmoid(h)
        with torch.enable_grad():
            signal = torch.tanh(h) * gate
        gate = gate + signal
    return signal + net.b(x) * gate


def switched(net: Net, x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    gate = torch.sigmoid(x)
    torch.set_grad_enabled(True)
    return net.a(x) * gate


def in_place_on_a_constant(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(net.a(x))
        gate.mul_(2)
    return net.b(x) * gate


def frozen(net: Net, x: Tensor) -> Tensor:
    y = x.detach()
    y.requires_grad_(False)
    return net.a(x) * y


CONSTANTS: dict[str, Forward] = {
    "no_grad": gate_in_block,
    "a divisor": divisor_in_block,
    "inference_mode": inference_mode,
    "decorator": lambda net, x: net.a(x) * decorated(x),
    "nested": nested,
    "set_grad_enabled": switched,
    "in place": in_place_on_a_constant,
    ".data": lambda net, x: net.a(x) * torch.sigmoid(net.b(x)).data,
    ".detach()": lambda net, x: net.a(x) * torch.sigmoid(net.b(x)).detach(),
    "requires_grad_": frozen,
}


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (of_input,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    return of_input


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_gradient_is_that_of_autograd(name: str) -> None:
    model, x = Net(CONSTANTS[name]), torch.randn(3, 4, dtype=torch.float64)
    assert_close(relcompile.compile(model, x, rule="gradient", target=1)(x)[1], gradient(model, x), FLOAT64)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_mode_in_which_a_model_is_compiled_does_not_matter(mode: Callable[[], Any]) -> None:
    model, x = Net(lambda net, x: torch.tanh(net.a(x))), torch.randn(3, 4, dtype=torch.float64)
    with mode():
        explainer = relcompile.compile(model, x, rule="gradient", target=1)
    assert_close(explainer(x)[1], gradient(model, x), FLOAT64)


def test_an_input_whose_gradient_is_switched_off_is_a_constant() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x.requires_grad_(False)
        return net.a(x)

    with pytest.raises(RelcompileError, match="does not depend on x"):
        relcompile.compile(Net(forward), torch.randn(3, 4, dtype=torch.float64), rule="gradient", target=1)


def test_a_value_that_is_changed_behind_the_back_of_autograd_is_refused() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        with torch.no_grad():
            h.clamp_(0, 1)
        return h

    with pytest.raises(CaptureError, match="in place while gradients are off"):
        relcompile.compile(Net(forward), torch.randn(3, 4, dtype=torch.float64), rule="gradient")


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return -grad[0]


class Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.sign(x) * x

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return grad[0]


bound_early = Reverse.apply


def hooked(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    if h.requires_grad:
        h.register_hook(lambda grad: -grad)
    return torch.tanh(h)


LOST: dict[str, tuple[Forward, str]] = {
    "reversal": (lambda net, x: torch.tanh(bound_early(net.a(x))), "Reverse"),
    "straight through": (lambda net, x: Binarise.apply(net.a(x)), "Binarise"),
    "hook": (hooked, "a hook of a tensor"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_gradient_whose_backward_is_lost_is_refused_by_name(name: str) -> None:
    forward, what = LOST[name]
    model, x = Net(forward), torch.randn(3, 4, dtype=torch.float64)
    with pytest.raises(CaptureError, match=what):
        relcompile.compile(model, x, rule="gradient", target=1)
    relcompile.compile(model, x, rule="z+", target=1)  # relevance asks for no derivative


def test_the_derivative_of_the_forward_can_be_meant() -> None:
    model, x = Net(LOST["reversal"][0]), torch.randn(3, 4, dtype=torch.float64)
    explainer = relcompile.compile(model, x, rule="gradient", target=1, forward_derivative=True)
    assert_close(explainer(x)[1], -gradient(model, x), FLOAT64)


def test_the_command_line_takes_the_derivative_of_the_forward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[bool]()
    monkeypatch.setattr(
        compile_command, "compile_file", lambda _read, _specs, ask, *_, **__: asked.append(ask.forward_derivative)
    )
    for further in ([], ["--forward-derivative"]):
        monkeypatch.setattr(sys, "argv", ["relcompile", str(tmp_path / "model.pt"), "--rule", "gradient", *further])
        with pytest.raises(SystemExit):
            main.main()
    assert asked == [False, True], capsys.readouterr().err
