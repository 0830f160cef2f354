"""`relcompile concepts` as a user meets it: what it finds, interruption, and wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relcompile.cli import confined, main
from relcompile.cli.commands import concepts as concepts_command
from relcompile.concepts import learn
from relcompile.concepts.maximisation import Concepts, channel_relevance
from relcompile.pictures.images import load_image, preprocess
from relcompile.preprocessing import Preprocessing
from relcompile.runtime.production import ProductionExplainer
from tests.cli.test_cli import run, small_network
from tests.compare import ONNX, assert_close

Capture = pytest.CaptureFixture[str]
OPTIONS = ("--input", "1x3x16x16", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.3,0.4", "--batch", 3, "--count", 3)
COMPILED = concepts_command._Layer.explainers
KNOWN: dict[tuple[str, str], tuple[ProductionExplainer, ProductionExplainer]] = {}


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explainers of one layer are the same in all tests."""

    def compiled(
        layer: concepts_command._Layer, place: confined.Place
    ) -> tuple[ProductionExplainer, ProductionExplainer]:
        asked = layer.name, layer.target
        if asked not in KNOWN:
            KNOWN[asked] = COMPILED(layer, place)
        return KNOWN[asked]

    monkeypatch.setattr(concepts_command._Layer, "explainers", compiled)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and seven photographs."""
    random = np.random.default_rng(0)
    torch.save(small_network(), tmp_path / "model.pt")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number in range(7):
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / ("deep" if number % 2 else "") / f"{number}.png")
    return tmp_path


def concepts(folder: Path, *options: object, capsys: Capture) -> tuple[int, str, str]:
    layer = () if "--layer" in options else ("--layer", "0")
    given = ("concepts", folder / "model.pt", folder / "photos", *layer, "--rule", "gradient*input", *OPTIONS)
    return run(*given, "-o", folder / "c.safetensors", *options, capsys=capsys)


def by_autograd(folder: Path) -> tuple[np.ndarray, list[int]]:
    """Shares of the channels of layer 0 and the best class of every photograph."""
    model, preprocessing = small_network(), Preprocessing(None, "bilinear", None, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    paths = sorted((folder / "photos").rglob("*.png"))
    x = torch.from_numpy(np.concatenate([preprocess(load_image(p), preprocessing, (16, 16))[0] for p in paths]))
    z = model[0](x).detach().requires_grad_()
    scores = model[1:](z)
    (gradient,) = torch.autograd.grad(scores.amax(1).sum(), z)
    return channel_relevance((gradient * z).detach().numpy()), scores.argmax(1).tolist()


def test_concepts_and_pictures(folder: Path, capsys: Capture) -> None:
    code, out, err = concepts(folder, "--picture", folder / "photos" / "0.png", "--rows", 3, capsys=capsys)
    assert code == 0, err
    assert "never relevant" in out
    r, classes = by_autograd(folder)
    found = Concepts.load(folder / "c.safetensors")
    assert found.samples == 7
    for channel, (scores, samples) in enumerate(zip(found.maxima.scores, found.maxima.samples, strict=True)):
        wanted = np.sort(r[:, channel])[::-1][:3].clip(min=0)
        assert_close(scores, wanted, ONNX)
        assert_close(r[samples[samples >= 0], channel], wanted[wanted > 0], ONNX)
        assert found.maxima.classes[channel][samples >= 0].tolist() == [classes[n] for n in samples[samples >= 0]]
    for name in ("c.png", "c.0.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 300
    assert concepts(folder, "--rows", 3, capsys=capsys)[2].count("is used again") == 1


def test_an_interrupted_run_goes_on_to_the_same_bits(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert concepts(folder, "--rows", 1, capsys=capsys)[0] == 0
    whole = (folder / "c.safetensors").read_bytes()
    (folder / "c.safetensors").unlink()
    explain, done = ProductionExplainer.explain, list[int]()

    def explain_or_stop(self: ProductionExplainer, *inputs: np.ndarray, **named: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return explain(self, *inputs, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(learn, "_SAVE_EVERY", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(ProductionExplainer, "explain", explain_or_stop)
        assert concepts(folder, "--rows", 1, capsys=capsys)[0] != 0
    assert not (folder / "c.safetensors").exists()
    code, _, err = concepts(folder, "--rows", 1, "--resume", capsys=capsys)
    assert code == 0, err
    assert "resumed after 6 of 7" in err
    assert (folder / "c.safetensors").read_bytes() == whole
    assert not list(folder.glob("*partial"))


def test_the_model_is_read_by_a_child_and_captured_once(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert concepts(folder, "--rows", 1, capsys=capfd)[0] == 0
    here = (folder / "c.safetensors").read_bytes()
    (folder / "c.safetensors").unlink()
    monkeypatch.setattr(concepts_command._Layer, "explainers", COMPILED)
    monkeypatch.setattr(concepts_command, "captured_model", None)  # here nothing looks at the model
    given = [str(word) for word in (folder / "model.pt", folder / "photos", "-o", folder / "c.safetensors", *OPTIONS)]
    words = ["concepts", *given, "--layer", "0", "--rule", "gradient*input", "--rows", "1"]
    with pytest.raises(SystemExit, match="0"):
        main.main(words, confined.Console(words))
    assert (folder / "c.safetensors").read_bytes() == here
    assert capfd.readouterr().err.count("relcompile: capture\n") == 1


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no such layer": (("--layer", "9"), "no layer called '9'"),
    "no such picture": (("--picture", "missing.jpg"), "missing.jpg cannot be read: there is no such file"),
    "a target of the caller's": (("--target", "index"), "argmax, or of a class number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_exist_is_one_message(name: str, folder: Path, capsys: Capture) -> None:
    options, message = WRONG[name]
    code, _, err = concepts(folder, *options, capsys=capsys)
    assert code == 2
    assert message in err
    assert not list(folder.glob("c.*"))


def test_a_damaged_photograph_is_named(folder: Path, capsys: Capture) -> None:
    (folder / "photos" / "z.png").write_text("no photograph")
    code, _, err = concepts(folder, capsys=capsys)
    assert code == 2
    assert "z.png" in err
