"""Pointwise non-linearities `y = f(z)`: what all of them have in common, and what tells one from another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch.fx import Node

from passes.graphs.emitter import Emitter, Value
from passes.graphs.nodes import argument, arguments, run_node
from passes.operators.call import Active, Adjoints, Kind, UnaryCall

Derivative: TypeAlias = Callable[["ActivationCall", Value], Value]
"""(call, arriving multiplier m) -> m f'(z)."""
Curvature: TypeAlias = Callable[["ActivationCall"], Value]
"""call -> f''(z)."""
Secant: TypeAlias = Callable[["ActivationCall"], Value]
"""call -> f(z) / z."""
Bounds: TypeAlias = Callable[[Node], tuple[float, float]]
"""The operator at a node -> (low, high)."""


@dataclass(frozen=True)
class Pointwise:
    """One function f.

    Attributes:
        derivative: writes m f'(z).
        curvature: writes f''(z), 0 at the kinks of a piecewise linear f.
        secant: writes f(z) / z where f(0) = 0; at 0 its limit, or 0 if that may be infinite.
        bounds: f clamps to these, and changes nothing between them; None: it does something else.
        jumps: f is not continuous at 0.
        parametric: f has a tensor of parameters, which is stored (PReLU's slopes).
    """

    derivative: Derivative
    curvature: Curvature
    secant: Secant
    bounds: Bounds | None = None
    jumps: bool = False
    parametric: bool = False
    kind: ClassVar[Kind] = "activation"
    keeps_places: ClassVar[bool] = False

    def view(self, node: Node, emit: Emitter, active: Active, /) -> ActivationCall | None:
        """A function of its first argument; the others are numbers, or stored tensors."""
        others = [a for a in (*arguments(node)[1:], *node.kwargs.values()) if isinstance(a, Node)]
        fits = not any(map(active, others)) if self.parametric else not others
        return ActivationCall(node, emit, (argument(node, 0),), self) if fits else None


@dataclass(frozen=True, eq=False)
class ActivationCall(UnaryCall):
    """`y = f(z)`, elementwise."""

    function: Pointwise

    kind = "activation"

    def adjoint(self, multiplier: Value) -> Adjoints:
        return (self.derivative(multiplier),)

    def derivative(self, multiplier: Value) -> Value:
        """Multiplier times f'(z)."""
        return self.function.derivative(self, multiplier)

    def curvature(self) -> Value:
        """f''(z); 0 at the kinks of a piecewise linear f."""
        return self.function.curvature(self)

    def secant(self) -> Value:
        """F(z) / z, for functions that vanish at 0."""
        return self.function.secant(self)

    @property
    def is_relu(self) -> bool:
        """max(z, 0), however the model spells it."""
        return self.function.bounds is not None and self.function.bounds(self.node) == (0.0, math.inf)

    @property
    def vanishes_at_zero(self) -> bool:
        """f(0) = 0 and f is continuous there, so that y / z has no pole."""
        return not self.function.jumps and bool((self._sampled(0.0) == 0).all())

    @property
    def takes_any_number(self) -> bool:
        """Finite on both sides of 0, and at 0."""
        return all(bool(self._sampled(z).isfinite().all()) for z in (-2.5, 0.0, 2.5))

    def _sampled(self, z: float) -> torch.Tensor:
        constants = [_sample(a) for a in self.node.args[1:]]
        keywords = {key: _sample(a) for key, a in self.node.kwargs.items()}
        at: Any = torch.full((1,), z, dtype=torch.float64)
        result: Any = run_node(self.node, (at, *constants), keywords)
        return result


def between(low: str | None, high: str | None) -> Bounds:
    """The bounds that the arguments of these names give, which may be left out."""

    def bounds(node: Node) -> tuple[float, float]:
        least, most = (None if name is None else argument(node, name) for name in (low, high))
        return (-math.inf if least is None else float(least), math.inf if most is None else float(most))

    return bounds


def _sample(argument_: Any) -> Any:
    """A stand-in for a constant operand (PReLU's slopes): its value does not matter at zero."""
    return torch.full((1,), 0.5, dtype=torch.float64) if isinstance(argument_, Node) else argument_
