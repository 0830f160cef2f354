"""Sums, products, and their forms with a constant operand."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Self

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import argument
from passes.operators.call import Active, Adjoints, Call, UnaryCall


@dataclass(frozen=True, eq=False)
class CombinationCall(Call):
    """`y = Σ_k a_k x_k + b`, elementwise with broadcasting; a_k and b are constants."""

    keeps_places = True

    def term(self, value: Value, position: int, /) -> Value:
        """`a_k value`, for the operand k at `position`."""
        raise NotImplementedError

    def adjoint(self, multiplier: Value) -> Adjoints:
        return tuple(self.term(multiplier, k).sum_to(self.operand(k)) for k in range(len(self.operands)))


@dataclass(frozen=True, eq=False)
class SumCall(CombinationCall):
    """`y = a + b` or `y = a - b` (also scaled: `a + alpha b`), with broadcasting. Residual connections."""

    kind = "sum"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Both operands depend on the input."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if len(operands) == 2 else None

    @property
    def signs(self) -> tuple[float, ...]:
        """The factor in front of each summand."""
        return summand_signs(self.node)

    @property
    def identity(self) -> int | None:
        """Position of the operand with the shorter way to a common ancestor; None if the ways are equal."""
        a, b = self.operands
        ways = _distances(a), _distances(b)
        common = ways[0].keys() & ways[1].keys()
        nearest = min(common, key=lambda node: ways[0][node] + ways[1][node], default=None)
        if nearest is None or ways[0][nearest] == ways[1][nearest]:
            return None
        return 0 if ways[0][nearest] < ways[1][nearest] else 1

    def summand(self, position: int) -> Value:
        """What the operand at `position` adds to the output (its own shape, not broadcast)."""
        return self.term(self.operand(position), position)

    def term(self, value: Value, position: int, /) -> Value:
        return scaled(value, self.signs[position])


@dataclass(frozen=True, eq=False)
class ShiftCall(CombinationCall):
    """`y = x + c` with a constant c: a bias on its own."""

    kind = "shift"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """One operand depends on the input."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if len(operands) == 1 else None

    @property
    def sign(self) -> float:
        """-1 for `c - x`, alpha for `c + alpha x`, 1 otherwise."""
        return summand_signs(self.node)[0 if self.node.args[0] is self.operands[0] else 1]

    def term(self, value: Value, _position: int, /) -> Value:
        return scaled(value, self.sign)


@dataclass(frozen=True, eq=False)
class ScaleCall(CombinationCall):
    """`y = c x` or `y = x / c` with a constant c."""

    kind = "scale"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """One operand depends on the input: of a quotient, the dividend."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if len(operands) == 1 else None

    @property
    def factor(self) -> Any:
        """The node or number c: a factor, or a divisor."""
        return next(a for a in self.node.args if a is not self.operands[0])

    def term(self, value: Value, _position: int, /) -> Value:
        return self.emit.call(self.node.target, value, self.factor)


class NegateCall(CombinationCall, UnaryCall):
    """`y = -x`."""

    kind = "scale"

    def term(self, value: Value, _position: int, /) -> Value:
        return -value


@dataclass(frozen=True, eq=False)
class ProductCall(Call):
    """`y = a b` of two values that both depend on the input: gates, attention weights, squares."""

    kind = "product"
    keeps_places = True

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Both operands depend on the input."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if len(operands) == 2 else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        a, b = self.operand(0), self.operand(1)
        return (multiplier * b).sum_to(a), (multiplier * a).sum_to(b)


@dataclass(frozen=True, eq=False)
class QuotientCall(Call):
    """`y = a / b` where b depends on the input, and a may."""

    kind = "product"
    keeps_places = True

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """The divisor depends on the input."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if argument(node, 1) in operands else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        divisor = self.emit.value(self.argument(1))
        of_divisor = (-(multiplier * self.output / divisor)).sum_to(divisor)
        if len(self.operands) == 1:
            return (of_divisor,)
        return (multiplier / divisor).sum_to(self.operand(0)), of_divisor


