"""`relcompile calibrate` as a user meets it: the file it writes, interruption, and wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relcompile
from relcompile.calibration.observer import Observer
from relcompile.cli.commands import calibrate as command
from relcompile.errors import CalibrationError
from relcompile.pictures.images import load_image, preprocess
from relcompile.preprocessing import Preprocessing
from tests.cli.test_cli import files, run, small_network
from tests.compare import FLOAT64, assert_close

Capture = pytest.CaptureFixture[str]
SHAPE = (3, 16, 16)
OPTIONS = ("--resize", "20", "--crop", "16", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.3,0.4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, data for it in every form, and things that are neither."""
    random = np.random.default_rng(0)
    torch.save(small_network(), tmp_path / "model.pt")
    other = small_network()
    other.get_parameter("0.weight").data += 1
    torch.save(other, tmp_path / "other.pt")
    np.save(tmp_path / "data.npy", random.normal(size=(20, *SHAPE)).astype(np.float32))
    np.savez(tmp_path / "data.npz", whatever=np.load(tmp_path / "data.npy"))
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3)), b=np.zeros((2, 3)))
    np.save(tmp_path / "empty.npy", np.zeros((0, *SHAPE), np.float32))
    np.save(tmp_path / "channels.npy", np.zeros((5, 4, 16, 16), np.float32))
    np.save(tmp_path / "doubles.npy", np.zeros((5, *SHAPE)))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.txt").write_text("no data")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_text("no photograph")
    for number in range(5):
        (tmp_path / "photos" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"class{number % 2}" / f"{number}.png")
    return tmp_path


def calibrate(folder: Path, data: str, *options: object, capsys: Capture) -> tuple[int, str, str]:
    return run("calibrate", folder / "model.pt", folder / data, "-o", folder / "p.safetensors", *options, capsys=capsys)


@pytest.mark.parametrize("data", ["data.npy", "data.npz"])
def test_from_data_to_explainer(data: str, folder: Path, capsys: Capture) -> None:
    code, out, err = calibrate(folder, data, "--batch", 8, capsys=capsys)
    assert code == 0, err
    assert "samples" in out
    assert "20" in out
    found = relcompile.Calibration.load(folder / "p.safetensors")
    expected = relcompile.calibrate(small_network(), torch.from_numpy(np.load(folder / "data.npy")).split(8))
    assert (found.samples, found.estimator, found.weights_sha256) == (20, "relu", expected.weights_sha256)
    assert all(torch.equal(pattern, expected.patterns[name]) for name, pattern in found.patterns.items())
    for rule in ("patternnet", "patternattribution"):
        explainer = folder / f"{rule}.onnx"
        options = ("--rule", rule, "--calibration", folder / "p.safetensors", "--input", "1x3x16x16")
        code, out, err = run(folder / "model.pt", *options, "-o", explainer, capsys=capsys)
        assert code == 0, err
        assert relcompile.load(explainer).metadata.rule == rule


