"""Complex values -> pairs of real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import getitem
from typing import Any, ClassVar, Final, TypeAlias, final

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import carries_floats, erase_unused, is_complex, is_constant, replace, touches_complex
from passes.graphs.nodes import argument, map_nodes
from passes.rewrites.decompositions.complex_numbers import Complex, polar
from passes.rewrites.decompositions.fourier import transformed
from passes.rewrites.decompositions.spellings import stored


@final
class SeparateComplex:
    """Complex tensors and Fourier transforms -> the real tensors that they are made of.

    1. a complex value z -> its parts, z = a + ib
    2. what moves or adds up values -> the same, of each part
    3. products, quotients, exponentials, magnitudes, angles -> their formulas
    4. Fourier transforms -> linear layers; see `fourier`
    5. what ends in real values (`view_as_real`, `real`, `abs`, ...) -> a use of the parts

    Guarantees: equal numbers up to rounding. A complex value for which there is no rewrite here stays, with all that it
    is made of and all that is made of it, and is refused if it lies on a way of relevance.
    """

    name: ClassVar[str] = "separate-complex"

    def apply(self, module: GraphModule, /) -> int:
        before, parts = list(module.graph.nodes), Parts(Emitter(module))
        for node in before:
            if touches_complex(node):
                parts.separate(node)
        erase_unused(module)
        return len(set(before) - set(module.graph.nodes))


@dataclass(frozen=True)
class Parts:
    """What the complex values of a graph have become so far.

    Attributes:
        emit: writes the nodes.
        known: the parts of a node; of several results, several results each.
    """

    emit: Emitter
    known: dict[Node, Complex] = field(default_factory=dict[Node, Complex])

    def separate(self, node: Node) -> None:
        """Write the parts of a complex value, or a real value that is made of such parts."""
        with self.emit.inserting_before(node):
            result = self._separated(node)
        if result is not None and is_complex(node):
            self.known[node] = result
        elif result is not None:
            replace(node, result.real)

    def of(self, node: Node, place: int | str) -> Complex:
        """An argument of `node`: a complex or a real value, or a number."""
        given = argument(node, place)
        if isinstance(given, Node):
            return self.of_value(given)
        number, dtype = complex(given), node.meta["val"].dtype.to_real()
        real, imaginary = (
            self.emit.constant("number", torch.tensor(part, dtype=dtype)) for part in (number.real, number.imag)
        )
        return Complex(real, imaginary if number.imag else None)

    def of_value(self, node: Node) -> Complex:
        """A complex or a real value."""
        return self.known.get(node) or Complex(self.emit.value(node))

    def _separated(self, node: Node) -> Complex | None:
        rewrite = _REWRITES.get(node.target)
        if rewrite is not None and all(
            operand in self.known for operand in node.all_input_nodes if is_complex(operand)
        ):
            return rewrite(node, self)
        return self._stored(node) if is_complex(node) and is_constant(node) else None

    def _stored(self, node: Node) -> Complex:
        with torch.no_grad():
            tensor = stored(node, self.emit.module)
        parts = ((tensor.real, "real"), (tensor.imag, "imaginary"))
        return Complex(*(self.emit.constant(f"{node.name}_{name}", part.contiguous()) for part, name in parts))


Rewrite: TypeAlias = Callable[[Node, Parts], Complex | None]


def _of(function: Callable[[Complex], Complex]) -> Rewrite:
    return lambda node, parts: function(parts.of(node, 0))


def _of_two(function: Callable[[Complex, Complex], Complex]) -> Rewrite:
    return lambda node, parts: function(parts.of(node, 0), parts.of(node, 1))


def _sum(node: Node, parts: Parts) -> Complex:
    a, b, alpha = parts.of(node, 0), parts.of(node, 1), argument(node, "alpha")
    b = b if alpha == 1 else b.each(lambda part: part * alpha)
    return a - b if node.target is aten.sub.Tensor else a + b


def _linear(node: Node, parts: Parts) -> Complex:
    y = parts.of(node, "input") @ parts.of(node, "weight").each(lambda part: part.permute([1, 0]))
    return y if argument(node, "bias") is None else y + parts.of(node, "bias")


def _power(node: Node, parts: Parts) -> Complex | None:
    exponent = argument(node, "exponent")
    return parts.of(node, 0).power(int(exponent)) if exponent in range(1, 9) else None


def _from_pairs(node: Node, parts: Parts) -> Complex:
    pairs = parts.emit.value(argument(node, 0))
    return Complex(*(parts.emit.call(aten.select.int, pairs, -1, place) for place in range(2)))


def _to_pairs(node: Node, parts: Parts) -> Complex:
    """Of what is taken of the pairs only one part is made."""
    z = parts.of(node, 0)
    for user in list(node.users):
        if user.target is aten.select.int and argument(user, "dim") in (-1, z.real.ndim):
            replace(user, z.parts[argument(user, "index")])
    pair = [parts.emit.call(aten.unsqueeze.default, part, z.real.ndim) for part in z.parts]
    return Complex(parts.emit.call(aten.cat.default, pair, z.real.ndim))


def _fresh(node: Node, parts: Parts) -> Complex | None:
    """A tensor of one number."""
    numbers = [number for number in node.args if isinstance(number, complex)]
    return None if any(number.imag for number in numbers) else Complex(_run(node, parts, lambda z: z.real))


def _part_by_part(node: Node, parts: Parts) -> Complex:
    """What moves values, or adds them up."""
    real = _run(node, parts, lambda z: z.real)
    if not any(parts.of_value(operand).imaginary for operand in node.all_input_nodes):
        return Complex(real)
    return Complex(real, _run(node, parts, lambda z: z.parts[1]))


def _of_zeros(node: Node, parts: Parts) -> Complex | None:
    """What writes a number into places."""
    return _part_by_part(node, parts) if argument(node, "value") == 0 else None


def _run(node: Node, parts: Parts, part: Callable[[Complex], Value]) -> Value:
    """The operator of `node` on one part of its operands."""
    chosen = {
        operand: part(parts.of_value(operand)).node for operand in node.all_input_nodes if carries_floats(operand)
    }
    args, kwargs = map_nodes((node.args, node.kwargs), lambda operand: chosen.get(operand, operand))
    args, kwargs = pytree.tree_map_only(torch.dtype, torch.dtype.to_real, (args, kwargs))
    args = pytree.tree_map_only(complex, lambda number: number.real, args)
    return parts.emit.call(node.target, *args, **kwargs)


_REWRITES: Final[Mapping[Any, Rewrite]] = {
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _sum,
    aten.mul.Tensor: _of_two(Complex.__mul__),
    aten.div.Tensor: _of_two(Complex.__truediv__),
    aten.pow.Tensor_Scalar: _power,
    aten.neg.default: _of(Complex.__neg__),
    aten.reciprocal.default: _of(lambda z: z.reciprocal),
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), _of_two(Complex.__matmul__)),
    aten.linear.default: _linear,
    **dict.fromkeys((aten._conj.default, aten.conj_physical.default), _of(lambda z: z.conjugate)),
    aten.exp.default: _of(lambda z: z.exponential),
    aten.log.default: _of(lambda z: z.logarithm),
    aten.sgn.default: _of(lambda z: z.direction),
    aten.abs.default: _of(lambda z: Complex(z.magnitude)),
    aten.angle.default: _of(lambda z: Complex(z.angle)),
    aten.real.default: _of(lambda z: z),
    aten.imag.default: _of(lambda z: Complex(z.parts[1])),
    aten.view_as_complex.default: _from_pairs,
    aten.view_as_real.default: _to_pairs,
    aten.complex.default: _of_two(lambda real, imaginary: Complex(real.real, imaginary.real)),
    aten.polar.default: _of_two(lambda size, angle: polar(size.real, angle.real)),
    **dict.fromkeys(
        (aten._fft_c2c.default, aten._fft_r2c.default, aten._fft_c2r.default),
        lambda node, parts: transformed(node, parts.of(node, 0)),
    ),
    **dict.fromkeys((aten.constant_pad_nd.default, aten.masked_fill.Scalar), _of_zeros),
    **dict.fromkeys(
        (
            aten.zeros.default,
            aten.ones.default,
            aten.full.default,
            aten.empty.memory_format,
            aten.new_zeros.default,
            aten.new_ones.default,
            aten.new_full.default,
            aten.zeros_like.default,
            aten.ones_like.default,
            aten.full_like.default,
        ),
        _fresh,
    ),
    **dict.fromkeys(
        (
            aten._to_copy.default,
            aten._unsafe_view.default,
            aten.alias.default,
            aten.cat.default,
            aten.clone.default,
            aten.copy.default,
            aten.cumsum.default,
            aten.detach.default,
            aten.diagonal.default,
            aten.expand.default,
            aten.flatten.using_ints,
            aten.flip.default,
            aten.gather.default,
            aten.index.Tensor,
            aten.index_put.default,
            aten.index_select.default,
            aten.lift_fresh_copy.default,
            aten.mean.default,
            aten.mean.dim,
            aten.permute.default,
            aten.repeat.default,
            aten.reshape.default,
            aten.roll.default,
            aten.scatter.src,
            aten.select.int,
            aten.select_scatter.default,
            aten.slice.Tensor,
            aten.slice_scatter.default,
            aten.split_with_sizes.default,
            aten.squeeze.default,
            aten.squeeze.dims,
            aten.stack.default,
            aten.sum.dim_IntList,
            aten.transpose.int,
            aten.unfold.default,
            aten.unsqueeze.default,
            aten.view.default,
            aten.where.self,
            getitem,
        ),
        _part_by_part,
    ),
}


def is_separated(target: Any) -> bool:
    """The operator is known of complex values."""
    return target in _REWRITES
