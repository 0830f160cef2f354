"""Does relevance cancel? Asked after every compilation from the command line, on one example."""

from __future__ import annotations

from typing import Final

import torch

from relcompile.backend.compiled import Compiled
from relcompile.metadata import Metadata
from relcompile.question.targets import TARGET_INPUT

SUSPICIOUS: Final = 10.0  # shares of a score lie in -1..1 where nothing cancels


@torch.no_grad()
def largest_share(explainer: Compiled) -> float | None:
    """The largest |R| over |score| of the first example.

    Relevances of both signs grow without a bound where the summands of a sum, or the terms of a layer, cancel: such a
    map says little. None if the explainer distributes something else than an entry of its output.
    """
    metadata, arguments = explainer.metadata, explainer.example_arguments(1)
    values = dict(zip(metadata.output_names, explainer(*arguments), strict=True))
    score = _score(values[metadata.explained], metadata, dict(zip(explainer.examples, arguments, strict=True)))
    if score is None or score == 0:
        return None
    return max(float(values[name].abs().amax()) for name in metadata.relevance) / score


def _score(output: torch.Tensor, metadata: Metadata, arguments: dict[str, torch.Tensor]) -> float | None:
    """The magnitude of what is distributed."""
    target = metadata.target
    whole = target.questions is None and not metadata.masks
    if target.mode not in ("index", "argmax", "fixed") or not whole or metadata.quantity != "the output":
        return None
    if output.dim() < 2:
        return float(output.abs().sum())
    if target.mode == "argmax":
        return float(output.amax(1).sum().abs())
    index = target.index if target.index is not None else int(arguments[TARGET_INPUT][0])
    return float(output[:, index].sum().abs())
