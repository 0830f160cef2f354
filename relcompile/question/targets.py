"""What is explained: the target modes, and what each chooses at the explained output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch.fx import GraphModule

from passes.graphs.emitter import Emitter, Value, aten
from relcompile.errors import TargetError
from relcompile.metadata import TargetMode

TARGET_INPUT: Final = "target"


@dataclass(frozen=True)
class Target:
    """Which entry of the explained output (N, classes, ...) is explained.

    Args:
        mode: "index": a runtime input `target` int64 (N,); "argmax": the largest entry; "fixed": always `index`;
            "seed": a runtime input `target` of the output's shape, relevance (or, for gradients, a cotangent).
        index: the class of the mode "fixed".
    """

    mode: TargetMode = "index"
    index: int | None = None

    @classmethod
    def parse(cls, text: str | int) -> Target:
        """Read a mode (index, argmax, seed) or a class number.

        Raises:
            TargetError: anything else.
        """
        if text in ("index", "argmax", "seed"):
            return cls(text)
        try:
            return cls("fixed", int(text))
        except ValueError:
            raise TargetError(f"target {text!r} must be index, argmax, seed or a class number") from None

    @property
    def is_input(self) -> bool:
        """The explainer has an input `target`."""
        return self.mode in ("index", "seed")


def add_target(module: GraphModule, target: Target, output: Value) -> Callable[[Value], Value]:
    """Add the input `target`, if the mode has one; returns what writes the choice at an output (N, classes, ...).

    The choice is 1 at the target and 0 elsewhere, or the seed that was given.

    Raises:
        TargetError: a fixed class that the output does not have, or an output without a class axis.
    """
    classes = _classes(output, target)
    emit = Emitter(module)
    given = _input(emit, target, output) if target.is_input else None
    if target.mode == "seed" and given is not None:
        return lambda value: value.emit.value(given.node)

    def choose(value: Value) -> Value:
        if classes is None:
            return value.ones()
        shape = [1, classes] + [1] * (value.ndim - 2)
        positions = value.emit.constant("classes", torch.arange(classes).reshape(shape))
        if target.mode == "fixed":
            chosen = positions.equals(target.index or 0)
        else:
            index = value.emit.value(given.node) if given else value.emit.call(aten.argmax.default, value, 1)
            if given or value.ndim == 2:
                index = index.reshape([-1] + [1] * (value.ndim - 1))
            else:
                index = value.emit.call(aten.unsqueeze.default, index, 1)
            chosen = value.emit.call(aten.eq.Tensor, index, positions)
        return value.ones().where(chosen, 0.0)

    return choose


def _classes(output: Value, target: Target) -> int | None:
    """Size of the class axis; None for an output of one number per sample, which needs no target."""
    shape = output.shape
    if len(shape) < 2 or not isinstance(shape[1], int):
        if target.index not in (None, 0):
            raise TargetError(f"target {target.index} does not exist: the explained output is one number per sample")
        return None
    if target.index is not None and not 0 <= target.index < shape[1]:
        raise TargetError(f"target {target.index} does not exist: the explained output has {shape[1]} classes")
    return shape[1]


def _input(emit: Emitter, target: Target, output: Value) -> Value:
    fake = output.fake
    if target.mode == "seed":
        return emit.placeholder(TARGET_INPUT, fake)
    return emit.placeholder(TARGET_INPUT, fake, shape=fake.shape[:1], dtype=torch.int64)
