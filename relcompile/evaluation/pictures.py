"""Maps as small pictures, for a report."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from relcompile.evaluation.results import Picture
from relcompile.evaluation.trial import Trial

_SHOWN: Final = 6
_SIDE: Final = 168  # pixels, at least
_PERCENTILE: Final = 99.5
COLOURS: Final = "RdBu_r"


def pictures_of(trial: Trial) -> Iterator[Picture]:
    """The first samples: picture and map as PNG in base64, and the relevance that full colour stands for."""
    subject = trial.bench.subject
    for sample, (image, relevance) in enumerate(zip(subject.images[:_SHOWN], trial.maps[:_SHOWN], strict=True)):
        limit = float(np.percentile(np.abs(relevance), _PERCENTILE)) or float(np.abs(relevance).max()) or 1.0
        coloured: Any = colormaps[COLOURS](0.5 + 0.5 * np.clip(relevance / limit, -1, 1))
        yield Picture(
            sample,
            target=int(subject.targets[sample]),
            limit=limit,
            image=_png(_photograph(image.double().numpy())),
            map=_png((255 * coloured[..., :3]).astype(np.uint8)),
        )


def _photograph(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(C, H, W) -> (H, W, 3), from the smallest to the largest value."""
    low, high = image.min(), image.max()
    unit = (image - low) / (high - low or 1.0)
    shown = unit if len(unit) == 3 else unit.mean(0, keepdims=True).repeat(3, 0)
    return (255 * shown).transpose(1, 2, 0).astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Small pictures are enlarged by a whole number, without blur."""
    factor = max(1, round(_SIDE / max(pixels.shape[:2])))
    image = Image.fromarray(pixels)
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()
