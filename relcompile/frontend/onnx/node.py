"""One node of an ONNX graph, as the functions that compute operators see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relcompile.errors import ModelFileError

Numbers: TypeAlias = NDArray[
    Any
]  # what is known while the graph is laid out: constants, and sizes (also symbolic ones)


@dataclass(frozen=True)
class Branch:
    """Nodes that are computed if a condition holds, and the names of what comes of them."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: of the layer that it becomes; printable, and no other node's.
        operator: its type, of the standard domain.
        opset: the version of the operators that the file is written in.
        inputs: names of its operands; "" where an optional one is left out.
        outputs: names of its results; "" where one is not wanted.
        attributes: numbers, texts, tuples of them, and arrays.
        batch: the size that the file fixes its batch to, if its first operand has the batch in front; else None.
        branches: of an `If`, what it computes where its condition holds, and where it does not.
    """

    name: str
    operator: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    batch: int | None = None
    branches: tuple[Branch, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all values that it needs, those of its branches too."""
        inner = {name: None for branch in self.branches for node in branch.nodes for name in node.reads}
        results = (name for branch in self.branches for name in branch.outputs)
        made = {name for branch in self.branches for node in branch.nodes for name in node.outputs}
        return tuple(n for n in dict.fromkeys((*self.inputs, *inner, *results)) if n and n not in made)

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return self._typed(name, int, default)

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        return float(self._typed(name, int | float, default))

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        return self._typed(name, str, default)

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers, if it is there."""
        given = self._typed(name, Sequence, ())
        return [int(value) for value in given] if name in self.attributes else None

    def floats(self, name: str) -> list[float]:
        """An attribute that is a list of numbers; empty where it is not there."""
        return [float(value) for value in self._typed(name, Sequence, ())]

    def chosen(self, name: str, operand: Numbers | None) -> list[Any] | None:
        """Integers that older opsets give as an attribute and newer ones as an operand, if they are there."""
        return self.integers(name) if operand is None else list(np.atleast_1d(operand))

    def refuse(self, reason: str) -> NoReturn:
        """This node cannot be computed.

        Raises:
            ModelFileError: always.
        """
        raise ModelFileError(f"{self.name} ({self.operator}): {reason}")

    def _typed(self, name: str, kind: Any, default: Any) -> Any:
        value = self.attributes.get(name, default)
        if not isinstance(value, kind):
            self.refuse(f"its attribute {name} is a {type(value).__name__}")
        return value
