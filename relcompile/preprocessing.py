"""How a photograph becomes a model's input: the one place that knows the units.

Pixels are 0..255. Divided by `scale` they are 0..`white`, and mean and std are in those units; the input is
(pixel / scale - mean) / std. Only the standard library and errors: the runtime reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from relcompile.errors import InputSpecError, MetadataError

_LARGEST_SIDE: Final = 2**16  # pixels
_SMALLEST, _LARGEST = 1e-6, 1e6  # of mean, std and scale: beyond, the input overflows in float32
_LEAST_RANGE, _MOST_RANGE = 0.1, 300.0  # of the input, from black to white: nobody trains beyond
_ROUNDED: Final = 0.05  # of the input's range: bounds that were written with a digit or two
_DARKEST_MEAN: Final = 1 / 255  # of white: a mean in 0..1 where pixels are 0..255 lies below


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the model's input: resize, crop, reorder channels, scale, normalise.

    Args:
        resize: Length in pixels that the shorter side gets, None to leave the size.
        interpolation: How `resize` interpolates (both antialiased, as Pillow does).
        crop: Side in pixels of the square cut from the centre, None to cut nothing. Without `resize` and `crop` the
            whole photograph is squashed to the size of the input, whatever its aspect ratio.
        mean: Subtracted after scaling, so in 0..255 / scale; three values in the order of `channels`, or one for a grey
            photograph.
        std: Divided by last; positive values in the same units, as many as in `mean`.
        channels: Order of the colour channels in the array.
        scale: Pixel values 0..255 are divided by this first; positive, usually 255.

    Raises:
        MetadataError: a value is impossible, or in other units than it can be in; says which are meant.
    """

    resize: int | None
    interpolation: Literal["bilinear", "bicubic"]
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 255.0

    def __post_init__(self) -> None:
        problem = self._impossible() or self._implausible()
        if problem is not None:
            raise MetadataError(problem)

    @property
    def white(self) -> float:
        """What a white pixel is when mean and std are applied; black is 0."""
        return 255.0 / self.scale

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What black and white pixels become, per channel."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return tuple(0.0 - mean / std for mean, std in pairs), tuple((self.white - mean) / std for mean, std in pairs)

    def require_input(self, shapes: Mapping[str, Sequence[int | str]]) -> None:
        """Refuse inputs that no photograph becomes.

        Args:
            shapes: of the model's inputs, by name, the batch first.

        Raises:
            InputSpecError: none of them is (batch, channels, height, width) of these channels, and of a size that
                resize and crop can give.
        """
        problems = [self._misfit(shape) for shape in shapes.values()]
        if None not in problems:
            raise InputSpecError("; ".join(f"input {name} {p}" for name, p in zip(shapes, problems, strict=True)))

    def require_within(self, low: float | tuple[float, ...], high: float | tuple[float, ...]) -> None:
        """Refuse bounds of the input that photographs leave, by more than rounding; per channel, or one for all.

        Raises:
            InputSpecError: black or white is beyond them.
        """
        for k, (black, white) in enumerate(zip(*self.bounds, strict=True)):
            least, most = (bound[k % len(bound)] if isinstance(bound, tuple) else bound for bound in (low, high))
            room = _ROUNDED * (white - black)
            if black < least - room or white > most + room:
                raise InputSpecError(
                    f"bounds {least:.4g} to {most:.4g} do not hold what photographs become, {black:.4g} to "
                    f"{white:.4g}: leave --bounds (bounds=) out, and they are those"
                )

    def steps(self, height: int, width: int) -> str:
        """What happens to a photograph, in words."""
        size = []
        if self.resize is not None:
            size.append(f"shorter side to {self.resize} ({self.interpolation})")
        if self.crop is not None:
            size.append(f"centre of {self.crop} x {self.crop}")
        squashed = f"squashed to {height} x {width} ({self.interpolation}), whatever its aspect ratio"
        colours = "grey" if len(self.mean) == 1 else self.channels
        low, high = map(_listed, self.bounds)
        normalised = f"({colours} / {self.scale:g} - {_listed(self.mean)}) / {_listed(self.std)}"
        return f"{', '.join(size) or squashed}; {normalised}; black is {low}, white {high}"

    def _impossible(self) -> str | None:
        divisors, sides = (*self.std, self.scale), [side for side in (self.resize, self.crop) if side is not None]
        if not len(self.mean) == len(self.std) in (1, 3):
            return "mean and std must have three values each, or one each for a grey photograph"
        if not all(map(math.isfinite, (*self.mean, *divisors))):
            return "mean, std and scale must be finite"
        if not all(value > 0 for value in divisors):
            return f"std and scale must be positive, and are {_listed(self.std)} and {self.scale:g}"
        if not all(_SMALLEST <= value <= _LARGEST for value in divisors) or max(map(abs, self.mean)) > _LARGEST:
            return f"mean must lie within ±{_LARGEST:g}, std and scale between {_SMALLEST:g} and {_LARGEST:g}"
        if not all(0 < side <= _LARGEST_SIDE for side in sides):
            return f"resize and crop must be positive, and at most {_LARGEST_SIDE}"
        if len(sides) == 2 and sides[1] > sides[0]:
            return f"crop {self.crop} is larger than resize {self.resize}: there is nothing to cut it from"
        return None

    def _implausible(self) -> str | None:
        """Values that would make every photograph alike: they are nearly always in the other of two units."""
        pixels = f"pixels, which scale={self.scale:g} makes 0..{self.white:g}"
        other = "scale=1 (--scale 1)" if self.white <= 1 else "scale=255, the default"
        meant = f"are they meant for pixels of {'0..255' if self.white <= 1 else '0..1'}? then give {other}"
        if min(self.mean) < 0:
            return f"mean {_listed(self.mean)} is negative: it is subtracted, from {pixels}"
        if max(self.mean) > self.white or 0 < max(self.mean) < _DARKEST_MEAN * self.white:
            return f"mean {_listed(self.mean)} is not one of {pixels}; {meant}"
        ranges = [self.white / std for std in self.std]
        if min(ranges) < _LEAST_RANGE or max(ranges) > _MOST_RANGE:
            return (
                f"std {_listed(self.std)} does not fit {pixels}: from black to white the input changes by "
                f"{_listed(ranges)}; {meant}"
            )
        return None

    def _misfit(self, shape: Sequence[int | str]) -> str | None:
        """Why no photograph becomes an input of this shape."""
        if len(shape) != 4 or shape[1] != len(self.mean):
            return (
                f"{list(shape)} is no photograph with {len(self.mean)} channels, as many as there are numbers in mean "
                "and std (--mean, --std)"
            )
        sides = [side for side in shape[2:] if isinstance(side, int)]
        if self.crop is not None and any(side != self.crop for side in sides):
            return f"{list(shape)} is not {self.crop} x {self.crop}, which crop={self.crop} (--crop) makes"
        if self.crop is None and self.resize is not None and sides and min(sides) != self.resize:
            return f"{list(shape)} has no side of {self.resize}, which resize={self.resize} makes without a crop"
        return None


IMAGENET: Final = Preprocessing(None, "bilinear", None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY: Final = Preprocessing(None, "bilinear", None, (0.0,), (1.0,))


def assumed(channels: int) -> tuple[Preprocessing, str]:
    """What is assumed where nobody says how a photograph becomes the input, and the sentence that says so."""
    if channels == 1:
        return GREY, "no preprocessing is known: assuming grey values from 0 to 1"
    return IMAGENET, "no preprocessing is known: assuming ImageNet's mean and standard deviation"


def _listed(numbers: Sequence[float]) -> str:
    """`0.5` if all are equal, else `0.485, 0.456, 0.406`."""
    return ", ".join(f"{number:.3g}" for number in (numbers[:1] if len(set(numbers)) == 1 else numbers))
