"""Complex numbers as pairs of real values, and their arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from passes.graphs.emitter import Value, aten
from passes.graphs.sizes import same_size
from passes.rewrites.decompositions.spellings import angle_of, hypotenuse


@dataclass(frozen=True, eq=False)
class Complex:
    """`z = real + i imaginary`, two values of one shape; a real value has no imaginary part."""

    real: Value
    imaginary: Value | None = None

    def __add__(self, other: Complex) -> Complex:
        real, imaginary = self.real + other.real, _sum(self.imaginary, other.imaginary)
        return Complex(real, imaginary if imaginary is None else _broadcast(imaginary, real))

    def __sub__(self, other: Complex) -> Complex:
        return self + -other

    def __neg__(self) -> Complex:
        return self.each(Value.__neg__)

    def __mul__(self, other: Complex) -> Complex:
        real, turned = self.real * other.real, _product(self.imaginary, other.imaginary)
        imaginary = _sum(_product(self.real, other.imaginary), _product(self.imaginary, other.real))
        return Complex(real if turned is None else real - turned, imaginary)

    def __truediv__(self, other: Complex) -> Complex:
        if other.imaginary is not None:
            return self * other.conjugate / Complex((other * other.conjugate).real)
        return self.each(lambda part: part / other.real)

    def power(self, exponent: int) -> Complex:
        """`z^n`, n > 0."""
        return reduce(Complex.__mul__, [self] * exponent)

    def __matmul__(self, other: Complex) -> Complex:
        """One product of real matrices for each part: `[a b] [c; -d]` and `[a b] [d; c]`."""
        if other.imaginary is None:
            return self.each(lambda part: _matrix_product(part, other.real))
        if self.imaginary is None:
            return Complex(*(_matrix_product(self.real, part) for part in (other.real, other.imaginary)))
        rows = max(other.real.ndim - 2, 0)
        real = joined(other.real, -other.imaginary, rows)
        imaginary = joined(other.imaginary, other.real, rows)
        return Complex(_matrix_product(self.joined, real), _matrix_product(self.joined, imaginary))

    def each(self, function: Callable[[Value], Value]) -> Complex:
        """A linear function of both parts."""
        return Complex(function(self.real), None if self.imaginary is None else function(self.imaginary))

    @property
    def reciprocal(self) -> Complex:
        """1 / z."""
        return Complex(self.real.ones()) / self

    @property
    def joined(self) -> Value:
        """Both parts, one behind the other along the last axis."""
        return self.real if self.imaginary is None else joined(self.real, self.imaginary, self.real.ndim - 1)

    @property
    def conjugate(self) -> Complex:
        """`real - i imaginary`."""
        return Complex(self.real, _negative(self.imaginary))

    @property
    def magnitude(self) -> Value:
        """|z|; where it is 0, so is its gradient."""
        return self.real.magnitude if self.imaginary is None else hypotenuse(self.real, self.imaginary)

    @property
    def exponential(self) -> Complex:
        """The number e to the power of z."""
        size = self.real.emit.call(aten.exp.default, self.real)
        return Complex(size) if self.imaginary is None else polar(size, self.imaginary)

    @property
    def logarithm(self) -> Complex:
        """The logarithm whose imaginary part lies in -π..π."""
        return Complex(self.real.emit.call(aten.log.default, self.magnitude), self.angle)

    @property
    def direction(self) -> Complex:
        """`z / |z|`; where z is 0, so are the direction and its gradient."""
        size = self.magnitude
        somewhere = size > 0.0
        return self.each(lambda part: (part / size.where(somewhere, 1.0)).where(somewhere, 0.0))

    @property
    def angle(self) -> Value:
        """The angle of z in -π..π; where z is 0, so are the angle and its gradient."""
        return angle_of(self.parts[1], self.real)

    @property
    def parts(self) -> tuple[Value, Value]:
        """Both, the imaginary one perhaps zeros."""
        return self.real, self.real.zeros() if self.imaginary is None else self.imaginary


def polar(size: Value, angle: Value) -> Complex:
    """`size exp(i angle)`."""
    return Complex(*(size * size.emit.call(target, angle) for target in (aten.cos.default, aten.sin.default)))


def joined(a: Value, b: Value, dim: int) -> Value:
    """One behind the other."""
    return a.emit.call(aten.cat.default, [a, b], dim)


def _matrix_product(a: Value, b: Value) -> Value:
    return a.emit.call(aten.matmul.default, a, b)


def _negative(part: Value | None) -> Value | None:
    return None if part is None else -part


def _broadcast(part: Value, like: Value) -> Value:
    same = part.ndim == like.ndim and all(map(same_size, part.shape, like.shape))
    return part if same else part + like.zeros()


def _sum(a: Value | None, b: Value | None) -> Value | None:
    return b if a is None else a if b is None else a + b


def _product(a: Value | None, b: Value | None) -> Value | None:
    return None if a is None or b is None else a * b
