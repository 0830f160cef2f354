"""Statistics: factors that a value is divided by, and means that it is freed of, which tell nothing more about it.

In `x / std(x)` the divisor reaches the input through x only, and the quotient does not move when x is scaled; in
`x - mean(x)` the difference does not move when x is shifted. Rules may take such an operand for a constant. Whether a
module, a functional or a line of the user's wrote it does not matter: the graph is asked for the structure (every way
to the result leads through one value, and no weights lie between), and numbers decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.graph import is_constant, tensor_of
from passes.graphs.nodes import map_nodes, run_node
from passes.operators.arithmetic import ProductCall, QuotientCall, SumCall
from passes.operators.call import Call
from passes.views.dominators import operators_behind

_SIZE: Final = 10.0
"""Of the values that are tried: far above the ε of a norm, and not where a saturating function looks like one."""
_CHANGE: Final = 3.0
_TOLERANCE: Final = 1e-4
"""Of the largest magnitude. An ε of 1e-3 beside a variance of 100 changes a tenth of it."""
_WITHOUT_WEIGHTS: Final = ("structure", "scale", "shift", "sum", "product", "activation", "pool")


def statistic_operand(module: GraphModule, call: Call, source: Node, described: Mapping[Node, Call]) -> int | None:
    """Position of the operand of a product, a quotient or a sum that is a statistic of its sibling; None without one.

    Args:
        module: the graph.
        call: the operator.
        source: the last value that every way to `call` leads through.
        described: all operators that relevance passes through.
    """
    one_value = isinstance(source.meta["val"], torch.Tensor)  # an operator of several results is refused elsewhere
    if len(call.operands) != 2 or not one_value or not _computed_from(source, call, described):
        return None
    if isinstance(call, ProductCall | QuotientCall):
        return _scale(call, _Trial(module, call, source))
    return _mean(_Trial(module, call, source)) if isinstance(call, SumCall) else None


def _computed_from(source: Node, call: Call, described: Mapping[Node, Call]) -> bool:
    """No affine layer and no product of matrices lies between, and nothing else than constants enters."""
    between = operators_behind(source, call.node, described)
    if any(described[node].kind not in _WITHOUT_WEIGHTS for node in between - {call.node}):
        return False
    read = {operand for node in between for operand in node.all_input_nodes} - between - {source}
    return all(is_constant(node) or _is_size(node.meta["val"]) for node in read)


def _is_size(value: Any) -> bool:
    """A number that was known when the model was captured, and none that it computes."""
    return isinstance(value, int | float) or (isinstance(value, torch.SymInt) and value.node.has_hint())


def _scale(call: ProductCall | QuotientCall, trial: _Trial) -> int | None:
    """The result stays when the source is scaled. A divisor grows with it; of two factors, one does."""
    before, after = trial.values(lambda x: x), trial.values(lambda x: x * _CHANGE)
    if not _equal(before[-1], after[-1]):
        return None
    grows = [_equal(b * _CHANGE, a) for b, a in zip(before[:2], after[:2], strict=True)]
    if isinstance(call, QuotientCall):
        return 1 if all(grows) else None
    return grows.index(False) if sum(grows) == 1 else None


def _mean(trial: _Trial) -> int | None:
    """The result stays when the source is shifted: the operand that has fewer elements is the mean."""
    before, after = trial.values(lambda x: x), trial.values(lambda x: x + _CHANGE)
    if not _equal(before[-1], after[-1]):
        return None
    whole = [value.numel() == before[-1].numel() for value in before[:2]]
    return whole.index(False) if sum(whole) == 1 else None


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= _TOLERANCE * a.abs().max())


@dataclass(frozen=True)
class _Trial:
    """The part of a graph between a value and an operator, run on numbers."""

    module: GraphModule
    call: Call
    source: Node

    def values(self, change: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Both operands and the result if the source is a changed random value."""
        shape = [_size(size) for size in self.source.meta["val"].shape]
        random = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        known: dict[Node, Any] = {self.source: change(random * _SIZE)}
        with torch.no_grad():
            return tuple(self._value(node, known) for node in (*self.call.operands, self.call.node))

    def _value(self, node: Node, known: dict[Node, Any]) -> Any:
        if node not in known:
            known[node] = self._computed(node, known)
        return known[node]

    def _computed(self, node: Node, known: dict[Node, Any]) -> Any:
        stored, fake = tensor_of(self.module, node), node.meta["val"]
        if stored is not None:
            return stored.double() if stored.is_floating_point() else stored
        if not isinstance(fake, torch.Tensor):
            return _size(fake)
        args, kwargs = map_nodes((node.args, node.kwargs), lambda operand: self._value(operand, known))
        return run_node(node, args, kwargs)


def _size(size: Any) -> Any:
    """The number that an axis had when the model was captured; asking for it otherwise would fix it."""
    return size.node.hint if isinstance(size, torch.SymInt) else size
