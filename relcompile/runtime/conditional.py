"""Explaining only where the prediction asks for it; the prediction comes from a file without relevance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from relcompile.errors import InputSpecError
from relcompile.runtime.explanation import Explanation
from relcompile.runtime.feeds import Array

Scores = Literal["softmax", "sigmoid", "probabilities"]
Decision = Callable[[Array], Array]
"""Which rows are explained: the explained output of all rows -> bool (batch,)."""


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _sigmoid(scores: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * scores))


_PROBABILITIES: Final[Mapping[str, Callable[[Array], Array]]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "probabilities": lambda scores: scores,
}


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_class(value: object) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 0)


@dataclass(frozen=True)
class Condition:
    """Rows whose best class is probable enough, and one of those that matter. NaN passes no condition.

    Args:
        probability: The least one of the best class, 0..1.
        classes: The best class is one of these; empty: any.
        scores: What probabilities are of the output: its "softmax" over the classes, the "sigmoid" of each, or the
            "probabilities" themselves.

    Raises:
        InputSpecError: names the option, its value, and what is wanted.
    """

    probability: float = 0.0
    classes: tuple[int, ...] = ()
    scores: Scores = "softmax"

    def __post_init__(self) -> None:
        if not _is_probability(self.probability):
            raise InputSpecError(f"probability={self.probability!r}: want a number from 0 to 1")
        if self.scores not in _PROBABILITIES:
            raise InputSpecError(f"scores={self.scores!r}: want {', '.join(_PROBABILITIES)}")
        if not all(map(_is_class, self.classes)):
            raise InputSpecError(f"classes={self.classes!r}: want whole numbers, 0 or more")

    def __call__(self, output: Array) -> Array:
        """Which rows pass, bool (batch,).

        Args:
            output: Scores, (batch, classes); (batch,) or (batch, 1) for one number a row.

        Raises:
            InputSpecError: the output has further axes; or one number a row, of which a softmax says nothing.
        """
        rows = output.reshape(-1, 1) if output.ndim == 1 else output
        if rows.ndim != 2 or (rows.shape[1] == 1 and self.scores == "softmax"):
            raise InputSpecError(
                f"the output has the shape {output.shape}, of which scores={self.scores!r} makes no probability of "
                "each row: give other scores, or a function of your own (output -> bool (batch,))"
            )
        with np.errstate(invalid="ignore"):
            best = _PROBABILITIES[self.scores](rows.astype(np.float64)).max(1)
        matters = np.isin(rows.argmax(1), self.classes) if self.classes else True
        return (best >= self.probability) & matters


@dataclass(frozen=True, eq=False)
class ConditionalExplanation:
    """What one call of `ProductionExplainer.explain_if` found out.

    Args:
        output: The explained output of all rows, as the predicting file computes it.
        outputs: All outputs of the model, of all rows, by name.
        explained: bool (batch,): the rows that passed.
        explanation: Of these rows alone, in their order; None if there are none, and then nothing was run for it.
    """

    output: Array
    outputs: dict[str, Array]
    explained: Array
    explanation: Explanation | None


def passing(decision: Decision, output: Array) -> Array:
    """The decision, if it is one about each row.

    Raises:
        InputSpecError: it is not.
    """
    rows = np.asarray(decision(output))
    if rows.dtype != bool or rows.shape != output.shape[:1]:
        raise InputSpecError(
            f"the condition gave {rows.dtype} {rows.shape} for {len(output)} rows; want bool ({len(output)},)"
        )
    return rows
