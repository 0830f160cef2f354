"""AttnLRP and CP-LRP on transformers: the oracle's relevance form, autograd with patched gradients, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import convnext, swin_transformer

import relcompile
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.kernels import assert_cuda_kernels
from tests.oracles import attention as oracle
from tests.oracles import patched_gradients

TARGET = torch.tensor([0, 2, 1])
# Relevance form divides by every value it passes: small ones cost digits.
RELEVANCE_FORM = 1e-8


class Encoder(nn.Module):
    """Layers of `nn.TransformerEncoderLayer`, a mean over tokens, a linear head."""

    def __init__(self, activation: str, norm_first: bool) -> None:
        super().__init__()
        settings: dict[str, Any] = {"batch_first": True, "activation": activation, "norm_first": norm_first}
        self.encoder_layers = [nn.TransformerEncoderLayer(8, 2, 12, **settings) for _ in range(2)]
        self.layers = nn.ModuleList(self.encoder_layers)
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


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("mean", ["live", "held"])
@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
def test_equals_the_relevance_form(method: oracle.Method, mean: oracle.Mean, name: str) -> None:
    model = encoder(*ENCODERS[name])
    with torch.no_grad():
        expected = oracle.explain_encoder(model.encoder_layers, model.head, X, TARGET, method, mean)
    explainer = relcompile.compile(model, X, rule=f"{method}={mean}")
    output, relevance = explainer(X, TARGET)
    assert_close(output, model(X).detach(), RELEVANCE_FORM)
    assert_close(relevance, expected, RELEVANCE_FORM)


def test_in_onnx_runtime(tmp_path: Path) -> None:
    model = encoder()
    with torch.no_grad():
        expected = oracle.explain_encoder(model.encoder_layers, model.head, X, TARGET, "attnlrp", "live")
    relcompile.compile(model.float(), X.float(), rule="attnlrp").save(tmp_path / "x.onnx")
    assert_cuda_kernels(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(X.float().numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected, ONNX)


def vision_transformer() -> nn.Module:
    return models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )


def swin() -> nn.Module:
    return models.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=10)


def swin_v2() -> nn.Module:
    v2: dict[str, Any] = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,
    }
    return models.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=10, **v2)


def max_vit() -> nn.Module:
    return models.MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0, num_classes=10)


def conv_next() -> nn.Module:
    blocks = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return models.ConvNeXt(blocks, layer_scale=0.5, num_classes=10)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_not_handed_out_is_absorbed(name: str) -> None:
    model = encoder(*ENCODERS[name])
    output, relevance, absorbed = relcompile.compile(model, X, rule="attnlrp", absorbed=True)(X, TARGET)
    assert_conserved(torch.cat([relevance.flatten(1), absorbed], 1), output[torch.arange(3), TARGET], RELEVANCE_FORM)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("rule", ["epsilon", "z+", "gamma", "alpha2beta1", "lrp-0", "w2", "flat"])
def test_methods_of_lrp_hold_weights_and_statistics(rule: str) -> None:
    model = encoder()
    output, relevance, absorbed = relcompile.compile(model, X, rule=rule, absorbed=True)(X, TARGET)
    assert_conserved(torch.cat([relevance.flatten(1), absorbed], 1), output[torch.arange(3), TARGET], RELEVANCE_FORM)
    assert relevance.abs().max() > 0


def test_without_biases_only_softmaxes_absorb() -> None:
    model = encoder()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            nn.init.zeros_(parameter)
    output, relevance = relcompile.compile(model, X, rule="cp-lrp")(X, TARGET)
    assert_conserved(relevance, output[torch.arange(3), TARGET], RELEVANCE_FORM)


VISION: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (vision_transformer, 32),
    "swin": (swin, 32),
    "swin v2": (swin_v2, 32),
    "maxvit": (max_vit, 64),
    "convnext": (conv_next, 32),
}


def vision(name: str) -> tuple[nn.Module, Tensor]:
    build, size = VISION[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model.double().eval(), x


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", VISION)
def test_gradient_is_autograd(name: str) -> None:
    model, x = vision(name)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[torch.arange(3), TARGET].sum(), leaf)
    output, gradient = relcompile.compile(model, x, rule="gradient")(x, TARGET)
    assert_close(output, model(x).detach(), FLOAT64)
    assert_close(gradient, expected, FLOAT64)


@pytest.mark.sampled(6)
@pytest.mark.slow
@pytest.mark.parametrize("name", VISION)
def test_vision_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    model, x = vision(name)
    expected = relcompile.compile(model, x, rule="attnlrp")(x, TARGET)[1]
    relcompile.compile(model.float(), x.float(), rule="attnlrp").save(tmp_path / "x.onnx")
    assert_cuda_kernels(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(x.float().numpy(), target=TARGET.numpy())
    assert_close(found.relevance, expected, ONNX)


@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_equals_patched_gradients(name: str, method: str) -> None:
    model, x = vision(name)
    expected = patched_gradients.explain(model, x, TARGET, method)
    assert_close(relcompile.compile(model, x, rule=method)(x, TARGET)[1], expected, FLOAT64)
