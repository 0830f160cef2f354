"""Calibrations and states that are not what `relcompile calibrate` wrote: refused, each by what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from relcompile.calibration import store
from relcompile.calibration.data import open_folder
from relcompile.calibration.observer import Observer
from relcompile.calibration.state import StateFile
from relcompile.calibration.store import Calibration
from relcompile.errors import CalibrationError
from relcompile.preprocessing import Preprocessing
from tests.cli.test_cli import small_network

GOOD: dict[str, Any] = {"weights_sha256": "ab" * 32, "estimator": "relu", "samples": 4}
DEEP = '{"kind":' * 20_000


def write(path: Path, kind: str, tensors: dict[str, torch.Tensor], facts: Any) -> None:
    """With the checksum that belongs to it: only what it says is wrong."""
    if isinstance(facts, dict):
        facts = {"kind": kind, "format": store._FORMAT, **facts}
        facts["sha256"] = store._digest(tensors, facts)
    safetensors.torch.save_file(tensors, path, {"relcompile": facts if isinstance(facts, str) else json.dumps(facts)})


# facts, part of the message
FACTS: dict[str, tuple[Any, str]] = {
    "a list": ([], "its facts are a list, not a JSON object"),
    "a number": (3, "its facts are 3, not a JSON object"),
    "nothing": (None, "its facts are null, not a JSON object"),
    "no JSON": ("{", "not a calibration file"),
    "deep": (DEEP[: store._LONGEST_FACTS], "recursion"),
    "long": (DEEP, "160,000 characters"),
    "no keys": ({}, "weights_sha256 is null, not a checksum"),
    "a checksum that is none": ({**GOOD, "weights_sha256": "\x1b[31m"}, r'weights_sha256 is "\u001b[31m"'),
    "a checksum that is a number": ({**GOOD, "weights_sha256": 7}, "weights_sha256 is 7"),
    "no such estimator": ({**GOOD, "estimator": "magic"}, 'estimator is "magic"'),
    "an estimator that is a list": ({**GOOD, "estimator": ["relu"]}, "estimator is a list"),
    "-4 samples": ({**GOOD, "samples": -4}, "samples is -4"),
    "abc samples": ({**GOOD, "samples": "abc"}, 'samples is "abc"'),
    "null samples": ({**GOOD, "samples": None}, "samples is null"),
    "NaN samples": ({**GOOD, "samples": float("nan")}, "samples is NaN"),
    "half a sample": ({**GOOD, "samples": 1.5}, "samples is 1.5"),
    "true samples": ({**GOOD, "samples": True}, "samples is true"),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_a_calibration(name: str, tmp_path: Path) -> None:
    facts, message = FACTS[name]
    path = tmp_path / "p.safetensors"
    write(path, "calibration", {"layer": torch.ones(2)}, facts)
    with pytest.raises(CalibrationError) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_patterns_are_numbers(value: float, tmp_path: Path) -> None:
    write(tmp_path / "p", "calibration", {"layer": torch.tensor([1.0, value])}, GOOD)
    with pytest.raises(CalibrationError, match="the pattern of layer layer is not finite"):
        Calibration.load(tmp_path / "p")


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    Calibration({"layer": torch.arange(6.0)}, "ab" * 32, "relu", 4).save(path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(whole), 200, replace=False):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(random.integers(8))]) + whole[place + 1 :])
        try:
            found = Calibration.load(path)
        except CalibrationError:
            continue
        assert torch.equal(found.patterns["layer"], torch.arange(6.0))  # a space in the JSON became another
        assert (found.weights_sha256, found.estimator, found.samples) == ("ab" * 32, "relu", 4)


def observer() -> Observer:
    return Observer(small_network(), torch.zeros(1, 3, 16, 16))


# what is done to the sums of a state, and its facts; part of the message
STATES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "-4 samples": (None, {"samples": -4}, "samples is -4, not a number from 1 to 20"),
    "no samples": (None, {"samples": 0}, "samples is 0"),
    "more samples than data": (None, {"samples": 21}, "samples is 21"),
    "abc samples": (None, {"samples": "abc"}, 'samples is "abc"'),
    "null samples": (None, {"samples": None}, "samples is null"),
    "other data": (None, {"samples": 4, "data": "y"}, "made with another data"),
    "no facts": (None, {}, "made with another data"),
    "a sum is missing": (lambda sums: sums.pop("0/x"), {"samples": 4}, "does not fit layer 0: x should be"),
    "all sums are missing": (lambda sums: sums.clear(), {"samples": 4}, "does not fit layer 0"),
    "another shape": (lambda sums: sums.update({"0/x": torch.zeros(3)}), {"samples": 4}, "x should be (4, 3, 3, 3)"),
    "another dtype": (lambda sums: sums.update({"0/x": sums["0/x"].int()}), {"samples": 4}, "numbers in float64"),
    "NaN": (lambda sums: sums["0/x"].fill_(float("nan")), {"samples": 4}, "finite numbers"),
    "active too often": (lambda sums: sums["0/active"].fill_(1e9), {"samples": 4}, "more than all positions"),
    "active too rarely": (lambda sums: sums["0/active"].fill_(-1), {"samples": 4}, "less than 0"),
}


@pytest.mark.parametrize("name", STATES)
def test_states(name: str, tmp_path: Path) -> None:
    damage, facts, message = STATES[name]
    run = observer()
    run.add(torch.randn(4, 3, 16, 16))
    sums = {key: value.clone() for key, value in run.sums.items()}
    if damage:
        damage(sums)
    write(tmp_path / "p.relcompile-partial", "calibration state", sums, {"data": "x", **facts} if facts else {})
    with pytest.raises(CalibrationError) as caught:
        observer().restore(*StateFile(tmp_path / "p").read({"data": "x"}, 20))
    assert message in str(caught.value)


def test_a_state_goes_on_and_away(tmp_path: Path) -> None:
    run, later, state = observer(), observer(), StateFile(tmp_path / "p")
    run.add(torch.randn(4, 3, 16, 16))
    for _ in range(2):
        state.write(run.sums, {"data": "x"}, 4)
    later.restore(*StateFile(tmp_path / "p").read({"data": "x"}, 4))
    assert later.samples == 4
    assert all(torch.equal(value, later.sums[key]) for key, value in run.sums.items())
    state.remove()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_share_a_state(tmp_path: Path) -> None:
    first, second = StateFile(tmp_path / "p"), StateFile(tmp_path / "p")
    first.write({"a": torch.ones(1)}, {}, 1)
    before = first.path.read_bytes()
    with pytest.raises(CalibrationError, match="of another run, which has begun meanwhile"):
        second.write({"a": torch.zeros(1)}, {}, 2)
    second.remove()
    assert first.path.read_bytes() == before


def test_a_state_that_another_process_moves(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    state, made = StateFile(tmp_path / "p", folder), folder / "p.relcompile-partial"
    state.write({"a": torch.ones(1)}, {}, 1)
    state.write({"a": torch.ones(1)}, {}, 2)  # the first waits to be moved
    made.replace(state.path)
    state.write({"a": torch.ones(1)}, {}, 3)
    made.replace(state.path)
    assert StateFile(tmp_path / "p").read({}, 9)[1] == 3
    state.remove()
    assert state.path.is_file()
    StateFile(tmp_path / "p").write({"a": torch.ones(1)}, {}, 4)
    with pytest.raises(CalibrationError, match="of another run, which has begun meanwhile"):
        state.write({"a": torch.ones(1)}, {}, 5)


def test_another_run_that_came_first(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    state = StateFile(tmp_path / "p", tmp_path / "own")
    StateFile(tmp_path / "p").write({"a": torch.ones(1)}, {}, 1)
    with pytest.raises(CalibrationError, match="of another run, which has begun meanwhile"):
        state.write({"a": torch.ones(1)}, {}, 1)


def test_photographs_of_equal_sizes_are_other_data(tmp_path: Path) -> None:
    plain = Preprocessing(None, "bilinear", None, (0.0,) * 3, (1.0,) * 3)

    def fingerprint() -> str:
        return open_folder(tmp_path, {"x": torch.zeros(1, 3, 8, 8)}, plain, None).fingerprint

    found = set[str]()
    for colour in ("red", "lime"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "a.bmp")
        found |= {fingerprint(), fingerprint()}
    assert len(found) == 2


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int64, torch.bool])
def test_patterns_are_real_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    write(tmp_path / "p", "calibration", {"0": torch.ones(2).to(dtype)}, GOOD)
    with pytest.raises(CalibrationError, match="the pattern of layer 0 is not finite, or not of real numbers"):
        Calibration.load(tmp_path / "p")
