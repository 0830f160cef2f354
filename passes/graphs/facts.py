"""What passes find out about nodes, for the passes behind them: one typed table, a row a node, a column a fact.

An entry is *known*; or *constant*: the node does not depend on the explained inputs, so there was nothing to find out;
or *absent*: nobody found it out. Reading an absent entry is a fault of whoever planned the passes, never a default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from torch.fx import Graph, Node

from passes.errors import InvariantError

T = TypeVar("T")

_ROW: Final = "facts"  # the meta key: a row dies with its node, and a copied graph has rows of its own


@final
class _Constant:
    def __repr__(self) -> str:
        return "constant"


_CONSTANT: Final = _Constant()


@final
@dataclass(frozen=True)
class Fact(Generic[T]):
    """One column of the table: what can be found out about a node.

    Attributes:
        name: as errors name it.
    """

    name: str

    def note(self, node: Node, value: T) -> None:
        """Make the entry of `node` known."""
        self._enter(node, value)

    def note_constant(self, node: Node) -> None:
        """Say that `node` does not depend on the explained inputs."""
        self._enter(node, _CONSTANT)

    def of(self, node: Node) -> T:
        """The known entry of `node`.

        Raises:
            InvariantError: it is absent or constant.
        """
        if self.is_constant(node):
            raise InvariantError(f"{self.name} of {node.name} is not known: the node is a constant")
        return row(node)[self]

    def is_constant(self, node: Node) -> bool:
        """True for a constant, False for a known entry.

        Raises:
            InvariantError: it is absent.
        """
        if self.is_absent(node):
            raise InvariantError(f"{self.name} of {node.name} was never found out: a pass is missing from the plan")
        return row(node)[self] is _CONSTANT

    def is_absent(self, node: Node) -> bool:
        """Nobody found it out."""
        return self not in row(node)

    def known_in(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of `nodes` whose entry is known, in order."""
        return [node for node in nodes if row(node).get(self, _CONSTANT) is not _CONSTANT]

    def forget(self, graph: Graph) -> None:
        """Empty the column: its entries hold no longer, or nobody else needs them."""
        for node in graph.nodes:
            if not self.is_absent(node):
                node.meta[_ROW] = {fact: value for fact, value in row(node).items() if fact != self}

    def _enter(self, node: Node, value: object) -> None:
        node.meta[_ROW] = {**row(node), self: value}


def row(node: Node) -> dict[Fact[Any], Any]:
    """Every entry of `node` that is not absent."""
    return node.meta.get(_ROW, {})
