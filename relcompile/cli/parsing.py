"""Text of the command line -> typed values, and a first run of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from relcompile.errors import InputSpecError
from relcompile.frontend.capture import call_arguments
from relcompile.metadata import Preprocessing
from relcompile.methods.rules.parameters import Bounds


def bounds(text: str | None) -> Bounds | None:
    """Read "LOW,HIGH".

    Raises:
        InputSpecError: it does not read like that.
    """
    if text is None:
        return None
    try:
        low, high = _numbers(text)
    except ValueError as error:
        raise InputSpecError(f"--bounds {text!r} does not read LOW,HIGH") from error
    return low, high


def preprocessing(
    resize: int | None,
    crop: int | None,
    mean: str | None,
    std: str | None,
    interpolation: Any,
    channels: Any,
    scale: float | None,
) -> Preprocessing | None:
    """The options of the command line as one object; None if none of them was given.

    Raises:
        InputSpecError: an option is not what it should be.
    """
    if (resize, crop, mean, std, interpolation, channels, scale) == (None,) * 7:
        return None
    interpolation, channels = interpolation or "bilinear", channels or "RGB"
    if interpolation not in ("bilinear", "bicubic") or channels not in ("RGB", "BGR"):
        raise InputSpecError(
            f"--interpolation {interpolation} --channels {channels}: want bilinear or bicubic, RGB or BGR"
        )
    try:
        count = len(_numbers(mean or std or "0,0,0"))
        shift = _numbers(mean) if mean else (0.0,) * count
        spread = _numbers(std) if std else (1.0,) * count
        return Preprocessing(resize, interpolation, crop, shift, spread, channels, 255.0 if scale is None else scale)
    except ValueError as error:
        raise InputSpecError(f"preprocessing: {error}") from error


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{text} is not finite")
    return numbers


def try_forward(model: torch.nn.Module, inputs: dict[str, torch.Tensor], specs: tuple[str, ...]) -> None:
    """Run the model once: a wrong input shape is easier to understand from it than from the capture of it.

    Raises:
        InputSpecError: it does not run on inputs of this shape.
    """
    try:
        with torch.no_grad():
            run_model(model, inputs)
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputSpecError(
            f"the model does not run on input {', '.join(specs)}: {reason}\n"
            "  give its shape, and its dtype if it is not float32, with --input 1x3x224x224:float16"
        ) from error


def check_channels(preprocessing: Preprocessing | None, inputs: Mapping[str, torch.Tensor]) -> None:
    """Photographs become the input: its channels are those of the preprocessing.

    Raises:
        InputSpecError: they are not.
    """
    shapes = [tensor.shape for tensor in inputs.values() if tensor.dim() == 4]
    if preprocessing is not None and shapes and shapes[0][1] != len(preprocessing.mean):
        raise InputSpecError(
            f"the input has {shapes[0][1]} channels, but --mean and --std have {len(preprocessing.mean)}"
        )


def run_model(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
    """What the model returns for `inputs`."""
    args, kwargs = call_arguments(model, inputs)
    return model(*args, **kwargs)
