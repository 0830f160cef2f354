"""Contrasts: one class against another, or against the mean of all others.

Notation: y the explained output (N, C, ...); c 1 at the class and 0 elsewhere, d the same for what it is set against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch

from passes.graphs.emitter import Emitter, Value, aten
from relcompile.errors import TargetError
from relcompile.files.records import OTHERS, TargetRecord
from relcompile.question.many_targets import FixedClasses, first_of
from relcompile.question.targets import EXPLAINED_CLASSES, FIRST_QUESTION, BestClass, FixedClass, Target

_AGAINST: Final = f"{OTHERS}, argmax or a class number"


@final
@dataclass(frozen=True)
class Contrast(Target):
    """What speaks for a class and not for another one: y_a - y_b is explained.

    Equation: c - d; d = (1 - c) / (C - 1), the mean, where it is set against all others.

    Args:
        of: chooses the class, for each question.
        against: chooses what it is set against, for all questions alike; None: all others.
    """

    of: Target
    against: FixedClass | BestClass | None

    def __post_init__(self) -> None:
        for name in ("is_input", "is_seed", "is_many"):
            object.__setattr__(self, name, getattr(self.of, name))

    def record(self, classes: int | None, /) -> TargetRecord:
        if not self.of.is_one_class:
            raise TargetError(
                "a seed is set against nothing, nor is an entry or a region: only one class against another"
            )
        if classes is None or classes < 2:
            raise TargetError("a contrast needs two classes, but the explained output has one number per sample")
        if isinstance(self.against, FixedClass):
            self.against.record(classes)
            if self.against == self.of:
                raise TargetError(f"class {self.against.index} against itself is 0 everywhere")
        return replace(self.of.record(classes), against=(self.name,))

    def add_input(self, emit: Emitter, like: torch.Tensor, /) -> None:
        self.of.add_input(emit, like)

    def choice(self, y: Value, /) -> Value:
        c = self.of.choice(y)
        d = (c.ones() - c) / (y.shape[1] - 1) if self.against is None else self.against.choice(y)
        return c - d

    @property
    def name(self) -> int | str:
        """What the class is set against."""
        if self.against is None:
            return OTHERS
        return self.against.index if isinstance(self.against, FixedClass) else "argmax"


@final
@dataclass(frozen=True)
class FixedContrasts(Target):
    """Always these classes, each on its own or against something of its own."""

    questions: tuple[FixedClass | Contrast, ...]
    is_many = True

    def record(self, classes: int | None, /) -> TargetRecord:
        records = [question.record(classes) for question in self.questions]
        against = tuple("" if not record.against else record.against[0] for record in records)
        return replace(self._classes.record(classes), against=against)

    def choice(self, y: Value, /) -> Value:
        first_of(self._classes.chosen(y), EXPLAINED_CLASSES)
        choices = [question.choice(y) for question in self.questions]
        return first_of(y.emit.call(aten.stack.default, choices, 1), FIRST_QUESTION)

    @property
    def _classes(self) -> FixedClasses:
        classes = (question.of if isinstance(question, Contrast) else question for question in self.questions)
        return FixedClasses(tuple(one.index for one in classes if isinstance(one, FixedClass)))


def contrast_named(of: Target, against: str) -> Contrast:
    """`of`, set against what `against` says.

    Raises:
        TargetError: it says nothing that exists.
    """
    if against == OTHERS:
        return Contrast(of, None)
    if against == "argmax":
        return Contrast(of, BestClass())
    if not against.isdecimal():
        raise TargetError(f"a class is set against {_AGAINST}, not against {against!r}")
    return Contrast(of, FixedClass(int(against)))


def several(questions: Sequence[FixedClass | Contrast]) -> FixedClasses | FixedContrasts:
    """Several questions, none of which the caller chooses."""
    plain = [question.index for question in questions if isinstance(question, FixedClass)]
    return FixedClasses(tuple(plain)) if len(plain) == len(questions) else FixedContrasts(tuple(questions))
