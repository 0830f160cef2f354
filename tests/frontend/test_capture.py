"""What goes in comes out right, or is refused in a sentence: calls of `forward`, modes, names, in-place operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from passes.errors import MiscompilationError
from relcompile.cli.input_specs import example_inputs
from relcompile.errors import CaptureError, InputSpecError
from relcompile.frontend.canonical import captured_graph
from relcompile.frontend.capture import call_arguments, in_eval_mode
from tests.compare import FLOAT64, ONNX, assert_close

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


REFUSED: dict[str, tuple[Callable[[], Any], Any, type[Exception], str]] = {
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


def test_a_branch_on_values_is_one_message(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaptureError, match="decides by the values of a tensor"):
        relcompile.compile(sourceless(), X)
    assert capfd.readouterr() == ("", "")


# Outputs, the position that is asked for, and the name of the one that is explained.
OUTPUTS: dict[str, tuple[Callable[[Net, Tensor], Any], int, str]] = {
    "the only floating point one": (lambda n, x: (n.fc(x).argmax(1), n.fc(x)), 0, "output_1"),
    "the one that is asked for": (lambda n, x: {"a": n.fc(x), "b": 2 * n.fc(x)}, 1, "b"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_explained_output(name: str) -> None:
    case, position, explained = OUTPUTS[name]
    explainer = relcompile.compile(Net(case), X, output=position, target=0, rule="gradient")
    assert explainer.metadata.explained == explained
    scale = 2.0 if explained == "b" else 1.0
    assert_close(explainer(X)[-1], (scale * Net(case).fc.weight[:1].detach()).expand(3, 4), FLOAT64)


NOTHING_TO_EXPLAIN: dict[str, tuple[Callable[[Net, Tensor], Any], dict[str, Any], str]] = {
    "no such output": (lambda n, x: (n.fc(x), x * 2), {"output": 2}, "0: output_0 float64, 1: output_1 float64"),
    "integers": (lambda n, x: n.fc(x).argmax(1), {}, "0: output int64.*--explained-output"),
    "one of several": (lambda n, x: (n.fc(x) > 0, n.fc(x), x * 2), {}, "0: output_0 bool"),
    "constant": (lambda n, x: n.fc.weight[:1].expand(x.shape[0], 4), {}, "output does not depend on x"),
    "comparison": (lambda n, x: (n.fc(x) > 0).to(x.dtype), {}, "does not depend on x, or by way of integers"),
}


@pytest.mark.parametrize("name", NOTHING_TO_EXPLAIN)
def test_an_output_without_relevance_is_refused(name: str) -> None:
    case, settings, message = NOTHING_TO_EXPLAIN[name]
    with pytest.raises(InputSpecError, match=message):
        relcompile.compile(Net(case), X, **settings)


def test_an_input_that_is_not_read_has_no_relevance() -> None:
    model = Net(lambda n, x: n.fc(x))
    model.forward = lambda x, unused: model.fc(x)  # type: ignore[method-assign]
    assert not relcompile.compile(model, [X, MASK], target=0)(X, MASK)[-1].any()
    with pytest.raises(InputSpecError, match="does not depend on unused"):
        relcompile.compile(model, [X, MASK], explain=["unused"])


OVER_THE_BATCH: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "mean over axis 0": lambda n, x: n.fc(x - x.mean(0)),
    "mean": lambda n, x: n.fc(x - x.mean()),
    "sum over axis 0": lambda n, x: n.fc(x / x.sum(0)),
    "another axis": lambda n, x: n.fc((x.T - x.T.mean(1, keepdim=True)).T),
    "flattened": lambda n, x: n.fc(x - x.flatten().mean(0)),
}


@pytest.mark.parametrize("name", OVER_THE_BATCH)
def test_values_over_the_batch_are_refused(name: str) -> None:
    with pytest.raises(CaptureError, match=r"(?s)samples of a batch see each other.*test_capture\.py:\d+: "):
        relcompile.compile(Net(OVER_THE_BATCH[name]), X, rule="gradient")


def test_another_axis_0_is_not_the_batch() -> None:
    explainer = relcompile.compile(Net(lambda n, x: n.fc(x) - x.T.mean(0)[:, None]), X, rule="gradient", target=0)
    assert_close(explainer(X)[1], (Net(lambda n, x: x).fc.weight[:1].detach() - 0.25).expand(3, 4), FLOAT64)


def takes(name: str) -> nn.Module:
    """A model whose forward has a parameter of that name."""
    namespace: dict[str, Any] = {}
    exec(f"def forward(self, {name}): return self.fc({name})", namespace)
    return type("Takes", (Net,), namespace)(lambda n, x: x)


SAME_NAMES: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "target": (takes("target"), {}, "'target' is an input of the model and the input for the target"),
    "noise": (takes("noise"), {"rule": "smoothgrad"}, "'noise' is .* an input for noise"),
    "output": (takes("output"), {}, "'output' is an input of the model and an output of the model"),
    "relevance": (takes("relevance"), {}, "'relevance' is an input of the model and an output with relevance"),
    "absorbed": (takes("absorbed"), {"absorbed": True}, "'absorbed' is .* the output of a report"),
    "roots": (takes("roots"), {"rule": "root", "roots": True}, "'roots' is .* the output of a report"),
    "key of an input": (Net(lambda n, x: {"x": n.fc(x), "y": x * 2}), {}, "'x' is an input .* an output"),
    "key relevance": (Net(lambda n, x: {"relevance": n.fc(x), "y": x * 2}), {}, "an output of .* with relevance"),
    "nested keys": (Net(lambda n, x: {"a_b": n.fc(x), "a": {"b": x * 2}}), {}, "'a_b' is an output .* an output"),
}


@pytest.mark.parametrize("name", SAME_NAMES)
def test_names_of_two_values_are_refused(name: str) -> None:
    model, settings, message = SAME_NAMES[name]
    with pytest.raises(InputSpecError, match=message):
        relcompile.compile(model, X, **settings)


def twice(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    y = net.fc(x)
    return y, y, y


SAME_VALUES: dict[str, tuple[nn.Module, str]] = {
    "an output thrice": (Net(twice), "z+"),
    "an input": (Net(lambda n, x: (n.fc(x), x, x[:])), "z+"),
    "the relevance": (Net(lambda n, x: (n.fc(x), n.fc.weight[:1].expand(x.shape[0], 4))), "gradient"),
    "an input called noise": (takes("noise"), "z+"),
    "an input called roots": (takes("roots"), "z+"),
    "a buffer called target": (SimilarNames(), "epsilon"),
}


@pytest.mark.parametrize("name", SAME_VALUES)
def test_values_with_several_names_can_be_saved(name: str, tmp_path: Path) -> None:
    model, rule = SAME_VALUES[name]
    explainer, target = relcompile.compile(model.float(), X.float(), rule=rule), torch.tensor([0, 1, 2])
    explainer.save(tmp_path / "explainer.onnx")
    found = relcompile.load(tmp_path / "explainer.onnx").run(
        {explainer.metadata.inputs[0].name: X.float().numpy(), "target": target.numpy()}
    )
    for actual, expected in zip(found.values(), explainer(X.float(), target), strict=True):
        assert_close(actual, expected, ONNX)


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
    "zeros": lambda n, x: (n.fc(x), x * 0),
    "integers": lambda n, x: (n.fc(x), n.fc(x).argmax(1)),
    "noise": lambda n, x: (n.fc(x), torch.randn(3, 4)),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_right_prediction_passes(name: str) -> None:
    relcompile.compile(Net(PREDICTIONS[name]), X, target=0)


def test_a_check_of_numbers_is_no_part_of_a_graph() -> None:
    model = Net(lambda net, x: net.fc(torch.linalg.inv(x[:, None] + 9 * torch.eye(4).double())[:, 0]))
    with pytest.raises(CaptureError, match=r"checks numbers as it runs: test_capture.py:\d+: .*linalg.inv_ex"):
        relcompile.compile(model, X, rule="gradient")
