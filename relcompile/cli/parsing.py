"""Text of the command line -> typed values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from relcompile.cli.input_specs import parse_spec
from relcompile.errors import InputSpecError
from relcompile.methods.rules.parameters import Bounds
from relcompile.pictures.photographs import Photographs
from relcompile.preprocessing import Preprocessing
from relcompile.question.references import Reference, parse_reference


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


def fallback(text: str | None) -> Literal["gradient"] | None:
    """Read "gradient".

    Raises:
        InputSpecError: it is something else.
    """
    if text not in (None, "gradient"):
        raise InputSpecError(f"--fallback {text}: want gradient, or leave it out")
    return None if text is None else "gradient"


def preprocessing(
    resize: int | None = None,
    crop: int | None = None,
    mean: str | None = None,
    std: str | None = None,
    interpolation: Any = None,
    channels: Any = None,
    scale: float | None = None,
) -> Preprocessing | None:
    """The options of the command line as one object; None if none of them was given.

    Raises:
        InputSpecError: an option is not what it should be.
    """
    if (resize, crop, mean, std, interpolation, channels, scale) == (None,) * 7:
        return None
    interpolation, chosen = interpolation or "bilinear", channels or "RGB"
    if interpolation not in ("bilinear", "bicubic") or chosen not in ("RGB", "BGR"):
        raise InputSpecError(
            f"--interpolation {interpolation} --channels {chosen}: want bilinear or bicubic, RGB or BGR"
        )
    if mean is None or std is None:
        raise InputSpecError(
            f"{'--std' if mean else '--mean'} is missing: say how pixels are normalised, with --mean and --std; "
            "ImageNet's are --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, and --mean 0,0,0 --std 1,1,1 leaves them "
            "in 0..1"
        )
    try:
        shift, spread = _numbers(mean), _numbers(std)
        found = Preprocessing(resize, interpolation, crop, shift, spread, chosen, 255.0 if scale is None else scale)
    except ValueError as error:
        raise InputSpecError(f"preprocessing: {error}") from error
    if channels is not None and len(found.mean) == 1:
        raise InputSpecError(
            f"--channels {channels}: a grey photograph, with one number in --mean, has no order of them"
        )
    return found


def reference(
    text: str | None, image: str | None, preprocessing: Preprocessing | None, specs: Sequence[str]
) -> Reference | None:
    """`--reference`, in units of the input, or `--reference-image`, in those of photographs.

    Raises:
        InputSpecError: both were given, the picture cannot be read, or nobody says how it becomes the input.
    """
    if text is not None and image is not None:
        raise InputSpecError("--reference and --reference-image say the same thing in two units: give one of them")
    if image == "blur":
        return "input"
    if image is None:
        return None if text is None else parse_reference(text)
    if preprocessing is None:
        raise InputSpecError(
            f"--reference-image {image}: say how a picture becomes the input, with --mean, --std, --resize and --crop"
        )
    if image == "mean":
        return (0.0,) * len(preprocessing.mean)
    if image == "black":
        return preprocessing.bounds[0]
    return torch.from_numpy(Photographs(*_size(specs), preprocessing).reference(image)[0])


def _size(specs: Sequence[str]) -> tuple[int, int]:
    """Height and width of the photographs that become the input."""
    shapes = [shape for _, shape, _ in map(parse_spec, specs) if len(shape) == 4]
    if len(shapes) != 1:
        raise InputSpecError(f"a picture as reference needs the one input that is a photograph: {', '.join(specs)}")
    return shapes[0][2], shapes[0][3]


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{text} is not finite")
    return numbers
