"""Photographs -> the input of one explainer, and the pictures that differences are taken from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from relcompile.errors import InputSpecError
from relcompile.metadata import Metadata
from relcompile.pictures.images import load_image, normalise, region, view_of
from relcompile.preprocessing import Preprocessing, assumed

_BLUR: Final = 10 / 224  # standard deviation of the blurred reference, in sides: Fong & Vedaldi 2017, section 4


@dataclass(frozen=True)
class Seen:
    """What a model sees of a photograph.

    Attributes:
        array: the input, (1, channels, height, width).
        view: the same part as a picture, as large as the input.
        whole: the same part in the photograph's own pixels.
    """

    array: NDArray[np.float32]
    view: Image.Image
    whole: Image.Image


@dataclass(frozen=True)
class Photographs:
    """How photographs become the input of one explainer.

    Attributes:
        height, width: of the input.
        preprocessing: how.
        assumption: the sentence that says that nobody told; None if somebody did.
    """

    height: int
    width: int
    preprocessing: Preprocessing
    assumption: str | None = None

    @classmethod
    def of(cls, metadata: Metadata) -> Self:
        """Those that an explainer takes.

        Raises:
            InputSpecError: it takes none, or not with its preprocessing.
        """
        shape = metadata.inputs[0].shape
        sizes = [size for size in shape[1:] if isinstance(size, int)]
        if len(metadata.inputs) != 1 or len(sizes) != 3 or len(shape) != 4 or shape[1] not in (1, 3):
            inputs = ", ".join(f"{i.name} {list(i.shape)}" for i in metadata.inputs)
            raise InputSpecError(f"this explainer takes {inputs}, not one photograph; use relcompile.load in Python")
        channels, height, width = sizes
        known = metadata.preprocessing
        if known is None:
            return cls(height, width, *assumed(channels))
        known.require_input({record.name: record.shape for record in metadata.inputs})
        return cls(height, width, known)

    @property
    def steps(self) -> str:
        """What happens to a photograph, in words."""
        return self.preprocessing.steps(self.height, self.width)

    def read(self, photograph: Image.Image | Path | str) -> Seen:
        """What the model sees.

        Raises:
            InputSpecError: it is no photograph, or too small.
        """
        image = photograph if isinstance(photograph, Image.Image) else load_image(photograph)
        image = image.convert("RGB")
        view = view_of(image, self.preprocessing, (self.height, self.width))
        return Seen(normalise(view, self.preprocessing), view, image.crop(region(image, self.preprocessing)))

    def reference(self, what: str, view: Image.Image | None = None) -> NDArray[np.float32]:
        """What differences are taken from, (1, channels, height, width).

        Args:
            what: "mean" (the mean colour), "black", "blur" (the photograph, blurred), or a picture's file.
            view: the photograph, for "blur".

        Raises:
            InputSpecError: the file is no photograph, or there is none to blur.
        """
        channels = len(self.preprocessing.mean)
        colours = {"mean": (0.0,) * channels, "black": self.preprocessing.bounds[0]}.get(what)
        if colours is not None:
            flat = np.array(colours, np.float32).reshape(1, channels, 1, 1)
            return np.ascontiguousarray(np.broadcast_to(flat, (1, channels, self.height, self.width)))
        if what != "blur":
            return self.read(what).array
        if view is None:
            raise InputSpecError("a blurred reference is another one for each photograph: there is none yet")
        blurred = view.filter(ImageFilter.GaussianBlur(_BLUR * min(view.size)))
        return normalise(blurred, self.preprocessing)


def is_photograph(value: Any) -> bool:
    """Whether this is a picture, or names a file."""
    return isinstance(value, Image.Image | Path | str)
