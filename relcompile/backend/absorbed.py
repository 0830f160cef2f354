"""How much of a score reaches the input? Asked after every compilation from the command line, on one example."""

from __future__ import annotations

from typing import Final

import torch

from relcompile.backend.compiled import Compiled
from relcompile.metadata import TARGET_INPUT

MOST: Final = 0.5  # of a score: what is absorbed above that leaves a map of little


@torch.no_grad()
def absorbed_share(explainer: Compiled) -> float | None:
    """1 - Σ R / score for the best class of the first example; None if an explainer distributes something else.

    Dead ends absorb it (units without a positive contribution under z⁺), biases and stabilisers.
    """
    metadata, arguments = explainer.metadata, dict(zip(explainer.examples, explainer.example_arguments(1), strict=True))
    target = metadata.target
    whole = target.mode in ("index", "argmax") and target.questions is None and not metadata.masks
    if not whole or target.classes is None or metadata.quantity != "the output":
        return None
    position = metadata.outputs.index(metadata.explained)
    scores = explainer(**arguments)[position][0]
    if target.mode == "index":
        arguments[TARGET_INPUT] = scores.argmax().reshape(1)
    values = dict(zip(metadata.output_names, explainer(**arguments), strict=True))
    score = float(scores.max())
    return None if score <= 0 else 1 - sum(float(values[name].sum()) for name in metadata.relevance) / score
