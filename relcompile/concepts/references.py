"""Conditional maps: what passes single channels of a layer, of references and of one picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relcompile.concepts.figure import Row, crop
from relcompile.concepts.maximisation import Maxima
from relcompile.pictures.photographs import Seen
from relcompile.runtime.production import ProductionExplainer

Array = NDArray[np.floating[Any]]


def conditional_maps(
    explainer: ProductionExplainer, x: Array, target: int, channels: Sequence[int], count: int
) -> Array:
    """Maps (K, ...) of what passes each of K channels, in one run.

    Args:
        explainer: takes many targets, and masks of one layer.
        x: the input (1, ...).
        target: the class that is explained.
        channels: their numbers.
        count: how many channels the layer has.
    """
    (mask,) = explainer.metadata.masks
    masks = np.eye(count, dtype=mask.input.dtype)[list(channels)][None]
    return explainer.explain(x, target=[target] * len(channels), masks={mask.layer: masks}).relevance[0]


def reference_rows(
    explainer: ProductionExplainer,
    maxima: Maxima,
    channels: Sequence[int],
    read: Callable[[int], Seen],
    tell: Callable[[int], None],
) -> list[Row]:
    """A row for each of `channels` with the crops of its references.

    Args:
        explainer: takes many targets, and masks of the layer.
        maxima: the samples in which channels are most relevant.
        channels: their numbers.
        read: a photograph by the number of its sample.
        tell: told how many photographs are done.
    """
    wanted = defaultdict[tuple[int, int], list[tuple[int, int]]](list)
    for row, channel in enumerate(channels):
        for rank, sample in enumerate(maxima.samples[channel]):
            if sample >= 0:
                wanted[int(sample), int(maxima.classes[channel, rank])].append((row, rank))
    crops = dict[tuple[int, int], Image.Image]()
    for number, ((sample, target), places) in enumerate(sorted(wanted.items())):
        seen = read(sample)
        asked = [channels[row] for row, _ in places]
        maps = conditional_maps(explainer, seen.array, target, asked, len(maxima.scores))
        crops.update({place: crop(seen.whole, of) for place, of in zip(places, maps, strict=True)})
        tell(number + 1)
    ranks = range(maxima.samples.shape[1])
    return [
        Row(f"channel\n{channel}", [crops[row, rank] for rank in ranks if (row, rank) in crops])
        for row, channel in enumerate(channels)
    ]
