"""What is done to relevance before it leaves the graph: channels reduced to one, and a narrower type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import torch
from torch.fx import GraphModule

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.nodes import arguments
from relcompile.errors import InputSpecError

REDUCTIONS: Final[Mapping[str, Callable[[Value], Value]]] = {
    "sum": lambda R: R.sum([1], keepdim=True),
    "abs": lambda R: R.magnitude.sum([1], keepdim=True),
    "max": lambda R: R.emit.call(aten.amax.default, R.magnitude, [1], True),
}
"""Σ_c R_c, Σ_c |R_c| and max_c |R_c|, (N, C, ...) -> (N, 1, ...)."""
DTYPES: Final[Mapping[str, torch.dtype]] = {"float16": torch.float16}


@final
@dataclass(frozen=True)
class FinishOutputs:
    """Before: the model's outputs, relevance, taps, reports. After: the same, relevance and taps as they are asked for.

    Attributes:
        own: number of the model's outputs.
        relevance: number of outputs with relevance, whose channels are reduced.
        taps: number of taps, whose channels are not.
        reduce: a key of `REDUCTIONS`, or None.
        dtype: a key of `DTYPES`, or None.

    Raises (from `apply`):
        InputSpecError: relevance has no channels.
    """

    own: int
    relevance: int
    taps: int
    reduce: str | None
    dtype: str | None
    name: ClassVar[str] = "finish-outputs"

    def apply(self, module: GraphModule, /) -> int:
        emit, node = Emitter(module), module.graph.output_node()
        outputs = [emit.value(value) for value in arguments(node)[0]]
        reduced = [self._reduced(value) for value in outputs[self.own :][: self.relevance]]
        narrow = [self._narrow(value) for value in (*reduced, *outputs[self.own + self.relevance :][: self.taps])]
        behind = outputs[self.own + self.relevance + self.taps :]
        node.args = (tuple(value.node for value in (*outputs[: self.own], *narrow, *behind)),)
        return len(narrow)

    def _reduced(self, R: Value) -> Value:
        if self.reduce is None:
            return R
        if R.ndim < 3:
            raise InputSpecError(
                f"reduce={self.reduce!r} (--reduce) is over channels, but relevance has {R.ndim} axes: leave it out"
            )
        return REDUCTIONS[self.reduce](R)

    def _narrow(self, value: Value) -> Value:
        dtype: Any = None if self.dtype is None else DTYPES[self.dtype]
        return value if dtype is None else value.emit.call(aten._to_copy.default, value, dtype=dtype)


def check_outputs_asked(reduce: str | None, dtype: str | None) -> None:
    """Refuse what is none of the above.

    Raises:
        InputSpecError: it says what there is.
    """
    for option, value, known in (("reduce", reduce, REDUCTIONS), ("output_dtype", dtype, DTYPES)):
        if value is not None and value not in known:
            raise InputSpecError(f"{option}={value!r} (--{option.replace('_', '-')}) must be {' or '.join(known)}")
