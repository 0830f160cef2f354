"""The models of the zoo: torchvision's and timm's, with random weights, on images as small as they take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn

from benchmarks.parts.specimen import CLASSES, Inputs, Specimen, images, stirred
from benchmarks.parts.zoo_segmentation import monai_models, smp_models
from benchmarks.parts.zoo_transformers import transformers_models

# Sides of the images, in pixels, of those that 64 are too few for.
_SIDES = {"inception": 96, "maxvit": 224, "s3d": 224, "mvit": 224, "vit": 32, "vit_h_14": 28}
_PLAIN = {"aux_logits": False, "init_weights": False}
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"inception": _PLAIN, "googlenet": _PLAIN}
_DENSE = {"weights_backbone": None}


def torchvision_models() -> Iterator[Specimen]:
    """Every classifier, the small ones first; then segmentation and video."""
    from torchvision import models

    yield from _of_torchvision(models, images)
    yield from _of_torchvision(models.segmentation, images, _DENSE)
    yield from _of_torchvision(models.video, _films)


def _of_torchvision(
    module: Any, inputs: Callable[[int, str], Inputs], settings: Mapping[str, Any] | None = None
) -> Iterator[Specimen]:
    from torchvision import models

    sizes = {n: models.get_model_weights(n).DEFAULT.meta["num_params"] for n in models.list_models(module=module)}  # type: ignore[attr-defined]
    for name in sorted(sizes, key=lambda name: sizes[name]):
        family = _family(name)
        kind = family.split("_")[0]

        def build(called: str = name, kind: str = kind) -> tuple[nn.Module, Inputs]:
            side = _SIDES.get(called, _SIDES.get(kind, 64))
            more = {**(settings or {}), **_SETTINGS.get(kind, {}), **({"image_size": side} if kind == "vit" else {})}
            model = models.get_model(called, weights=None, num_classes=CLASSES, **more)
            (name,) = signature(model.forward).parameters
            return stirred(model), inputs(side, name)

        yield Specimen("torchvision", family, name, build)


def _family(name: str) -> str:
    """`regnet_y` of regnet_y_400mf, `vgg_bn` of vgg11_bn."""
    start = re.match(r"(wide_)?[a-z]+(3d|_v\d|_[xy](?=_))?", name)
    return (start.group() if start else name) + ("_bn" if name.endswith("_bn") else "")


def _films(size: int, name: str) -> Inputs:
    return {name: torch.randn(2, 3, 16, size, size)}


_SMALL = ("test", "atto", "femto", "pico", "nano", "xxs", "tiny", "xs", "mini", "small", "_s")


def timm_models() -> Iterator[Specimen]:
    """The model of each family that its name calls smallest."""
    import timm

    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if names:
            name = min(names, key=lambda n: (next((k for k, word in enumerate(_SMALL) if word in n), 99), len(n), n))
            yield Specimen("timm", family, name, lambda name=name: _timm_model(name))


def _timm_model(name: str) -> tuple[nn.Module, Inputs]:
    """On images of 64 if the model takes them, else on those that it was made for."""
    import timm

    try:
        model, inputs = timm.create_model(name, num_classes=CLASSES, img_size=64), images(64)
    except (TypeError, ValueError, AssertionError):
        model, inputs = timm.create_model(name, num_classes=CLASSES), images(64)
    try:
        with torch.no_grad():
            model.eval()(**inputs)
    except (RuntimeError, AssertionError, ValueError):
        model = timm.create_model(name, num_classes=CLASSES)
        configuration: Any = model.pretrained_cfg
        inputs = images(configuration["input_size"][-1])
    return stirred(model), inputs


LIBRARIES: Mapping[str, Callable[[], Iterator[Specimen]]] = {
    "torchvision": torchvision_models,
    "timm": timm_models,
    "transformers": transformers_models,
    "segmentation_models_pytorch": smp_models,
    "monai": monai_models,
}
