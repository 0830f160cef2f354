"""Entries and regions of an output with several axes: a class at a position, a pixel, an object."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.cli.main import main
from relcompile.errors import TargetError
from tests.compare import FLOAT32, FLOAT64, assert_close


class Tagger(nn.Module):
    """(N, T, 3) -> a score of each of 4 classes at each position, (N, T, 4); every position reads its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Conv1d(3, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(x.transpose(1, 2)).relu().transpose(1, 2))


def tagger() -> nn.Module:
    torch.manual_seed(0)
    return Tagger().double()


def segmenter() -> nn.Module:
    """(N, 2, 5, 6) -> a score of each of 3 classes at each pixel, (N, 3, 5, 6)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).double()


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


WORDS, PIXELS = drawn(3, 5, 3), drawn(3, 2, 5, 6)
CASES: dict[str, tuple[Any, Tensor, list[list[int]]]] = {
    "a class at a position": (tagger, WORDS, [[0, 3], [4, 0], [2, 2]]),
    "a class at a pixel": (segmenter, PIXELS, [[0, 4, 5], [2, 0, 0], [1, 2, 3]]),
}
EACH = pytest.mark.parametrize(("make", "x", "entries"), CASES.values(), ids=CASES)


@cache
def captured(make: Any) -> relcompile.CapturedModel:
    return relcompile.capture(make(), WORDS if make is tagger else PIXELS)


def chosen(output: Tensor, entries: Tensor) -> Tensor:
    """1 at each sample's entry, in the shape of the output."""
    one = torch.zeros_like(output)
    one[torch.arange(len(entries)), *entries.T] = 1.0
    return one


def gradient(make: Any, x: Tensor, weights: Tensor) -> Tensor:
    """Of the weighted sum of the output, by autograd."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad((make()(x) * weights).sum(), x)[0]


@EACH
def test_an_entry(make: Any, x: Tensor, entries: list[list[int]]) -> None:
    asked = torch.tensor(entries)
    output, relevance = captured(make).compile(rule="gradient", target="entry")(x, asked)
    assert_close(relevance, gradient(make, x, chosen(output, asked)), FLOAT64)
    same = captured(make).compile(rule="gradient", target="entry")(x, tuple(entries[1]))[1]
    assert_close(same, gradient(make, x, chosen(output, asked[1].expand_as(asked))), FLOAT64)


@EACH
def test_entries(make: Any, x: Tensor, entries: list[list[int]]) -> None:
    asked = torch.tensor([entries, entries[::-1], entries])[:, :2]
    output, relevance = captured(make).compile(rule="gradient", target="entries")(x, asked)
    for k in range(2):
        assert_close(relevance[:, k], gradient(make, x, chosen(output, asked[:, k])), FLOAT64)


@EACH
def test_a_region(make: Any, x: Tensor, entries: list[list[int]]) -> None:
    del entries
    output = make()(x).detach()
    for region in ((output > 0).double(), drawn(*output.shape)):
        found = captured(make).compile(rule="gradient", target="region")(x, region)[1]
        assert_close(found, gradient(make, x, region), FLOAT64)


@EACH
@pytest.mark.parametrize("rule", ["epsilon", "z+"])
def test_relevance_starts_with_the_score(make: Any, x: Tensor, entries: list[list[int]], rule: str) -> None:
    output, asked = make()(x).detach(), torch.tensor(entries)
    by_seed = captured(make).compile(rule=rule, target="seed")
    one = chosen(output, asked)
    for target, given, weights in (("entry", asked, one), ("region", one, one), ("region", output, output)):
        found = captured(make).compile(rule=rule, target=target)(x, given)[1]
        assert_close(found, by_seed(x, output * weights)[1], FLOAT64)


def test_positions_are_free_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any length, in ONNX Runtime, from Python and from the command line."""
    model = tagger().float()
    path = tmp_path / "tagger.onnx"
    relcompile.compile(model, WORDS.float(), rule="gradient", target="entry", dynamic=["x:1"]).save(path)
    production = relcompile.load(path)
    assert production.inputs[-1].shape == ("batch", 2)
    for length in (4, 9):
        x, asked = drawn(2, length, 3), torch.tensor([[length - 1, 1], [0, 3]])
        wanted = gradient(tagger, x, chosen(tagger()(x), asked))
        assert_close(production.explain(x.float().numpy(), target=asked.numpy()).relevance, wanted, FLOAT32)
    _, label, score = production.explain(x.float().numpy(), target=[0, 3]).chosen(1)
    assert (label, score) == ("entry (0, 3)", pytest.approx(tagger()(x)[1, 0, 3].item(), rel=1e-5))
    with pytest.raises(TargetError, match=r"axes have the sizes \[9, 4\]"):
        production.explain(x.float().numpy(), target=[9, 0])
    np.save(tmp_path / "x.npy", x.float().numpy())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["explain", "tagger.onnx", "x.npy", "-t", "8", "-t", "1"])
    assert [found.name for found in tmp_path.rglob("*entry*8,1*.npz")]


WRONG: dict[str, tuple[Any, str]] = {
    "a class": (1, r"target is 1; want int64 \(3, 2\): an index for every axis"),
    "too few indices": (torch.zeros(3, 1, dtype=torch.int64), "want int64"),
    "no integers": (torch.zeros(3, 2), "want int64"),
    "beyond the end": ((5, 0), r"axes behind the batch have the sizes \[5, 4\]"),
    "before the start": ((0, -1), r"axes behind the batch have the sizes \[5, 4\]"),
}


@pytest.mark.parametrize(("target", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_entry_is_refused(target: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        captured(tagger).compile(rule="gradient", target="entry")(WORDS, target)


def test_positions_are_no_classes() -> None:
    """Behind the batch is an axis whose size is the caller's: no class is chosen along it, nor all of it."""
    with pytest.raises(TargetError, match='target="entry"'):
        relcompile.compile(tagger(), WORDS, dynamic=["x:1"])


def test_a_number_has_no_entries() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    with pytest.raises(TargetError, match="no entries"):
        relcompile.compile(model, drawn(2, 3), target="entry")
