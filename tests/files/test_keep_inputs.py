"""No command writes over a file that it reads, under whatever name, nor over a file that is not its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relcompile
from tests.cli.test_cli import run, small_network

Capture = pytest.CaptureFixture[str]
STATE = "{}.relcompile-partial"


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("explainer") / "model.onnx"
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16)).save(path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a file for everything that a command reads, some of them under two names."""
    for name in ("m.pt", "c.onnx", "n.onnx", "rule.toml", "reference.npy", STATE.format("p"), "data/a.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"the user's {name}")
    for name in ("data/a.png", "data/sub/b.JPG", "g.jpg", "g.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "rule.onnx").symlink_to("rule.toml")
    (tmp_path / "reference.onnx").symlink_to("reference.npy")
    os.link(tmp_path / "m.pt", tmp_path / "m.onnx")
    os.link(tmp_path / "m.pt", tmp_path / STATE.format("q"))
    (tmp_path / "link.safetensors").symlink_to("data/a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = {
    "model": ("m.pt -o m.onnx", "would destroy the input m.pt"),
    "calibration": ("m.pt --rule patternnet --calibration c.onnx -o c.onnx", "would destroy the input c.onnx"),
    "class names": ("m.pt --class-names n.onnx -o n.onnx", "would destroy the input n.onnx"),
    "composite": ("m.pt --rule rule.toml -o rule.onnx", "would destroy the input rule.toml"),
    "reference": ("m.pt --rule deeplift --reference zero.npy -o zero.onnx", "would destroy the input zero.npy"),
    "explainer": ("explain g.z+.npz g.jpg", "would destroy the input g.z+.npz"),
    "photograph": ("explain g.z+.npz data/a.png", "would destroy the input data/a.png"),
    "data": ("calibrate m.pt data -o data/a.png", "would destroy the input data/a.png"),
    "data below": ("calibrate m.pt data/../data -o data/sub/b.JPG", "would destroy the input data/../data/sub/b.JPG"),
    "data through a link": ("calibrate m.pt data -o link.safetensors", "would destroy the input data/a.png"),
    "array": ("calibrate m.pt zero.npy -o zero.npy", "would destroy the input zero.npy"),
    "model as a state": (f"calibrate {STATE.format('p')} data -o p", "should hold the state of an interrupted run"),
    "the user's file as a state": ("calibrate m.pt data -o p", "should hold the state of an interrupted run"),
    "link as a state": ("calibrate m.pt data -o q", "should hold the state of an interrupted run"),
    "nothing is resumed": ("calibrate m.pt data -o p --resume", "should hold the state of an interrupted run"),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_is_read_is_lost(name: str, explainer: bytes, folder: Path, capsys: Capture) -> None:
    arguments, message = CASES[name]
    np.save(folder / "zero.npy", np.zeros((3, 16, 16), np.float32))
    (folder / "zero.onnx").symlink_to("zero.npy")
    (folder / "g.z+.npz").write_bytes(explainer)
    os.link(folder / "data/a.png", folder / "a.z+.png")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = run(*arguments.split(), capsys=capsys)
    assert (code, message in err) == (2, True), err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


LINKS = {
    "m.z+.onnx": "m.pt",
    "g.z+.png": "explain explainer.onnx g.jpg",
    "g.z+.npz": "explain explainer.onnx g.jpg",
    "patterns.safetensors": "calibrate m.pt data",
    STATE.format("r"): "calibrate m.pt data -o r",
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("leads_to", ["c.onnx", "nowhere.onnx"])
def test_a_name_that_nobody_gave_is_no_link(
    link: str, leads_to: str, explainer: bytes, folder: Path, capsys: Capture
) -> None:
    (folder / "explainer.onnx").write_bytes(explainer)
    torch.save(small_network(), folder / "m.pt")
    (folder / link).symlink_to(leads_to)
    code, _, err = run(*LINKS[link].split(), capsys=capsys)
    assert (code, f"{link} is a link to {leads_to}" in err or "should hold the state" in err) == (2, True), err
    assert (folder / "c.onnx").read_text() == "the user's c.onnx"
    assert not (folder / "nowhere.onnx").exists()
