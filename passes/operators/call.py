"""`Call`: a typed, schema-ordered view of one operator in the forward half."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, TypeVar, get_args

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value
from passes.graphs.graph import layer_name
from passes.graphs.nodes import argument, arguments, map_nodes

T = TypeVar("T")
Adjoints: TypeAlias = tuple[Value | None, ...]
Active: TypeAlias = Callable[[Node], bool]
Kind: TypeAlias = Literal[
    "affine", "pool", "activation", "sum", "shift", "scale", "product", "softmax", "embedding", "structure"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Call:
    """One operator `y = f(a, b, ...)` and the values that relevance may flow to.

    Attributes:
        node: the operator's node in the forward half.
        emit: writes the relevance half.
        operands: the operand nodes, by position in the operator's schema. `x + x` has two.
    """

    node: Node
    emit: Emitter
    operands: tuple[Node, ...]

    kind: ClassVar[Kind]
    moves_values: ClassVar[bool] = False
    """True if every output element is a copy of one operand element, or a constant."""
    keeps_places: ClassVar[bool] = False
    """True if every output element comes from the operand elements at its own place, in row-major order."""

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """The operator at `node`, or None if it is not used as such calls are; `active`: depends on the input."""
        raise NotImplementedError(f"{cls.__name__} does not say when an operator is one")

    @property
    def output(self) -> Value:
        """The value `y`."""
        return self.emit.value(self.node)

    @property
    def layer(self) -> str:
        """The user's name of the layer that the operator belongs to."""
        return layer_name(self.node)

    def operand(self, position: int) -> Value:
        """The operand at `position`."""
        return self.emit.value(self.operands[position])

    def adjoint(self, multiplier: Value) -> Adjoints:
        """The exact vector-Jacobian product: one entry per operand, None where nothing flows."""
        raise NotImplementedError(f"{type(self).__name__} defines no adjoint")

    def run(self, *operands: Value) -> Value:
        """The operator on other operands, with its own other arguments."""
        replaced = {node: value.node for node, value in zip(self.operands, operands, strict=True)}
        args, kwargs = map_nodes((self.node.args, self.node.kwargs), lambda node: replaced.get(node, node))
        return self.emit.call(self.node.target, *args, **kwargs)

    def lazily(self, write: Callable[[Any], T]) -> Callable[[], T]:
        """`write(self)` as a fact about its node: once, on behalf of the operator, when somebody asks."""

        def written() -> T:
            with self.emit.on_behalf_of(self.node):
                return write(self)

        return cache(written)

    def argument(self, place: int | str) -> Any:
        """The operator's argument at a position, or of a name, in its schema."""
        return argument(self.node, place)


@dataclass(frozen=True, eq=False)
class UnaryCall(Call):
    """An operator with one operand, its first argument."""

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        return cls(node, emit, (argument(node, 0),))

    @property
    def x(self) -> Value:
        """The operand."""
        return self.operand(0)

    def at(self, x: Value) -> Self:
        """The same operator on another operand: writes its node."""
        moved = self.emit.call(self.node.target, x, *arguments(self.node)[1:], **self.node.kwargs)
        return replace(self, node=moved.node, operands=(x.node,))


class OpaqueCall(Call):
    """An operator that relevance has no way through, seen from above: it stands between what it reads and its value."""

    kind = "structure"
