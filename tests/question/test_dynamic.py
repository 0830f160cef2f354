"""Free axes beside the batch: one explainer, and one file, for texts of any length and images of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import relcompile
from passes.errors import UnsupportedOperatorError
from relcompile.errors import CaptureError, InputSpecError
from tests.compare import FLOAT32, FLOAT64, assert_close


class OfAnySize(nn.Module):
    """Every operator whose adjoint needs to know sizes: strided layers, pools that overlap, do not tile, or pad."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 5, 3),
            nn.SiLU(),
            nn.AvgPool2d(2, padding=1, count_include_pad=False), nn.MaxPool2d(2), nn.GroupNorm(1, 5),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def bert() -> Any:
    """One layer, three classes, at most 64 positions."""
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_labels": 3}
    limits: dict[str, Any] = {"num_attention_heads": 2, "vocab_size": 50, "max_position_embeddings": 64}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, **limits)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def gradient(score: Tensor, at: Tensor, target: Tensor) -> Tensor:
    """Input times gradient, by autograd."""
    (slope,) = torch.autograd.grad(score[torch.arange(len(target)), target].sum(), at)
    return (at * slope).detach()


def test_an_image_has_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = OfAnySize().eval()
    asked: dict[str, Any] = {"rule": "gradient*input", "dynamic": ["x:2", "x:3"]}
    relcompile.compile(model, torch.randn(1, 3, 41, 37), **asked).save(tmp_path / "any.onnx")
    production = relcompile.load(tmp_path / "any.onnx")
    assert production.metadata.inputs[0].shape == ("batch", 3, "x_2", "x_3")
    for size in ((1, 3, 41, 37), (2, 3, 30, 64), (5, 3, 29, 33)):
        x, target = torch.randn(size).double().requires_grad_(), torch.arange(size[0]) % 3
        wanted = gradient(model.double()(x), x, target)
        assert_close(production.explain(x.detach().float().numpy(), target=target.numpy()).relevance, wanted, FLOAT32)


def test_a_text_has_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = bert()
    asked: dict[str, Any] = {"rule": "gradient*input", "dynamic": ["input_ids:1"]}
    relcompile.compile(model, torch.randint(3, 50, (1, 12)), **asked).save(tmp_path / "bert.onnx")
    production = relcompile.load(tmp_path / "bert.onnx")
    for batch, length in ((1, 8), (2, 64), (5, 8), (5, 64)):
        ids, target = torch.randint(3, 50, (batch, length)), torch.arange(batch) % 3
        words = model.get_input_embeddings()(ids).detach().requires_grad_()
        score = model(inputs_embeds=words).logits
        found = production.explain(ids.numpy(), target=target.numpy())
        assert_close(found.output, score.detach(), FLOAT32)
        assert_close(found.relevance, gradient(score, words, target).sum(-1), FLOAT32)


class Spreads(nn.Module):
    """(N, C, T): scores that divide by how many steps there are, and by a few less."""

    def forward(self, x: Tensor) -> Tensor:
        spreads = x.std(2), x.var(2, correction=0), torch.var_mean(x, 2, correction=2)[0], x.sum(2) / (x.shape[2] - 1)
        return torch.stack([x.tanh().sum((1, 2)), *(each.sum(1) for each in spreads)], 1)


@pytest.mark.parametrize("length", [9, 3, 17])
def test_statistics_are_over_as_many_steps_as_there_are(length: int) -> None:
    explainer = relcompile.compile(Spreads(), torch.randn(2, 4, 9).double(), rule="gradient*input", dynamic=["x:2"])
    x, target = torch.randn(5, 4, length).double().requires_grad_(), torch.arange(5)
    assert_close(explainer(x.detach(), target)[1], gradient(Spreads()(x), x, target), FLOAT64)


class Attending(nn.Module):
    """(N, T, 4): attention, and the first, the last and the mean of all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = self.norm(y + self.attention(y, y, y, need_weights=False)[0])
        return self.head(y[:, 0] + y[:, -1] + y.mean(1))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "asked",
    [
        {"rule": "attnlrp", "target": "topk:2", "taps": ["norm"]},
        {"rule": "cp-lrp", "absorbed": True},
        {"rule": "smoothgrad"},
    ],
    ids=str,
)
def test_other_questions_go_with_it(asked: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Attending().double().eval()
    free = relcompile.compile(model, torch.randn(2, 6, 4).double(), dynamic=["x:1"], **asked)
    fixed = relcompile.compile(model, torch.randn(3, 9, 4).double(), **asked)
    arguments = list(fixed.examples.values())
    for found, expected in zip(free(*arguments), fixed(*arguments), strict=True):
        assert_close(found, expected, FLOAT64)


class PerStep(nn.Module):
    """What a subclass does along axis 1 of (N, T, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)


class Loop(PerStep):
    def forward(self, x: Tensor) -> Tensor:
        return sum((self.head(x[:, t]) for t in range(x.shape[1])), torch.zeros(3))


class Number(PerStep):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.sum(1)) * float(x.shape[1])


class Branch(PerStep):
    def forward(self, x: Tensor) -> Tensor:
        return self.head((x * 2 if x.shape[1] > 5 else x).sum(1))


class Flat(PerStep):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.head.weight.repeat(1, 6))


class Resized(PerStep):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.interpolate(x.transpose(1, 2), scale_factor=2.0).mean(2))


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (Loop, CaptureError, r"fixes the size of axis x:1(.|\n)*test_dynamic.py:\d+: return sum\("),
        (Number, CaptureError, r"fixes the size of axis x:1(.|\n)*test_dynamic.py:\d+: return self.head"),
        (Branch, CaptureError, r"goes another way where the size of x:1 is 5"),
        (Flat, CaptureError, r"fixes the size of axis x:1"),
        (Resized, UnsupportedOperatorError, r"upsample_nearest1d: a side of what it reads is a free axis"),
    ],
)
def test_what_fixes_a_size_is_said(model: type[PerStep], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        relcompile.compile(model().eval(), torch.randn(2, 6, 4), rule="gradient*input", dynamic=["x:1"])


@pytest.mark.parametrize(
    ("shape", "axis", "said"),
    [
        ((2, 6, 4), "y:1", "no axis 'y:1' beside the batch; the axes are x:1, x:2"),
        ((2, 6, 4), "x:3", "no axis 'x:3'"),
        ((2, 6, 4), "x:0", "no axis 'x:0'"),
        ((2, 6, 4), "x", "no axis 'x'"),
        ((2, 1, 4), "x:1", "size 1 along axis 1"),
    ],
)
def test_only_an_axis_can_be_free(shape: tuple[int, ...], axis: str, said: str) -> None:
    with pytest.raises(InputSpecError, match=said):
        relcompile.compile(Number().eval(), torch.randn(shape), dynamic=[axis])
