"""`relcompile explain` for token models and for series."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor, nn

import relcompile
from relcompile.cli import views
from relcompile.pictures.text import ColouredText, page
from relcompile.pictures.tokens import Piece, Tokenizer
from tests.cli.test_cli import run
from tests.compare import FLOAT32, assert_close

WORDS = ["[PAD]", "[CLS]", "good", "bad", "film", "un", "##told", ",", "[UNK]"]
WEIGHTS = {"good": 2.0, "bad": -3.0, "film": 0.25}


def library() -> Library:
    """Words and pieces of words, [CLS] in front."""
    made = Library(models.WordPiece({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    return made


class Sentiment(nn.Module):
    """The score of class 1 is the sum of the weights of the words, where the mask is 1; that of class 0 less that."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), 1)
        weights = [WEIGHTS.get(word, 0.0) for word in WORDS]
        self.embed.weight.data = torch.tensor(weights)[:, None]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        values = (self.embed(input_ids)[:, :, 0] * attention_mask.to(torch.float32)).sum(1, keepdim=True)
        return torch.cat([-values, values], 1)


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentiment")
    ids = torch.zeros(2, 8, dtype=torch.int64)
    compiled = relcompile.compile(
        Sentiment(),
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        rule="epsilon",
        name="sentiment",
        class_names=["against", "for"],
    )
    compiled.save(folder / "sentiment.onnx")
    library().save(str(folder / "tokenizer.json"))
    return folder / "sentiment.onnx"


