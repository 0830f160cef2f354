"""What an exported file holds, and what the self-check refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import relcompile
from relcompile.backend import check_runtime as parity
from relcompile.backend import onnx_file as export
from relcompile.errors import ExportError
from relcompile.runtime import production as runtime
from tests.compare import ONNX, assert_close


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))


X = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def test_small_stabilisers_survive(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[1] = -model[0].weight[1].abs()  # type: ignore[index]
        model[0].bias.fill_(1.0)  # type: ignore[union-attr]
    x = X.abs()  # unit 1 has no positive contribution, but a positive output
    explainer = relcompile.compile(model, x, rule="z+")
    explainer.save(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(x.numpy(), target=0)
    assert_close(found.relevance, explainer(x, torch.tensor([0, 0]))[1].numpy(), ONNX)


def test_file_keeps_the_contract(tmp_path: Path) -> None:
    relcompile.compile(network(), X, rule="z+", absorbed=True).save(tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    assert [value.name for value in model.graph.input] == ["input", "target"]
    assert [value.name for value in model.graph.output] == ["output", "relevance", "absorbed"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*model.graph.input, *model.graph.output)} == {
        "batch"
    }
    inside = {size.dim_param for value in model.graph.value_info for size in value.type.tensor_type.shape.dim}
    assert inside == {"", "batch"}  # numbers, and one name
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.key for entry in model.metadata_props] == ["relcompile", "relcompile_sha256"]
    assert b"site-packages" not in model.SerializeToString()
    assert str(tmp_path).encode() not in model.SerializeToString()


def test_what_the_exporter_says_is_told_without_its_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("\n\x1b[96m[torch.onnx]\x1b[0m no decomposition for \x1b[1;31maten.x\x1b[0m\nmore")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    explainer = relcompile.compile(network(), X, rule="z+")
    with pytest.raises(ExportError, match=r"explainer: \[torch.onnx\] no decomposition for aten.x$"):
        export.to_onnx(export.lowered(explainer.graph_module), explainer)


def test_self_check_refuses_wrong_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = relcompile.compile(network(), X, rule="z+")
    lowered = export.lowered

    def wrong(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
        graph = lowered(module)
        name, weight = next((n, b) for n, b in graph.named_buffers() if b.dim() == 4)
        setattr(graph, name, weight * 1.05)
        return graph

    monkeypatch.setattr(export, "lowered", wrong)
    with pytest.raises(ExportError, match="disagree"):
        explainer.save(tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_absorbed_relevance_adds_up() -> None:
    model = network().double()
    explainer = relcompile.compile(model, X.double(), rule="epsilon=0.01", absorbed=True)
    output, relevance, absorbed = explainer(X.double(), torch.tensor([0, 2]))
    score = output[torch.arange(2), torch.tensor([0, 2])].detach()
    assert absorbed.shape == (2, len(explainer.metadata.layers))
    assert_close(relevance.sum((1, 2, 3)) + absorbed.sum(1), score, 1e-10)
    assert absorbed.abs().max() > 1e-3  # the biases do absorb something here


def test_one_sample_at_a_kink_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relevance of one sample in five is another; of three in five it is a defect."""
    explainer = relcompile.compile(network(), X, rule="gradient")
    names = explainer.metadata.output_names

    def parity_with(wrong: int) -> parity.Parity:
        class Runtime:
            seen = 0

            def run(self, feeds: dict) -> dict:
                values = [v.clone() for v in explainer(*map(torch.from_numpy, feeds.values()))]
                values[1][: max(wrong - self.seen, 0)] *= 1.5
                self.seen += len(values[1])
                return dict(zip(names, (v.numpy() for v in values), strict=True))

        monkeypatch.setattr(runtime, "load", lambda path, device: Runtime())
        return parity.check_parity(explainer, Path("unused"))

    assert parity_with(1).worst == 0
    with pytest.raises(ExportError, match="disagree"):
        parity_with(3)


def test_a_probability_may_be_next_to_nothing(tmp_path: Path) -> None:
    """ONNX Runtime's sigmoid ends at 1e-8; the score under it is explained all the same, the flat sigmoid is not."""
    model, example = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), torch.ones(1, 4)
    nn.init.constant_(model.get_parameter("0.weight"), 0.25)
    nn.init.constant_(model.get_parameter("0.bias"), -25.0)
    relcompile.compile(model, example, rule="epsilon").save(tmp_path / "x.onnx")
    found = runtime.load(tmp_path / "x.onnx").explain(example.numpy(), target=0)
    assert_close(found.relevance, torch.full((1, 4), 0.25), ONNX)
    with pytest.raises(ExportError, match="relevance 1"):
        relcompile.compile(model, example, rule="gradient").save(tmp_path / "y.onnx")


@pytest.mark.parametrize(("keepdim", "traced"), [(True, 0), (False, 1)])
def test_a_graph_that_onnx_can_hold_is_not_traced(
    keepdim: bool, traced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`squeeze` of several axes is what the exporter has to take apart."""

    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = x.amax((2, 3), keepdim=True)
            return self.layer(pooled.reshape(-1, 2) if keepdim else torch.squeeze(pooled, (2, 3)))

    explainer, calls = relcompile.compile(Squeezed(), X, rule="gradient"), list[int]()
    export = torch.export.export

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return export(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    explainer.save(tmp_path / "x.onnx")
    assert len(calls) == traced
    found = relcompile.load(tmp_path / "x.onnx", device="cpu").explain(X.numpy(), target=1)
    assert_close(found.relevance, explainer(X, torch.tensor([1, 1]))[1].numpy(), ONNX)
