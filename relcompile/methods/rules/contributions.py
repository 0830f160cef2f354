"""The contributions of an affine layer apart by their sign, in as few products as the sign of its input allows.

P_k = Σ_j (w_kj x_j)⁺ and N_k = Σ_j (w_kj x_j)⁻ are wanted, and m_j = Σ_k w_kj (u_k if w_kj x_j >= 0 else v_k).

inputs          P, N                                  m                                             products
x >= 0          W⁺x, W x - P                          W⁺ᵀu + W⁻ᵀv                                   1 + 1 for u, 1 for v
of both signs   (W x ± |W||x|) / 2                    (Wᵀ(u + v) + sign(x) |W|ᵀ(u - v)) / 2         1 + 2
the same, v = 0                                       W⁺ᵀu where x >= 0, W⁻ᵀu elsewhere             1 + 2

W x = z - b is there already. A difference in float32 knows P to 1e-7 of |W||x|: where few contributions are positive,
`products="parts"` finds P as W⁺x⁺ + W⁻x⁻ instead, and N and m likewise: 2 + 2 products for z⁺, 4 + 4 for αβ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch

from passes.graphs.emitter import Value, aten
from passes.graphs.facts import Fact
from passes.operators.affine import AffineCall
from passes.operators.signs import SIGN

Bias: TypeAlias = Literal["none", "split", "full"]
Products: TypeAlias = Literal["magnitudes", "parts"]


@dataclass(frozen=True)
class Contributions:
    """Those to the output of `call`; with the bias as a contribution, split by its sign, or added to P and to N.

    Attributes:
        call: the layer.
        bias: what becomes of it.
        products: how P, N and m are found where x has both signs.
    """

    call: AffineCall
    bias: Bias = "split"
    products: Products = "magnitudes"
    needs: ClassVar[tuple[Fact[Any], ...]] = (SIGN,)

    @property
    def by_parts(self) -> bool:
        """P, N and m come from x⁺ and x⁻; where x >= 0, x⁻ is 0, and what is made of it is left out."""
        return self.products == "parts" or self.one_sided

    @property
    def one_sided(self) -> bool:
        """X is known to be >= 0."""
        return SIGN.of(self.call.x.node) in ("positive", "zero")

    @property
    def total(self) -> Value:
        """P + N."""
        z, b = self.call.output, self.call.bias
        if b is None or self.bias == "split":
            return z
        return z - self.call.per_output(b) if self.bias == "none" else z + self.call.per_output(b)

    @property
    def magnitude(self) -> Value:
        """P - N."""
        x, W, b = self.call.x, self.call.weight, self.call.bias
        return self.call.apply(x.magnitude, W.magnitude, None if b is None or self.bias != "split" else b.magnitude)

    def positive(self) -> Value:
        """P."""
        x, W = self.call.x, self.call.weight
        if self.by_parts:
            return self.call.apply(x.positive, W.positive, self._bias(1)) + self.call.apply(x.negative, W.negative)
        P = (self.total + self.magnitude) * 0.5
        return P if self.bias == "full" else P.positive

    def negative(self) -> Value:
        """N."""
        x, W = self.call.x, self.call.weight
        if self.products == "parts":
            return self.call.apply(x.positive, W.negative, self._bias(-1)) + self.call.apply(x.negative, W.positive)
        N = self.total - self.positive() if self.one_sided else (self.total - self.magnitude) * 0.5
        return N if self.bias == "full" else N.negative

    def of_positive(self, u: Value) -> Value:
        """The m for v = 0: no difference of products, so that what gets nothing gets nothing."""
        x, W = self.call.x, self.call.weight
        return self.call.transposed(u, W.positive).where(x >= 0, self.call.transposed(u, W.negative))

    def of_both(self, u: Value, v: Value, a: float, b: float) -> Value:
        """The m for a u and b v; where that can be, the numbers go into the weights, which are constants.

        By magnitudes, rounding leaks 1e-7 of the larger one into what gets the other.
        """
        x, W, transposed = self.call.x, self.call.weight, self.call.transposed
        if self.by_parts:
            above = transposed(u, W.positive * a) + transposed(v, W.negative * b)
            return above.where(x >= 0, transposed(u, W.negative * a) + transposed(v, W.positive * b))
        u, v, sign = u * a, v * b, x.emit.call(aten.sign.default, x)
        return (transposed(u + v, W) + sign * transposed(u - v, W.magnitude)) * 0.5

    def known(self, share: Value, part: Value) -> Value:
        """`share` of P, or of N; nothing where the `part` that it is divided by is rounding beside P - N."""
        if self.by_parts:
            return share
        level = torch.finfo(part.fake.dtype).eps ** 0.5  # both errors, what is lost and what leaks, are at most this
        return share.where((part.magnitude - self.magnitude * level) > 0, 0.0)

    def _bias(self, sign: int) -> Value | None:
        b = self.call.bias
        if b is None or self.bias == "none":
            return None
        return b if self.bias == "full" else b.positive if sign > 0 else b.negative
