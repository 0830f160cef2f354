"""Modified gradients at activations: guided backprop, deconvnet, RectGrad, smoothed ReLU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from passes.graphs.emitter import aten
from passes.graphs.nodes import getitem
from passes.operators.activation import ActivationCall
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Multiplier
from passes.relevance.protocol.rule import Messages
from relcompile.errors import CompositeError
from relcompile.methods.rules.parameters import require_positive


@final
@dataclass(frozen=True)
class Guided:
    """Only positive gradients pass, where the activation passed.

    Equation: m_z = f'(z) max(m_y, 0)
    Conserves: no.
    Source: Springenberg et al. 2015.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier,)

    def propagate(self, call: ActivationCall, arriving: Multiplier, /) -> Messages:
        return (Multiplier(call.x, call.derivative(arriving.multiplier.positive)),)


@final
@dataclass(frozen=True)
class Deconvnet:
    """Only positive gradients pass, whatever the activation did.

    Equation: m_z = max(m_y, 0)
    Conserves: no.
    Source: Zeiler and Fergus 2014.
    """

    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier,)

    def propagate(self, call: ActivationCall, arriving: Multiplier, /) -> Messages:
        return (Multiplier(call.x, arriving.multiplier.positive),)


@final
@dataclass(frozen=True)
class RectGrad:
    """Only the gradients of the most important units of the layer pass.

    Equation: m_z = f'(z) m_y [y m_y > τ], τ the q-th percentile of y m_y over all units of the sample
        (nearest rank).

    Args:
        q: percentile, 0 <= q < 100.
    Conserves: no.
    Source: Kim et al. 2019; Sixt et al. 2020 use q = 98.
    """

    q: float = 98.0
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier,)

    def __post_init__(self) -> None:
        if not 0 <= self.q < 100:
            raise CompositeError(f"q={self.q} must be a percentile of at least 0 and below 100")

    def propagate(self, call: ActivationCall, arriving: Multiplier, /) -> Messages:
        m, y = arriving.multiplier, call.output
        importance = y * m
        units = math.prod(y.shape[1:])
        rank = units - round(self.q / 100 * (units - 1))
        best = call.emit.call(getitem, call.emit.call(aten.topk.default, importance.reshape([-1, units]), rank), 0)
        threshold = best.slice(1, rank - 1, rank).reshape([-1, *[1] * (y.ndim - 1)])
        passed = m.where(call.emit.call(aten.gt.Tensor, importance, threshold), 0.0)
        return (Multiplier(call.x, call.derivative(passed)),)


@final
@dataclass(frozen=True)
class BetaSmooth:
    """The gradient of a ReLU as if it were a softplus.

    Equation: m_z = σ(β z) m_y
    Args:
        beta: > 0.
    Conserves: no.
    Source: Dombrowski et al. 2019; zennit's `ReLUBetaSmooth`.
    """

    beta: float = 10.0
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Multiplier,)

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)

    def propagate(self, call: ActivationCall, arriving: Multiplier, /) -> Messages:
        gate = call.emit.call(aten.sigmoid.default, call.x * self.beta)
        return (Multiplier(call.x, arriving.multiplier * gate),)
