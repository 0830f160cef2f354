"""Rules from outside: what goes wrong in one is not a fault of relcompile, and is told with its name and the layer."""

from __future__ import annotations

import sys
from traceback import extract_tb
from typing import Any, Final

from torch.fx import Node

from passes.errors import OutsideRuleError, PassError
from passes.graphs.graph import describe_node
from passes.operators.call import Call
from passes.relevance.protocol.messages import Message, Multiplier, Relevance

_OURS: Final = ("passes", "relcompile")


def is_from_outside(rule: object) -> bool:
    """The class of the rule is somebody else's."""
    return type(rule).__module__.partition(".")[0] not in _OURS


def passed_by_outside(rule: Any, call: Call, arriving: Message) -> tuple[Message | None, ...]:
    """What leaves `call` by a rule from outside.

    Raises:
        OutsideRuleError: the rule raises anything but an error of the passes, or returns no messages that fit.
    """
    try:
        leaving = rule.propagate(call, arriving)
        _check(leaving, call)
    except PassError:
        raise
    except Exception as error:
        raise OutsideRuleError(
            f"the rule {type(rule).__name__} from {type(rule).__module__} failed at {describe_node(call.node)}: "
            f"{type(error).__name__}: {error}{_line(rule, error)}. It is no part of relcompile: mend it there"
        ) from error
    return leaving


def _check(leaving: object, call: Call) -> None:
    """One message, or None, for every operand, at that operand and in its shape."""
    wanted = f"a tuple with a message or None for each of {len(call.operands)} operands"
    if not isinstance(leaving, tuple) or len(leaving) != len(call.operands):
        raise TypeError(f"it returned {_named(leaving)}, and not {wanted}")
    for operand, message in zip(call.operands, leaving, strict=True):
        if message is not None and not isinstance(message, Message):
            raise TypeError(f"it returned a tuple with {_named(message)}, and not {wanted}")
        if message is not None:
            _check_message(message, operand)


def _check_message(message: Message, operand: Node) -> None:
    if message.at.node is not operand:
        raise ValueError(f"its message is at {message.at.node.name}, and not at the operand {operand.name}")
    if not isinstance(message, Multiplier | Relevance):
        return
    written = message.relevance if isinstance(message, Relevance) else message.multiplier
    found, wanted = (str(list(shape)) for shape in (written.shape, message.at.shape))
    if found != wanted:
        raise ValueError(f"its message has the shape {found}, and the operand {wanted}")


def _named(value: object) -> str:
    count = f" of {len(value)}" if isinstance(value, tuple) else ""
    return f"a {type(value).__name__}{count}"


def _line(rule: object, error: Exception) -> str:
    """Where in the module of the rule it was raised, if it was there."""
    file = getattr(sys.modules.get(type(rule).__module__), "__file__", None)
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({file}:{lines[-1]})" if lines else ""
