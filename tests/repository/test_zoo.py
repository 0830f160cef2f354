"""The zoo: what it measures on a network of three layers, how it says it, and where it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import zoo
from benchmarks.parts.specimen import Inputs, Specimen
from benchmarks.parts.zoo_page import EQUAL, Row, markdown, page


def perceptron() -> tuple[nn.Module, Inputs]:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)), {"input": torch.randn(2, 3)}


def looping() -> tuple[nn.Module, Inputs]:
    """A network without a graph."""
    return nn.Sequential(nn.Linear(3, 4), nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 1), 1)), {}


SPECIMEN = Specimen("own", "perceptron", "three-layers", perceptron)


@pytest.fixture(autouse=True)
def _same_numbers() -> object:
    with torch.random.fork_rng():
        yield


def test_every_step_is_taken_and_measured() -> None:
    row = Row("own", "perceptron", "three-layers")
    zoo.examine(SPECIMEN, row, list(zoo.STEPS))
    assert row.failure == ""
    assert row.steps == ("gradient", "conserve", "file")
    assert row.parameters == 31
    assert row.gradient is not None
    assert row.gradient < 1e-12
    assert row.unaccounted is not None
    assert row.unaccounted < 1e-10
    assert row.parity is not None
    assert row.parity < 1e-4
    assert "| own | perceptron | three-layers | 3.1e-05 M | yes | " in markdown([row])


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("timm", "test_vit"),  # patches, attention, layer norms
        ("transformers", "LlamaForCausalLM"),  # tokens, rotary positions, gates, root mean square norms
    ],
)
def test_a_sample_of_the_zoo(library: str, name: str) -> None:
    specimen = next(s for s in zoo.LIBRARIES[library]() if s.name == name)
    row = Row(library, specimen.family, name)
    zoo.examine(specimen, row, ["gradient"])
    assert row.failure == ""
    assert row.gradient is not None
    assert row.gradient < EQUAL


def test_a_step_that_fails_is_the_last() -> None:
    row = Row("own", "none", "looping")
    zoo.examine(Specimen("own", "none", "looping", looping), row, list(zoo.STEPS))
    assert row.failure.startswith("gradient: ")
    assert row.steps == ()
    text = page([row], [("own", "looping"), ("own", "waiting")])
    assert "| own | 1 | 0 | 0 of 0 | 0 of 0 | 0 of 0 | 1 |" in text
    assert "- own `looping`: gradient: " in text
    assert "## What was not run\n\nown `waiting`\n" in text


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = list[tuple[str, ...]]()

    def examined(_specimen: Specimen, row: Row, steps: list[str], _limit: float) -> Row:
        runs.append(row.steps)
        return Row(row.library, row.family, row.model, steps=(*row.steps, *steps))

    monkeypatch.setattr(zoo, "LIBRARIES", {"own": lambda: [SPECIMEN]})
    monkeypatch.setattr(zoo, "examined", examined)
    results = ["--results", str(tmp_path / "zoo.jsonl")]
    for steps in (["gradient"], ["gradient"], ["gradient", "file"]):
        zoo.main([*results, "--steps", *steps])
    assert runs == [(), ("gradient",)]
