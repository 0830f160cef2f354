"""Inputs of token ids: relevance per token, and what else a model takes passes through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from relcompile.errors import CompositeError, InputSpecError
from tests.compare import FLOAT64, ONNX, assert_close
from tests.oracles import patched_gradients

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TARGET = torch.tensor([2, 0])
PATCHED = {"gradient": None, "gradient*input": None, "attnlrp": "attnlrp", "cp-lrp": "cp-lrp"}


def gelu(x: Tensor) -> Tensor:
    """Looked up when it is called, so that it can be patched."""
    return functional.gelu(x)


class Reader(nn.Module):
    """Embeddings, one layer of attention, a mean over the tokens that count, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, 8), nn.Embedding(5, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, activation=gelu, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.read(x, mask)

    def read(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.layer(x, src_key_padding_mask=mask == 0)
        counts = mask.to(x.dtype)
        return self.head((x * counts[..., None]).sum(1) / counts.sum(1, keepdim=True))


class FromOneHot(nn.Module):
    """The same, from the one-hot vectors of the ids."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, onehot: Tensor) -> Tensor:
        places = self.reader.places(torch.arange(onehot.shape[1]))
        return self.reader.read(onehot @ self.reader.words.weight + places, MASK)


def reader() -> Reader:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reader()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


@pytest.mark.parametrize("rule", PATCHED)
def test_relevance_of_a_token_is_that_of_its_one_in_the_onehot_vector(rule: str) -> None:
    model, onehot = reader(), functional.one_hot(IDS, 10).double()
    expected = patched_gradients.explain(FromOneHot(model), onehot, TARGET, PATCHED[rule]).sum(-1)
    output, relevance = relcompile.compile(model, {"ids": IDS, "mask": MASK}, explain=["ids"], rule=rule)(
        IDS, MASK, TARGET
    )
    assert_close(output, model(IDS, MASK).detach(), FLOAT64)
    assert_close(relevance, expected, FLOAT64)


def test_the_embedded_input_is_explained_by_default_and_by_its_features_at_the_embedding() -> None:
    model = reader()
    per_token = relcompile.compile(model, {"ids": IDS, "mask": MASK}, rule="attnlrp")
    per_feature = relcompile.compile(model, {"ids": IDS, "mask": MASK}, explain=["ids"], rule="attnlrp", at="words")
    features = per_feature(IDS, MASK, TARGET)[1]
    assert features.shape == (2, 5, 8)
    assert_close(features.sum(-1), per_token(IDS, MASK, TARGET)[1], FLOAT64)


def test_in_onnx_runtime(tmp_path: Path) -> None:
    model = reader()
    expected = relcompile.compile(model, {"ids": IDS, "mask": MASK}, explain=["ids"], rule="attnlrp")(IDS, MASK, TARGET)
    explainer = relcompile.compile(model.float(), {"ids": IDS, "mask": MASK}, explain=["ids"], rule="attnlrp")
    explainer.save(tmp_path / "x.onnx")
    production = relcompile.load(tmp_path / "x.onnx")
    found = production.explain(IDS.numpy(), MASK.numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected[1], ONNX)


def test_an_integer_that_is_not_embedded_has_no_relevance() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, length: Tensor) -> Tensor:
            return x / (length > 2).sum(1, keepdim=True)

    with pytest.raises(InputSpecError, match="length"):
        relcompile.compile(Scaled(), {"x": torch.randn(2, 3), "length": MASK}, explain=["length"])


def test_a_method_that_moves_the_input_refuses_indices() -> None:
    with pytest.raises(CompositeError, match="ids holds indices"):
        relcompile.compile(reader(), {"ids": IDS, "mask": MASK}, rule="smoothgrad")


def test_a_mask_may_take_part_in_a_norm() -> None:
    class Normed(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            kept = mask.to(x.dtype)
            return x / (x * kept).square().sum(1, keepdim=True).sqrt()

    x = torch.randn(2, 5, dtype=torch.float64)
    output, relevance = relcompile.compile(Normed(), {"x": x, "mask": MASK}, explain=["x"], rule="attnlrp")(
        x, MASK, TARGET
    )
    assert_close(relevance.sum(1), output[torch.arange(2), TARGET], FLOAT64)