def test_every_token_has_its_relevance(explainer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reviews.txt").write_text("good film, untold\n\nbad <b>film</b>\n")
    code, out, err = run(
        "explain", explainer, tmp_path / "reviews.txt", "--text", "bad good", "-o", tmp_path / "out", capsys=capsys
    )
    assert code == 0, err
    assert out.splitlines()[1] == "[CLS]good film, untold"
    found = np.load(tmp_path / "out" / "reviews.sentiment.epsilon.npz")
    assert found["tokens_0"].tolist() == ["[CLS]", "good", "film", ",", "un", "##told"]
    assert_close(found["relevance_0"], [0, 2, 0.25, 0, 0, 0], FLOAT32)
    assert found["target_1"] == 0  # the best class: what is bad speaks for it
    bad = dict(zip(found["tokens_1"], found["relevance_1"], strict=True))
    assert (bad["bad"], bad["film"]) == pytest.approx((3, -0.25))
    html = (tmp_path / "out" / "reviews.sentiment.epsilon.html").read_text()
    shown = [unescape(re.sub(r"<[^>]*>", "", words)) for words in re.findall(r"<p>(.*?)</p>", html, re.DOTALL)]
    assert shown == ["[CLS]good film, untold", "[CLS]bad <b>film</b>"]
    assert 'class="against" style="background:' in html
    assert_close(np.load(tmp_path / "out" / "text.sentiment.epsilon.npz")["relevance_0"], [0, 3, -2], FLOAT32)


def test_what_is_too_long_is_cut_and_said(explainer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("explain", explainer, "--text", "good " * 20, "-o", tmp_path, "-t", 1, capsys=capsys)
    assert code == 0
    assert "13 tokens did not fit and were cut off." in out
    assert len(np.load(tmp_path / "text.sentiment.epsilon.1.npz")["relevance_0"]) == 8


@pytest.mark.parametrize("direction", ["left", "right"])
def test_padding_is_where_the_tokenizer_wants_it(explainer: Path, tmp_path: Path, direction: str) -> None:
    made = library()
    made.enable_padding(direction=direction, pad_id=0, pad_token="[PAD]")
    made.save(str(tmp_path / "tokenizer.json"))
    metadata = relcompile.load(explainer, device="cpu").metadata
    (ids, mask), (read,) = Tokenizer(metadata, tmp_path / "tokenizer.json").read(["bad film"])
    row = [1, 3, 4, 0, 0, 0, 0, 0] if direction == "right" else [0, 0, 0, 0, 0, 1, 3, 4]
    assert ids.tolist() == [row]
    assert mask.tolist() == [[int(k > 0) for k in row]]
    assert read.first == (0 if direction == "right" else 5)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "there is nothing to explain"),
    "no text in it": (("empty.txt",), "there is no text in empty.txt"),
    "no such file": (("none.txt",), "there is no such file"),
    "no tokenizer": (("--text", "good", "--tokenizer", "empty.txt"), "the tokenizer empty.txt cannot be read"),
    "no class": (("--text", "good", "--target", "9"), "target 9 does not exist"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_uses_are_one_message(
    name: str, explainer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    arguments, message = WRONG[name]
    code, _, err = run("explain", explainer, *arguments, capsys=capsys)
    assert code == 2
    assert message in " ".join(err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_a_tokenizer_has_to_lie_beside_the_explainer(
    explainer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "alone.onnx"
    moved.write_bytes(explainer.read_bytes())
    code, _, err = run("explain", moved, "--text", "good", capsys=capsys)
    assert code == 2
    assert "there is no alone.tokenizer.json or tokenizer.json" in " ".join(err.split())


def test_an_explainer_of_numbers_takes_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relcompile.compile(nn.Linear(4, 2), torch.randn(2, 4), rule="epsilon").save(tmp_path / "net.onnx")
    code, _, err = run("explain", tmp_path / "net.onnx", "--text", "good", capsys=capsys)
    assert code == 2
    assert "are for token models" in err


def test_the_terminal_shows_colours_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ColouredText("t", "[red]x\x1b y", (Piece("x", 0, 7), Piece("y", 8, 9)), (1.0, -0.5))
    console = Console(force_terminal=True, color_system="truecolor", record=True, width=60)
    monkeypatch.setattr(views, "_out", console)
    views.coloured_text(text)
    shown = console.export_text(styles=True)
    assert "\x1b[30;48;2;193;70;85m[red]x\\x1b" in shown  # 80 % of the way from white to (178, 24, 43)
    assert "\x1b[4;30;48;2;" in shown  # against: underlined


def test_a_page_escapes_what_a_text_says() -> None:
    html = page("<m>", [ColouredText("<t>", "<script>&", (Piece("<script>", 0, 8),), (1.0,))])
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;m&gt;" in html


class Detector(nn.Module):
    """The mean of channel 0 less that of channel 1."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(2)
        return torch.stack([means[:, 0] - means[:, 1], means[:, 1]], 1)


def test_a_series_is_drawn_over_its_relevance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explainer = relcompile.compile(Detector(), torch.randn(1, 2, 50), rule="epsilon", name="heart")
    explainer.save(tmp_path / "heart.onnx")
    series = np.zeros((2, 50), np.float32)
    series[0, 10], series[1, 30] = 50, 25
    np.save(tmp_path / "ecg.npy", series)
    code, _, err = run("explain", tmp_path / "heart.onnx", tmp_path / "ecg.npy", "-o", tmp_path, "-t", 0, capsys=capsys)
    assert code == 0, err
    found = np.load(tmp_path / "ecg.heart.epsilon.0.npz")["relevance"]
    expected = np.zeros((2, 50))
    expected[0, 10], expected[1, 30] = 1, -0.5
    assert_close(found, expected, FLOAT32)
    pixels = np.asarray(Image.open(tmp_path / "ecg.heart.epsilon.0.png").convert("RGB")).astype(int)
    red, blue = (((np.abs(pixels - colour)).sum(2) < 30) for colour in ((178, 24, 43), (33, 102, 172)))
    assert red.any()
    assert blue.any()
    assert np.argwhere(red)[:, 1].mean() < np.argwhere(blue)[:, 1].mean()  # step 10 left of step 30
    np.save(tmp_path / "several.npy", np.stack([series, series]))
    code, _, _ = run("explain", tmp_path / "heart.onnx", tmp_path / "several.npy", "-o", tmp_path, capsys=capsys)
    assert code == 0
    assert (tmp_path / "several-1.heart.epsilon.png").is_file()
    np.save(tmp_path / "nan.npy", np.full((2, 50), np.nan, np.float32))
    code, _, err = run("explain", tmp_path / "heart.onnx", tmp_path / "nan.npy", "-o", tmp_path, capsys=capsys)
    assert (code, list(tmp_path.glob("nan.*"))) == (2, [tmp_path / "nan.npy"])
    assert "nan.npy: NaN or infinity in the series" in " ".join(err.split())
    np.save(tmp_path / "flat.npy", np.zeros(50, np.float32))
    code, _, err = run("explain", tmp_path / "heart.onnx", tmp_path / "flat.npy", capsys=capsys)
    assert code == 2
    assert "holds (50,); the explainer takes" in " ".join(err.split())
