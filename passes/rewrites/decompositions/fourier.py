"""Fourier transforms -> the linear maps that they are: products with matrices of cosines and sines.

`y_k = s Σ_t exp(∓2πi t k / n) x_t`, along one axis after the other: linear layers without a bias, one for each part of
y, which get the rule that layers get. A transform that is written as a product with such a matrix is the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import Node

from passes.graphs.emitter import Value, aten
from passes.graphs.nodes import argument
from passes.rewrites.decompositions.complex_numbers import Complex

LONGEST: Final = 8192  # numbers along an axis; the matrices of a real transform are 256 MiB then, in float32
_POWERS: Final = (0.0, -0.5, -1.0)  # s = n to this, by torch's number of the normalisation


def transformed(node: Node, z: Complex) -> Complex | None:
    """The transform `node` of z; None along the batch, or an axis whose size is free or too large for a matrix."""
    sizes = [z.real.shape[dim] for dim in argument(node, "dim")]
    if not all(isinstance(size, int) and size <= LONGEST for size in sizes):
        return None
    return _TRANSFORMS[node.target](node, z)


def _of_complex(node: Node, z: Complex) -> Complex:
    """A `fft`, or an `ifft`."""
    return _along_all(node, z, argument(node, "dim"), -1 if argument(node, "forward") else 1)


def _of_real(node: Node, z: Complex) -> Complex:
    """A `rfft`: of the last axis only the first half, as the second mirrors it."""
    *others, last = argument(node, "dim")
    n = int(z.real.shape[last])
    matrix = _exponentials(-1, n // 2 + 1 if argument(node, "onesided") else n, n, n)
    return _along_all(node, _along(z, last, matrix * _scale(node, n)), others, -1)


def _to_real(node: Node, z: Complex) -> Complex:
    """An `irfft`: along the last axis a number counts with its mirror image, but for the first and the middle one."""
    *others, last = argument(node, "dim")
    n = argument(node, "last_dim_size")
    counts = torch.tensor([1 if 2 * k % n == 0 else 2 for k in range(n // 2 + 1)])
    matrix = _exponentials(1, n, n // 2 + 1, n) * counts * _scale(node, n)
    return _along(_along_all(node, z, others, 1), last, matrix)


def _along_all(node: Node, z: Complex, dims: Sequence[int], sign: int) -> Complex:
    for dim in reversed(dims):
        n = int(z.real.shape[dim])
        z = _along(z, dim, _exponentials(sign, n, n, n) * _scale(node, n))
    return z


def _scale(node: Node, n: int) -> float:
    return n ** _POWERS[argument(node, "normalization")]


def _exponentials(sign: int, rows: int, columns: int, n: int) -> Tensor:
    """exp(sign 2πi j k / n), complex128; 0 where the sine or the cosine is."""
    turns = torch.arange(rows, dtype=torch.float64)[:, None] * torch.arange(columns) % n
    angles = turns * (sign * 2 * math.pi / n)
    halves, quarters = turns * 2 % n == 0, turns * 4 % n == 0
    return torch.complex(angles.cos().masked_fill(quarters & ~halves, 0), angles.sin().masked_fill(halves, 0))


def _along(z: Complex, dim: int, matrix: Tensor) -> Complex:
    """The linear map `matrix` (outputs, inputs) of the numbers along an axis."""
    z = z.each(lambda part: _swapped(part, dim))
    weights = [matrix.real, matrix.imag]
    if z.imaginary is not None:
        weights = [torch.cat([matrix.real, -matrix.imag], 1), torch.cat([matrix.imag, matrix.real], 1)]
    return Complex(*(_swapped(_layer(z.joined, weight), dim) for weight in weights))


def _swapped(x: Value, dim: int) -> Value:
    """An axis and the last one exchanged."""
    order = list(range(x.ndim))
    order[dim], order[-1] = order[-1], order[dim]
    return x if order == sorted(order) else x.permute(order)


def _layer(x: Value, weight: Tensor) -> Value:
    return x.emit.call(aten.linear.default, x, x.emit.constant("fourier", weight.to(x.fake.dtype).contiguous()))


_TRANSFORMS: Final[Mapping[Any, Callable[[Node, Complex], Complex]]] = {
    aten._fft_c2c.default: _of_complex,
    aten._fft_r2c.default: _of_real,
    aten._fft_c2r.default: _to_real,
}
