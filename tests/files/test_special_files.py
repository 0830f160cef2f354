"""A pipe or a device in place of a file that a command reads: one message, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import relcompile
from relcompile.pictures.images import load_image
from tests.cli.test_cli import run, small_network

COMMANDS = {
    "model": "{}",
    "model to calibrate": "calibrate {} data.npy",
    "explainer": "explain {} a.png",
    "explainer to inspect": "inspect {}",
    "photograph": "explain x.onnx {}",
    "input of a report": "inspect r.onnx --roots {}.npz --target 0",
    "reference": "m.pt --rule deeplift --reference {}.npy",
    "calibration": "m.pt --rule patternnet --calibration {}",
    "class names": "m.pt --class-names {} --input 1x3x16x16",
    "composite": "m.pt --rule {}.toml",
    "data": "calibrate m.pt {}.npy",
    "data in an archive": "calibrate m.pt {}.npz",
    "state": "calibrate m.pt data.npy -o {}.state",
}
ENDINGS = ("", ".npy", ".npz", ".toml", ".state.relcompile-partial")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("special")
    torch.save(small_network(), folder / "m.pt")
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16)).save(folder / "x.onnx")
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16), rule="root", roots=True).save(folder / "r.onnx")
    for ending in ENDINGS:
        os.mkfifo(folder / f"pipe{ending}")
        (folder / f"device{ending}").symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", COMMANDS)
def test_only_regular_files_are_read(
    name: str, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run(*COMMANDS[name].format(kind).split(), capsys=capsys)
    assert code == 2
    assert {"pipe": "it is a named pipe", "device": "it is a device"}[kind] + ", not a regular file" in err


@pytest.mark.parametrize("name", ["n" * 300 + ".npy", "n" * 300])
def test_a_name_that_is_too_long_is_one_message(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for command in (f"explain x.onnx {name}", f"calibrate m.pt {name}", f"m.pt -o {name}.onnx", f"m.pt --rule {name}"):
        code, _, err = run(*command.split(), capsys=capsys)
        assert code == 2, err
        assert "Traceback" not in err


def test_a_photograph_in_python_too(folder: Path) -> None:
    with pytest.raises(relcompile.errors.InputSpecError, match="it is a named pipe"):
        load_image(folder / "pipe")
