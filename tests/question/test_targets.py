"""Target modes, forms of the explainer, several inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import relcompile
from relcompile.errors import ExportError, InputSpecError, RelcompileError, TargetError
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6, bias=False), nn.Linear(3, 6, bias=False)
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = (self.a(left) + self.b(right)).relu()
        return {"logits": self.head(hidden), "hidden": hidden}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()


class Named(nn.Module):
    """The network, whose input has a name."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("rule", ["z+", "gradient"])
def test_every_mode_explains_the_same(rule: str) -> None:
    model = network()
    output, by_index = relcompile.compile(model, X, rule=rule)(X, torch.tensor([2, 2, 2]))
    assert_close(relcompile.compile(model, X, rule=rule, target=2)(X)[1], by_index, FLOAT64)
    one_hot = torch.zeros_like(output)
    one_hot[:, 2] = 1.0
    seed = one_hot if rule == "gradient" else one_hot * output
    assert_close(relcompile.compile(model, X, rule=rule, target="seed")(X, seed)[1], by_index, FLOAT64)
    best = relcompile.compile(model, X, rule=rule)(X, output.argmax(1))[1]
    assert_close(relcompile.compile(model, X, rule=rule, target="argmax")(X)[1], best, FLOAT64)


@pytest.mark.parametrize(
    ("arguments", "names", "message"),
    [
        ([X, torch.tensor([0, 5, 1])], {}, r"target \[0, 5, 1\]: classes run from 0 to 4"),
        ([X, -1], {}, "classes run from 0 to 4"),
        ([X, torch.tensor([0.0, 1.0, 2.0])], {}, "dtype torch.float32"),
        ([X, torch.tensor([0, 1])], {}, r"shape \(2,\)"),
        ([X], {}, "takes x, target"),
        ([X, 1, 2], {}, "takes x, target"),
        ([X, 1], {"target": 1}, "takes x, target"),
        ([X], {"class_": 1}, "takes x, target"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list, names: dict, message: str) -> None:
    explainer = relcompile.compile(Named(), X)
    with pytest.raises(RelcompileError, match=message):
        explainer(*arguments, **names)


def test_a_class_may_be_a_number_or_a_name() -> None:
    explainer = relcompile.compile(Named(), X)
    _, expected = explainer(X, torch.tensor([2, 2, 2]))
    for arguments, names in (((X, 2), {}), ((X,), {"target": 2}), ((), {"target": torch.tensor([2, 2, 2]), "x": X})):
        assert torch.equal(explainer(*arguments, **names)[1], expected)


def test_class_map_is_explained_as_a_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 1, bias=False)).double()
    output, relevance = relcompile.compile(model, X, rule="lrp-0")(X, torch.tensor([0, 1, 2]))
    assert_conserved(relevance, output[torch.arange(3), torch.tensor([0, 1, 2])].sum((1, 2)).detach(), 1e-9)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, left, right = TwoInputs(), torch.randn(2, 4), torch.randn(2, 3)
    explainer = relcompile.compile(model, {"left": left, "right": right}, rule="epsilon")
    assert explainer.metadata.output_names == ["logits", "hidden", "relevance_left", "relevance_right"]
    logits, _, of_left, of_right = explainer(left, right, torch.tensor([1, 3]))
    score = logits.gather(1, torch.tensor([[1], [3]]))[:, 0].detach()
    assert_conserved(torch.cat([of_left, of_right], 1), score, 1e-3)
    explainer.save(tmp_path / "two.onnx")
    found = relcompile.load(tmp_path / "two.onnx").explain(left.numpy(), right.numpy(), target=[1, 3])
    assert_close(found.relevances["relevance_right"], of_right.numpy(), ONNX)
    only = relcompile.compile(model, {"left": left, "right": right}, rule="epsilon", explain=["right"])
    assert_close(only(left, right, torch.tensor([1, 3]))[2], of_right, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": 5}, TargetError, "5 classes"),
        ({"target": "best"}, TargetError, "best"),
        ({"explain": ["image"]}, InputSpecError, "image"),
        ({"example_inputs": torch.tensor(1.0)}, InputSpecError, "batch axis"),
        ({"example_inputs": [X, X]}, InputSpecError, "2 were given"),
    ],
    ids=["no such class", "no such mode", "no such input", "no batch", "too many"],
)
def test_what_does_not_exist_is_refused(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        relcompile.compile(network(), **{"example_inputs": X, **arguments})  # type: ignore[arg-type]


def test_pt2_file_computes_the_same(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(4, 5)).double()
    explainer, target = relcompile.compile(model, X), torch.tensor([0, 1, 2])
    explainer.save(tmp_path / "explainer.pt2")
    loaded = torch.export.load(tmp_path / "explainer.pt2").module()
    for actual, expected in zip(loaded(X, target), explainer(X, target), strict=True):
        assert_close(actual, expected, FLOAT64)


def test_explainer_runs_under_torch_compile() -> None:
    explainer, target = relcompile.compile(network(), X), torch.tensor([0, 1, 2])
    compiled = torch.compile(explainer, backend="eager", fullgraph=True)
    assert_close(compiled(X, target)[1], explainer(X, target)[1], FLOAT64)


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="suffix"):
        relcompile.compile(network(), X).save(tmp_path / "explainer.pth")


def test_model_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    relcompile.compile(model, X)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
