"""Relevance maximisation in batches against sorting all samples at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relcompile.calibration.store import write_tensors
from relcompile.concepts.figure import crop
from relcompile.concepts.maximisation import CONCEPTS, Concepts, Maxima, channel_relevance
from relcompile.errors import CalibrationError

R = np.random.default_rng(0).normal(size=(13, 5, 3, 2))
CLASSES = np.arange(13) % 4


def found(batch: int, count: int = 4) -> Maxima:
    maxima = Maxima.none(5, count)
    for first in range(0, 13, batch):
        maxima = maxima.with_batch(channel_relevance(R[first : first + batch]), first, CLASSES[first : first + batch])
    return maxima


def test_shares_by_hand() -> None:
    relevance = np.array([[[[1.0, 2.0]], [[-4.0, 1.0]], [[0.0, 0.0]]]])
    assert channel_relevance(relevance) == pytest.approx(np.array([[0.5, -0.5, 0.0]]))
    assert channel_relevance(np.zeros((2, 3))) == pytest.approx(np.zeros((2, 3)))


@pytest.mark.parametrize("batch", [1, 4, 13])
def test_the_best_of_all_samples(batch: int) -> None:
    r, maxima = channel_relevance(R), found(batch)
    for channel in range(5):
        order = sorted((n for n in range(13) if r[n, channel] > 0), key=lambda n: (-r[n, channel], n))[:4]
        kept = maxima.samples[channel] >= 0
        assert list(maxima.samples[channel][kept]) == order
        assert list(maxima.classes[channel][kept]) == [n % 4 for n in order]
        assert maxima.scores[channel][kept] == pytest.approx(r[order, channel])
        assert not maxima.scores[channel][~kept].any()


def test_equally_relevant_samples_keep_their_order() -> None:
    maxima = Maxima.none(1, 2)
    for first in range(3):
        maxima = maxima.with_batch(np.array([[0.5]]), first, np.array([first]))
    assert maxima.samples.tolist() == [[0, 1]]


def test_a_file_of_concepts(tmp_path: Path) -> None:
    Concepts(found(4), {"layer": "conv", "count": 4}, 13).save(tmp_path / "c")
    again = Concepts.load(tmp_path / "c")
    assert (dict(again.facts), again.samples) == ({"layer": "conv", "count": 4}, 13)
    assert np.array_equal(again.maxima.samples, found(4).samples)
    assert np.array_equal(again.maxima.scores, found(4).scores)


GOOD = found(4).tensors
WRONG: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "nothing": ({}, "want scores, samples and classes"),
    "another dtype": ({**GOOD, "scores": GOOD["scores"].float()}, "want scores"),
    "another shape": ({**GOOD, "samples": GOOD["samples"][:2]}, "want scores"),
    "no matrix": ({name: tensor[0] for name, tensor in GOOD.items()}, "want scores"),
    "not finite": ({**GOOD, "scores": GOOD["scores"] * np.nan}, "not finite"),
    "too far": ({**GOOD, "samples": GOOD["samples"] + 13}, "samples that there are not"),
    "too low": ({**GOOD, "samples": GOOD["samples"] - 5}, "a sample is none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_hold_something_else(name: str, tmp_path: Path) -> None:
    tensors, message = WRONG[name]
    write_tensors(tmp_path / "c", CONCEPTS, tensors, {"samples": 13})
    with pytest.raises(CalibrationError, match=message):
        Concepts.load(tmp_path / "c")


@pytest.mark.parametrize(("place", "size"), [((2, 3), 3), ((10, 5), 3), ((0, 0), 5), ((0, 0), 12)])
def test_a_crop_holds_the_relevance(place: tuple[int, int], size: int) -> None:
    """A square of relevance in a map of 12 x 12 and a view of 24 x 24; 3, 4, 6, 8 and 12 are the sides of crops."""
    relevance, view = np.zeros((1, 12, 12)), np.zeros((24, 24), np.uint8)
    inside = np.s_[place[0] : place[0] + size, place[1] : place[1] + size]
    relevance[0][inside] = -1.0
    view[np.s_[2 * place[0] : 2 * (place[0] + size), 2 * place[1] : 2 * (place[1] + size)]] = 255
    cut = np.asarray(crop(Image.fromarray(view), relevance))
    assert cut.astype(bool).sum() >= 0.6 * view.astype(bool).sum()
    assert cut.shape[0] <= 2 * (size + 1)


def test_a_map_of_nothing_is_cut_nowhere() -> None:
    assert crop(Image.new("L", (24, 24)), np.zeros((12, 12))).size == (24, 24)
