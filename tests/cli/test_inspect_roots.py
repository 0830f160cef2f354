"""`relcompile MODEL --roots` and `relcompile inspect EXPLAINER --roots INPUT`, as a user meets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.cli.test_cli import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an explainer with a report on roots, one without, a photograph and arrays."""
    path = tmp_path_factory.mktemp("roots")
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    torch.save(nn.Sequential(*layers), path / "model.pt")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "photo.png")
    np.savez(path / "batch.npz", input=np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32))
    np.savez(path / "other.npz", image=np.zeros(3, np.float32))
    (path / "broken.npz").write_bytes(b"not an archive")
    (path / "cut.npz").write_bytes((path / "batch.npz").read_bytes()[:60])
    return path


@pytest.fixture(scope="module")
def explainer(folder: Path) -> Path:
    import relcompile

    model = torch.load(folder / "model.pt", weights_only=False)
    compiled = relcompile.compile(model, torch.randn(1, 3, 16, 16), rule="root-v3-unrolled", roots=True)
    compiled.save(folder / "model.onnx")
    return folder / "model.onnx"


def test_command_line_compiles_a_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--rule", "root-v3", "--roots", "--input", "1x3x16x16", "-o", tmp_path / "x.onnx")
    code, out, err = run(folder / "model.pt", *arguments, capsys=capsys)
    assert code == 0, err
    assert "roots" in out


@pytest.mark.parametrize("name", ["photo.png", "batch.npz"])
def test_report_is_printed(name: str, explainer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = ("--target", "2") if name == "batch.npz" else ()
    code, out, err = run("inspect", explainer, "--roots", explainer.with_name(name), *target, capsys=capsys)
    assert code == 0, err
    assert f"roots of {name}, rule root-v3-unrolled" in out
    assert [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")] == ["0", "1", "4"]


BAD = {
    "no target": (("batch.npz",), "say which class to explain with --target"),
    "no such input": (("other.npz", "--target", "0"), "lacks the inputs input; it holds image"),
    "no archive": (("broken.npz", "--target", "0"), "broken.npz cannot be read"),
    "cut off": (("cut.npz", "--target", "0"), "cut.npz cannot be read"),
    "no file": (("missing.npz", "--target", "0"), "missing.npz cannot be read"),
    "wrong class": (("batch.npz", "--target", "9"), "target 9 does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message(name: str, explainer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file, *rest), message = BAD[name]
    code, _, err = run("inspect", explainer, "--roots", explainer.with_name(file), *rest, capsys=capsys)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_explainer_without_a_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plain.onnx"
    assert run(folder / "model.pt", "--rule", "z+", "--input", "1x3x16x16", "-o", path, capsys=capsys)[0] == 0
    code, _, err = run("inspect", path, "--roots", folder / "photo.png", capsys=capsys)
    assert code == 2
    assert "reports no roots; compile it again with --roots" in err
    code, _, err = run(folder / "model.pt", "--roots", "--input", "1x3x16x16", "-o", path, capsys=capsys)
    assert code == 2
    assert "rule z+ learns no roots" in err
