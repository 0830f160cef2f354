"""What goes in comes out right, or is refused in a sentence: calls of `forward`, modes, names, in-place operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.canonical import captured_graph
from relcompile.capture import call_arguments, in_eval_mode
from relcompile.errors import CaptureError, InputSpecError, MiscompilationError
from relcompile.inputs import example_inputs
from tests.compare import FLOAT64, assert_close

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MASK = (X > 0).to(X.dtype)


class Net(nn.Module):
    """A linear layer `fc` (4 to 3), and a case of `forward`."""

    def __init__(self, case: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.case = nn.Linear(4, 3), case
        self.double()

    def forward(self, x: Tensor) -> Any:
        return self.case(self, x)


class SimilarNames(nn.Module):
    """`block.1.weight` and `block_1.weight` differ in a dot; `b.weight` is `a.weight`; a buffer is called `target`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block, self.block_1 = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), nn.Linear(4, 4)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.register_buffer("target", torch.rand(4))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.block_1(self.block[1](x)).relu())) * self.target


class Two(nn.Module):
    """`mask` may be left out, `scale` too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 3).double()

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        x = x if mask is None else x * mask
        return self.fc(x if scale is None else x - scale)


def exported() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    return torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()


def in_place(_net: Net, x: Tensor) -> Tensor:
    return _net.fc(x.add_(1).mul_(2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "names that differ in a dot": SimilarNames,
    "torch.export": exported,
    "in-place ReLU first": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double(),
    "in-place sum first": lambda: Net(in_place),
    "None among the outputs": lambda: Net(lambda n, x: (n.fc(x), None)),
    "a number among the outputs": lambda: Net(lambda n, x: (n.fc(x), 3, x.shape[0])),
}


def prediction(model: nn.Module, *inputs: Tensor) -> Tensor:
    with in_eval_mode(model), torch.no_grad():
        result = model(*(x.clone() for x in inputs))
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", MODELS)
def test_prediction_is_the_models(name: str) -> None:
    model = MODELS[name]()
    before = X.clone()
    explainer = relcompile.compile(model, X, target=0)
    output, relevance = explainer(X)
    assert torch.equal(X, before)
    assert_close(output, prediction(model, X), FLOAT64)
    assert relevance.shape == X.shape


def test_shared_weights_are_stored_once() -> None:
    buffers = dict(relcompile.compile(SimilarNames(), X).graph_module.named_buffers())
    assert sum(name.startswith(("p_a_weight", "p_b_weight")) for name in buffers) == 1


def test_explainer_keeps_its_weights() -> None:
    model = SimilarNames()
    explainer = relcompile.compile(model, X, target=0)
    before = explainer(X)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    for actual, expected in zip(explainer(X), before, strict=True):
        assert torch.equal(actual, expected)


def test_every_part_stays_in_its_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4)).double().train()
    model[2].eval()
    relcompile.compile(model, X)
    assert [module.training for module in model.modules()] == [True, True, True, False]


# What is given, and the inputs of the explainer.
CALLS: dict[str, tuple[Any, list[str]]] = {
    "one tensor": (X, ["x"]),
    "by position": ([X, MASK], ["x", "mask"]),
    "by name, in another order": ({"mask": MASK, "x": X}, ["x", "mask"]),
    "one left out": ({"scale": MASK, "x": X}, ["x", "scale"]),
    "None": ([X, None, MASK], ["x", "scale"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_inputs_are_in_the_order_of_forward(name: str) -> None:
    given, wanted = CALLS[name]
    model, explainer = Two(), relcompile.compile(Two(), given, target=0)
    assert [record.name for record in explainer.metadata.inputs] == wanted
    inputs = dict(zip(wanted, (X, MASK), strict=False))
    args, kwargs = call_arguments(model, inputs)
    assert_close(explainer(*inputs.values())[0], model(*args, **kwargs).detach(), FLOAT64)


# What --input describes, and the sizes of the inputs.
SPECS: dict[str, tuple[list[str], dict[str, int]]] = {
    "by position": (["1x4", "1x5"], {"x": 4, "mask": 5}),
    "the others fill what is left": (["mask=1x5", "1x4"], {"x": 4, "mask": 5}),
    "the first by name": (["x=1x4", "1x5"], {"x": 4, "mask": 5}),
    "last first": (["scale=1x6", "x=1x4"], {"x": 4, "scale": 6}),
}


@pytest.mark.parametrize("name", SPECS)
def test_descriptions_fill_the_inputs_that_are_left(name: str) -> None:
    specs, sizes = SPECS[name]
    found = example_inputs(Two(), specs)
    assert [(name, tensor.shape[1]) for name, tensor in found.items()] == list(sizes.items())


def sourceless() -> nn.Module:
    namespace: dict[str, Any] = {}
    exec("def forward(self, x):\n  if x.sum() > 0: x = x + 1\n  return self.fc(x)", namespace)
    return type("Sourceless", (Net,), namespace)(lambda n, x: x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, type[Exception], str]] = {
    "TorchScript": (lambda: torch.jit.trace(nn.Linear(4, 3).double(), X), X, CaptureError, "that it was made from"),
    "no source": (sourceless, X, CaptureError, "<string>:2"),
    "no tensor": (lambda: Net(lambda n, x: None), X, CaptureError, "returns no tensor"),
    "tuple": (Two, {"x": (X, X)}, InputSpecError, "x is a tuple"),
    "bfloat16": (lambda: Two().bfloat16(), X.bfloat16(), InputSpecError, r"bfloat16.*\.float\(\)"),
    "no such input": (Two, {"image": X}, InputSpecError, "takes x, mask, scale, not image"),
    "one is missing": (Two, {"mask": X}, InputSpecError, "needs x too"),
    "two batches": (Two, [X, X[:2]], InputSpecError, "x 3, mask 2"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_cannot_be_captured_is_refused(name: str) -> None:
    make, given, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        relcompile.compile(make(), given)


def wrongly_lifted(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    """Weights come out of the capture changed."""

    def captured(*arguments: Any) -> Any:
        graph = captured_graph(*arguments)
        for buffer in graph.module.buffers():
            buffer.copy_(change(buffer))
        return graph

    monkeypatch.setattr("relcompile.compiler.captured_graph", captured)


@pytest.mark.parametrize(
    "change", [lambda w: w.flip(0), lambda w: w * 1.001, lambda w: w * torch.nan, torch.zeros_like]
)
def test_a_wrong_prediction_is_a_fault(change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    wrongly_lifted(monkeypatch, change)
    with pytest.raises(MiscompilationError, match="output by"):
        relcompile.compile(Two(), X)


# What a model may predict without being taken for miscompiled.
PREDICTIONS: dict[str, Callable[[Net, Tensor], Any]] = {
    "NaN": lambda n, x: n.fc(x) * torch.tensor([1.0, torch.nan, torch.inf], dtype=x.dtype),
    "zeros": lambda n, x: (n.fc(x), x * 0),
    "integers": lambda n, x: (n.fc(x), n.fc(x).argmax(1)),
    "noise": lambda n, x: (n.fc(x), torch.randn(3, 4)),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_right_prediction_passes(name: str) -> None:
    relcompile.compile(Net(PREDICTIONS[name]), X, target=0)
