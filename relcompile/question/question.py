"""What is to be explained, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from passes.relevance.ledgers import Ledger
from passes.relevance.unroll_samples import Rows
from relcompile.methods.composites import Composite
from relcompile.question.targets import Target


@dataclass(frozen=True)
class Question:
    """What is to be explained, and where.

    Attributes:
        composite: the attribution method.
        target: which entry of the explained output.
        inputs: names of the model's inputs.
        sources: names of those that are explained.
        outputs: names of the model's outputs.
        output: position of the explained one.
        place: name of the node whose relevance is wanted; None for that of the explained inputs.
        ledgers: what else is written down about every operator.
        references: what differences are taken from, by name of an explained input: one sample, or None for a further
            input of the explainer; None for a method without differences.
    """

    composite: Composite
    target: Target
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    output: int
    place: str | None = None
    ledgers: tuple[Ledger, ...] = ()
    references: Mapping[str, torch.Tensor | None] | None = None

    @property
    def rows(self) -> Rows:
        """How samples and their copies lie in the batch."""
        return Rows() if self.composite.sampling is None else Rows(self.composite.sampling.count)

    @property
    def noise(self) -> Mapping[str, str]:
        """Explained inputs, and the names of the inputs of noise that their copies need."""
        if self.composite.sampling is None or not self.composite.sampling.noisy:
            return {}
        single = len(self.sources) == 1
        return {source: "noise" if single else f"noise_{source}" for source in self.sources}
