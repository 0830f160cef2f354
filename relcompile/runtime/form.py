"""What an explainer file takes, in all: questions of users become what its graph reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from relcompile.errors import InputSpecError
from relcompile.files.records import MANY, InputRecord
from relcompile.metadata import Metadata
from relcompile.runtime.feeds import (
    Array,
    check_inputs,
    check_masks,
    check_noise,
    check_reference,
    check_target,
    inputs_but_target,
)


class Question(TypedDict, total=False):
    """What `ProductionExplainer.explain` takes beside the inputs."""

    target: int | Sequence[int] | Array | None
    reference: Array | None
    masks: Mapping[str, Array] | None
    noise: Mapping[str, Array] | None
    seed: int


@dataclass(frozen=True, eq=False)
class Asked:
    """One batch of questions, checked.

    Args:
        feeds: What the graph reads, by name.
        batch: How many rows there are.
        target: The classes, or the seed; None where it is not known before the run.
        views: What the model sees of each photograph, if one was given.
    """

    feeds: dict[str, Array]
    batch: int
    target: Array | None
    views: tuple[Any, ...] = ()

    def of(self, rows: Array, batched: Collection[str]) -> Asked:
        """These rows alone, bool (batch,); `batched` names the inputs that have one entry a row."""
        feeds = {name: array[rows] if name in batched else array for name, array in self.feeds.items()}
        return Asked(feeds, int(rows.sum()), None if self.target is None else self.target[rows])


@dataclass(frozen=True)
class Form:
    """What a file takes.

    Args:
        metadata: What it says about itself.
        target: The input that says what is explained, if there is one.
    """

    metadata: Metadata
    target: InputRecord | None

    def check(
        self,
        arrays: Sequence[Any],
        target: object = None,
        reference: Array | None = None,
        masks: Mapping[str, Array] | None = None,
        noise: Mapping[str, Array] | None = None,
        seed: int = 0,
    ) -> Asked:
        """What the graph reads of the model's own inputs, in their order, and the rest of a question.

        Raises:
            InputSpecError, TargetError: see `ProductionExplainer.explain`.
        """
        metadata = self.metadata
        feeds, batch = check_inputs(metadata.inputs, arrays)
        checked = check_target(metadata.target, self.target, target, batch)
        questions = checked.shape[1] if metadata.target.questions == MANY and checked is not None else 1
        feeds |= check_masks(metadata.masks, masks or {}, batch, questions)
        feeds |= check_noise(metadata.noise, noise or {}, seed, batch)
        if self.target is not None and checked is not None:
            feeds[self.target.name] = checked
        return Asked(feeds | check_reference(metadata.reference_input, reference, batch), batch, checked)

    def named(self, named: Mapping[str, Array], seed: int = 0) -> tuple[list[Array], Question]:
        """The model's own inputs and a question, from arrays by the graph's names; see `ProductionExplainer.feeds`."""
        metadata, arrays = self.metadata, self.own(named)
        target = None if self.target is None else named.get(self.target.name)
        reference = None if metadata.reference_input is None else named.get(metadata.reference_input.name)
        masks = {m.layer: named[m.input.name] for m in metadata.masks if m.input.name in named}
        noise = {record.name: named[record.name] for record in metadata.noise if record.name in named}
        if isinstance(target, np.ndarray) and self.target is not None:
            column = (target.shape[1:], self.target.shape) == ((1,), ("batch",))
            target = target.reshape(-1) if column else target
        return arrays, Question(target=target, reference=reference, masks=masks, noise=noise, seed=seed)

    def own(self, named: Mapping[str, Array]) -> list[Array]:
        """The model's own inputs, in their order, if nothing is missing and everything known."""
        missing = [record.name for record in self.metadata.inputs if record.name not in named]
        if missing:
            raise InputSpecError(
                f"the inputs {', '.join(missing)} are missing; {', '.join(named) or 'none'} were given"
            )
        known = [record.name for record in (*inputs_but_target(self.metadata), self.target) if record is not None]
        unknown = [name for name in named if name not in known]
        if unknown:
            raise InputSpecError(f"{', '.join(unknown)} was given, but the file takes {', '.join(known)}")
        return [named[record.name] for record in self.metadata.inputs]

    def completed(self, question: Question, output: Array) -> Question:
        """The question with a target: the best class of each row, where none is given and the file takes one."""
        if question.get("target") is not None or not self.metadata.target.takes_class:
            return question
        return {**question, "target": best_class(output, several=self.metadata.target.questions is not None)}


def best_class(output: Array, *, several: bool) -> Array:
    """The best class of every row as a target: (batch,), or (batch, 1) where a row is asked several."""
    scores = output.reshape(*output.shape[:2], -1).sum(2) if output.ndim > 1 else output.reshape(-1, 1)
    best = scores.argmax(1).astype(np.int64)
    return best[:, None] if several else best
