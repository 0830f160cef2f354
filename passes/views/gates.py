"""Which operand of a product carries the signal, and which one is a gate."""

from __future__ import annotations

from passes.operators.arithmetic import MatmulCall, ProductCall, QuotientCall
from passes.operators.table import is_gate


def signal_of(call: ProductCall | MatmulCall | QuotientCall) -> int | None:
    """Position of the operand that a gate multiplies (or a divisor divides); None if neither or both are gates.

    A gate comes out of a bounded operator (sigmoid, tanh, softmax), or is broadcast. Matrices are no gates.
    """
    if isinstance(call, QuotientCall):
        return 0
    if isinstance(call, MatmulCall):
        return None
    gates = [is_gate(x.node) or x.shape != call.output.shape for x in map(call.operand, range(2))]
    return None if gates[0] == gates[1] else gates.index(False)