def test_photographs_are_preprocessed_as_the_options_say(folder: Path, capsys: Capture) -> None:
    code, _, err = calibrate(folder, "photos", "--input", "1x3x16x16", *OPTIONS, capsys=capsys)
    assert code == 0, err
    preprocessing = Preprocessing(20, "bilinear", 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    paths = sorted((folder / "photos").rglob("*.png"))
    arrays = [preprocess(load_image(path), preprocessing, (16, 16))[0] for path in paths]
    expected = relcompile.calibrate(small_network(), [torch.from_numpy(np.concatenate(arrays))])
    found = relcompile.Calibration.load(folder / "p.safetensors")
    for name, pattern in expected.patterns.items():
        assert_close(found.patterns[name], pattern, FLOAT64)


def test_some_of_the_samples(folder: Path, capsys: Capture) -> None:
    code, _, err = calibrate(folder, "data.npy", "--samples", 6, "--estimator", "linear", capsys=capsys)
    assert code == 0, err
    found = relcompile.Calibration.load(folder / "p.safetensors")
    chosen = torch.from_numpy(np.load(folder / "data.npy")[::4])
    expected = relcompile.calibrate(small_network(), [chosen], estimator="linear")
    assert (found.samples, found.estimator) == (5, "linear")
    assert all(torch.equal(pattern, expected.patterns[name]) for name, pattern in found.patterns.items())


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C when so many batches are done; the state is saved after every batch."""
    add, done = Observer.add, list[int]()

    def add_or_stop(self: Observer, batch: dict[str, torch.Tensor]) -> None:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        add(self, batch)

    monkeypatch.setattr(command, "_SAVE_EVERY", -1.0)
    monkeypatch.setattr(Observer, "add", add_or_stop)


def test_an_interrupted_run_goes_on_to_the_same_bits(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calibrate(folder, "data.npy", "--batch", 3, capsys=capsys)[0] == 0
    whole = (folder / "p.safetensors").read_bytes()
    (folder / "p.safetensors").unlink()
    with monkeypatch.context() as patch:
        interrupt(patch, after=4)
        assert calibrate(folder, "data.npy", "--batch", 3, capsys=capsys)[0] != 0
    assert not (folder / "p.safetensors").exists()
    assert (folder / "p.safetensors.relcompile-partial").exists()
    code, _, err = calibrate(folder, "data.npy", "--batch", 3, "--resume", capsys=capsys)
    assert code == 0, err
    assert "resumed after 12 of 20" in err
    assert (folder / "p.safetensors").read_bytes() == whole
    assert not (folder / "p.safetensors.relcompile-partial").exists()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("data.npy", ("--batch", 4), "another batch"),
        ("photos", ("--batch", 3, "--input", "1x3x16x16"), "another data"),
        ("data.npy", ("--batch", 3, "--estimator", "linear"), "another estimator"),
    ],
)
def test_a_state_of_another_run_is_refused(
    data: str, options: tuple[object, ...], message: str, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, after=2)
        calibrate(folder, "data.npy", "--batch", 3, capsys=capsys)
    code, _, err = calibrate(folder, data, *options, "--resume", capsys=capsys)
    assert code == 2
    assert message in err


# arguments, part of the message
BAD: dict[str, tuple[list[str], str]] = {
    "no such data": (["calibrate", "{model}", "{nowhere}"], "cannot be read"),
    "not data": (["calibrate", "{model}", "{text}"], "neither a folder"),
    "damaged array": (["calibrate", "{model}", "{text_npy}"], "cannot be read"),
    "no samples": (["calibrate", "{model}", "{empty}"], "samples"),
    "empty folder": (["calibrate", "{model}", "{nothing}"], "no photographs"),
    "damaged photograph": (["calibrate", "{model}", "{damaged}"], "a.png cannot be read"),
    "too small to crop": (
        [
            "calibrate",
            "{model}",
            "{photos}",
            "--crop",
            "40",
            "--input",
            "1x3x40x40",
            "--mean",
            "0,0,0",
            "--std",
            "1,1,1",
        ],
        "too small",
    ),
    "other channels": (["calibrate", "{model}", "{channels}"], "does not run"),
    "other dtype": (["calibrate", "{model}", "{doubles}"], "does not run"),
    "other than --input": (["calibrate", "{model}", "{data}", "--input", "1x3x8x8"], "--input says"),
    "wrong array names": (["calibrate", "{model}", "{two}", "--input", "1x3x16x16"], "no array 'input'"),
    "no such estimator": (
        ["calibrate", "{model}", "{data}", "--estimator", "magic"],
        "'magic' is not one of 'relu', 'linear'",
    ),
    "rule without patterns": (["calibrate", "{model}", "{data}", "--rule", "z+"], "needs no calibration"),
    "no batch": (["calibrate", "{model}", "{data}", "--batch", "0"], "--batch 0"),
    "no samples asked for": (["calibrate", "{model}", "{data}", "--samples", "0"], "--samples 0"),
    "unwritable": (["calibrate", "{model}", "{data}", "-o", "{nowhere}/p.safetensors"], "cannot write"),
    "over the model": (["calibrate", "{model}", "{data}", "-o", "{model}"], "would destroy the input"),
    "missing calibration": (["{model}", "--rule", "patternnet"], "relcompile calibrate MODEL DATA"),
    "no such calibration": (["{model}", "--rule", "patternnet", "--calibration", "{nowhere}"], "no such file"),
    "not a calibration": (["{model}", "--rule", "patternnet", "--calibration", "{text}"], "not a calibration file"),
    "foreign calibration": (
        ["{other}", "--rule", "patternnet", "--calibration", "{patterns}", "--input", "1x3x16x16"],
        "other weights",
    ),
    "calibration for a rule without": (
        ["{model}", "--rule", "z+", "--calibration", "{patterns}", "--input", "1x3x16x16"],
        "takes no calibration",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, folder: Path, capsys: Capture) -> None:
    arguments, message = BAD[name]
    relcompile.calibrate(small_network(), [torch.randn(4, *SHAPE)]).save(folder / "patterns.safetensors")
    places = {path.stem: path for path in folder.iterdir() if path.suffix != ".npz"}
    places |= {"text_npy": folder / "text.npy", "text": folder / "text.txt", "two": folder / "two.npz"}
    places["nowhere"] = folder / "nowhere"
    output = [] if "-o" in arguments else ["-o", folder / ("x" + (".onnx" if arguments[0] != "calibrate" else ""))]
    before = files(folder)
    code, out, err = run(*(a.format(**places) for a in arguments), *output, capsys=capsys)
    assert code == 2, out
    assert message in err
    assert "Traceback" not in err
    assert files(folder) == before


def test_a_safetensors_file_of_weights_is_no_calibration(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(CalibrationError, match="but not a calibration of relcompile"):
        relcompile.Calibration.load(tmp_path / "weights.safetensors")
