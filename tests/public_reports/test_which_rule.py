"""`--rule auto`: what is found in a network decides, and is said; and how much of a score reaches the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.backend.absorbed import absorbed_share
from tests.cli.test_cli import run


class Tokens(nn.Module):
    """The last state of a recurrent layer over embedded tokens."""

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(20, 8), layer(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))[0][:, -1])


class WrittenOut(nn.Module):
    """Attention without a module, its weights dropped out and moved on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
        return self.head((nn.functional.dropout(weights, 0.1, self.training).clone() @ x).mean(1))


class Block(nn.Module):
    """A convolution, and what it works on beside it."""

    def __init__(self, groups: int = 1, *, beside: bool = False) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1, groups=groups)
        self.head, self.beside = nn.LazyLinear(3), beside

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = self.conv(x).relu()
        return self.head((torch.cat([x, y], 1) if self.beside else x + y).flatten(1))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1))


IMAGE, TOKENS, ROWS = torch.randn(2, 3, 6, 6), torch.zeros(2, 4, dtype=torch.int64), torch.randn(2, 5, 8)
NETWORKS: dict[str, tuple[nn.Module, Tensor, str, str]] = {
    "transformer": (
        nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(40, 3)),
        ROWS,
        "attnlrp",
        "attention",
    ),
    "attention by hand": (WrittenOut(), ROWS, "attnlrp", "attention"),
    "LSTM": (Tokens(nn.LSTM), TOKENS, "attnlrp", "recurrent"),
    "GRU": (Tokens(nn.GRU), TOKENS, "attnlrp", "recurrent"),
    "depthwise": (Block(4), IMAGE, "gamma=0.1", "depthwise"),
    "groups": (Block(2), IMAGE, "gamma=0.1", "shortcuts"),
    "shortcut": (Block(), IMAGE, "gamma=0.1", "shortcuts"),
    "beside each other": (Block(beside=True), IMAGE, "gamma=0.1", "shortcuts"),
    "plain": (plain(), IMAGE, "epsilon", "plain"),
    "dense": (nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), ROWS[:, 0], "epsilon", "plain"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_structure_chooses_the_rule_and_the_metadata_say_why(name: str) -> None:
    model, x, rule, why = NETWORKS[name]
    model.eval()(x)
    metadata = relcompile.compile(model, x, rule="auto").metadata
    assert metadata.rule == rule
    assert why in (metadata.chosen or "")
    assert metadata.layers == relcompile.compile(model, x, rule=rule).metadata.layers


def test_a_rule_that_somebody_chose_has_no_reason() -> None:
    assert relcompile.compile(plain(), IMAGE, rule="z+").metadata.chosen is None


def unwrapped(table: str) -> str:
    """The cells of a table, one after the other."""
    return " ".join(table.replace("│", " ").split())


def test_the_report_and_inspect_say_what_was_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(plain(), tmp_path / "net.pt")
    code, out, _ = run(str(tmp_path / "net.pt"), "--rule", "auto", "--input", "1x3x6x6", capsys=capsys)
    assert code == 0
    assert "epsilon, chosen as it is a plain network" in unwrapped(out)
    printed = run("inspect", str(tmp_path / "net.auto.onnx"), capsys=capsys)[1]
    assert "epsilon, chosen as it is a plain network" in unwrapped(printed)


def narrow(dead: int) -> nn.Module:
    """Of 8 units in the middle, which are linear, `dead` have no positive contribution."""
    below, above = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
    torch.manual_seed(0)
    below.weight.data = torch.rand(8, 6)
    below.weight.data[:dead] *= -1
    above.weight.data = torch.rand(3, 8)
    above.weight.data[:, :dead] *= -1
    return nn.Sequential(nn.ReLU(), below, above)


@pytest.mark.parametrize("dead", [0, 3, 6])
def test_the_absorbed_share_is_what_reaches_no_input(dead: int) -> None:
    """All contributions of the upper layer are positive: a share of the score that ends at dead units is lost."""
    model, x = narrow(dead), torch.rand(1, 6)
    layers: list[Any] = list(model.children())
    relu, below, above = layers
    with torch.no_grad():
        contributions = above.weight[int(model(x).argmax())] * below(relu(x))[0]
    expected = float(contributions[:dead].sum() / contributions.sum())
    assert absorbed_share(relcompile.compile(model, x, rule="z+")) == pytest.approx(expected, abs=1e-5)
    assert absorbed_share(relcompile.compile(model, x, rule="z+,absorbed=shared")) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("dead", "said"), [(0, False), (7, True)])
def test_the_report_says_when_most_is_absorbed(
    dead: int, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(narrow(dead), tmp_path / "net.pt")
    code, out, _ = run(str(tmp_path / "net.pt"), "--input", "1x6", capsys=capsys)
    assert code == 0
    assert ("absorbed on the way" in out and "z+,absorbed=shared" in unwrapped(out)) is said