@dataclass(frozen=True, eq=False)
class MatmulCall(Call):
    """`y = a @ b` of two values that both depend on the input: matrices, whose leading axes are broadcast."""

    kind = "product"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """Both operands depend on the input."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if len(operands) == 2 and _are_matrices(node) else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        return self.adjoint_at(multiplier, self.operand(0), self.operand(1))

    def adjoint_at(self, multiplier: Value, a: Value, b: Value) -> tuple[Value, Value]:
        """The adjoint if the operands were a and b."""
        matmul = aten.matmul.default
        of_a = self.emit.call(matmul, multiplier, swapped(b)).sum_to(a)
        return of_a, self.emit.call(matmul, swapped(a), multiplier).sum_to(b)


@dataclass(frozen=True, eq=False)
class MixCall(Call):
    """`y = a @ b` where one is a constant that is no layer's weight: an adjacency matrix, a mask of relations."""

    kind = "scale"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """One operand depends on the input."""
        operands = _active_operands(node, active)
        return cls(node, emit, operands) if len(operands) == 1 and _are_matrices(node) else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        a, b = (self.emit.value(self.argument(position)) for position in range(2))
        if self.operands[0] is a.node:
            return (self.emit.call(aten.matmul.default, multiplier, swapped(b)).sum_to(a),)
        return (self.emit.call(aten.matmul.default, swapped(a), multiplier).sum_to(b),)


class ReduceCall(UnaryCall):
    """`y = sum(x)` over axes."""

    kind = "pool"

    @classmethod
    def view(cls, node: Node, emit: Emitter, _active: Active, /) -> Self | None:
        """Not over the batch: the samples of an explainer do not see each other."""
        call = cls(node, emit, (argument(node, 0),))
        return None if any(emit.is_of_batch(call.x.shape[dim]) for dim in call.dims) else call

    @property
    def dims(self) -> tuple[int, ...]:
        """The axes that are summed over, counted from the front."""
        dims = self.argument("dim")
        dims = [dims] if isinstance(dims, int) else dims or range(self.x.ndim)
        return tuple(d % self.x.ndim for d in dims)

    def adjoint(self, multiplier: Value) -> Adjoints:
        if not self.argument("keepdim"):
            multiplier = multiplier.reshape([1 if d in self.dims else s for d, s in enumerate(self.x.shape)])
        return (multiplier.expand_like(self.x),)


class MeanCall(ReduceCall):
    """`y = mean(x)` over axes."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        count: Any = prod(self.x.shape[dim] for dim in self.dims)
        return super().adjoint(multiplier * (1 / count) if isinstance(count, int) else multiplier / count)


class CumulativeSumCall(ReduceCall):
    """`y_i = Σ_{j <= i} x_j` along an axis."""

    def adjoint(self, multiplier: Value) -> Adjoints:
        turned = self.emit.call(aten.flip.default, multiplier, list(self.dims))
        total = self.emit.call(aten.cumsum.default, turned, self.argument("dim"))
        return (self.emit.call(aten.flip.default, total, list(self.dims)),)


def _distances(node: Node) -> dict[Node, int]:
    """Operators between every ancestor of `node` and `node`."""
    distances, queue = {node: 0}, [node]
    for current in queue:
        for ancestor in current.all_input_nodes:
            if ancestor.op != "get_attr" and ancestor not in distances:
                distances[ancestor] = distances[current] + 1
                queue.append(ancestor)
    return distances


def summand_signs(node: Node) -> tuple[float, float]:
    """Factors of the two operands of `aten.add` or `aten.sub`."""
    alpha: Any = argument(node, "alpha")
    return 1.0, -float(alpha) if node.target is aten.sub.Tensor else float(alpha)


def scaled(value: Value, factor: float) -> Value:
    """`factor * value`, without a node for a factor of one."""
    return value if factor == 1 else -value if factor == -1 else value * factor


def swapped(matrix: Value) -> Value:
    """The last two axes exchanged."""
    return matrix.permute([*range(matrix.ndim - 2), matrix.ndim - 1, matrix.ndim - 2])


def _are_matrices(node: Node) -> bool:
    return all(argument(node, position).meta["val"].dim() > 1 for position in range(2))


def _active_operands(node: Node, active: Active) -> tuple[Node, ...]:
    return tuple(a for a in (argument(node, 0), argument(node, 1)) if isinstance(a, Node) and active(a))
