"""AttnLRP and CP-LRP on transformers: the oracle's relevance form, autograd with patched gradients, ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import ONNX, assert_close
from tests.oracles import attention as oracle

TARGET = torch.tensor([0, 2, 1])
# Relevance form divides by every value it passes: small ones cost digits.
RELEVANCE_FORM = 1e-8


class Encoder(nn.Module):
    """Layers of `nn.TransformerEncoderLayer`, a mean over tokens, a linear head."""

    def __init__(self, activation: str, norm_first: bool) -> None:
        super().__init__()
        settings = {"batch_first": True, "activation": activation, "norm_first": norm_first}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 12, **settings) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def encoder(activation: str = "gelu", norm_first: bool = True) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Encoder(activation, norm_first)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ENCODERS = {"pre-norm, gelu": ("gelu", True), "post-norm, relu": ("relu", False)}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("mean", ["live", "held"])
@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
def test_equals_the_relevance_form(method: oracle.Method, mean: oracle.Mean, name: str, tmp_path: Path) -> None:
    model = encoder(*ENCODERS[name])
    with torch.no_grad():
        expected = oracle.explain_encoder(list(model.layers), model.head, X, TARGET, method, mean)
    explainer = relcompile.compile(model, X, rule=f"{method}={mean}")
    output, relevance = explainer(X, TARGET)
    assert_close(output, model(X).detach(), RELEVANCE_FORM)
    assert_close(relevance, expected, RELEVANCE_FORM)
    relcompile.compile(model.float(), X.float(), rule=f"{method}={mean}").save(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(X.float().numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected, ONNX)
