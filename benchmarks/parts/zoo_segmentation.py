"""The models of the zoo that divide images and volumes into regions: of segmentation_models_pytorch and of monai.

Neither is among what relcompile's tests need: `pip install --no-deps monai einops segmentation_models_pytorch` adds
them to a torch that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from benchmarks.parts.specimen import CLASSES, Inputs, Specimen, images, stirred


def _unet_of_resnet() -> tuple[nn.Module, Inputs]:
    smp: Any = import_module("segmentation_models_pytorch")
    return stirred(smp.Unet("resnet18", encoder_weights=None, classes=CLASSES)), images(64)


def _segformer_of_mobilenet() -> tuple[nn.Module, Inputs]:
    smp: Any = import_module("segmentation_models_pytorch")
    return stirred(smp.Segformer("mobilenet_v2", encoder_weights=None, classes=CLASSES)), images(64)


def _unet_of_volumes() -> tuple[nn.Module, Inputs]:
    sizes: dict[str, Any] = {"channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 2}
    model = _monai().UNet(spatial_dims=3, in_channels=1, out_channels=CLASSES, **sizes)
    return stirred(model), {"x": torch.randn(2, 1, 16, 16, 16)}


def _swin_unetr() -> tuple[nn.Module, Inputs]:
    model = _monai().SwinUNETR(in_channels=1, out_channels=CLASSES, feature_size=12, spatial_dims=2)
    return stirred(model), {"x_in": torch.randn(2, 1, 64, 64)}


def _monai() -> Any:
    return import_module("monai.networks.nets")


_SMP: Mapping[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "Unet(resnet18)": _unet_of_resnet,
    "Segformer(mobilenet_v2)": _segformer_of_mobilenet,
}
_MONAI: Mapping[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "UNet, 3 axes": _unet_of_volumes,
    "SwinUNETR, 2 axes": _swin_unetr,
}


def smp_models() -> Iterator[Specimen]:
    """A network of convolutions, and one of a decoder that mixes scales."""
    for name, build in _SMP.items():
        yield Specimen("segmentation_models_pytorch", name.partition("(")[0], name, build)


def monai_models() -> Iterator[Specimen]:
    """A network of volumes, and one of attention in windows."""
    for name, build in _MONAI.items():
        yield Specimen("monai", name.partition(",")[0], name, build)
