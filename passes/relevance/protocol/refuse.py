"""What a method has no answer for, said once for all operators of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

from torch.fx import Node

from passes.errors import UnsupportedOperatorError
from passes.graphs.graph import describe_node, operator_name
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Message
from passes.relevance.protocol.rule import Messages

_PLACES: Final = 3  # how many operators of one sort an error names


@final
@dataclass(frozen=True)
class Refuse:
    """No relevance passes: the method has no answer for such an operator. Compiling ends with the reason.

    Args:
        reason: why, and what can be done instead.
    """

    reason: str
    applies_to: ClassVar[tuple[type[Call], ...]] = (Call,)
    reads: ClassVar[tuple[Form, ...]] = ()

    def propagate(self, call: Call, _arriving: Message, /) -> Messages:
        raise refused({call.node: self.reason})


def refused(reasons: Mapping[Node, str], way_out: str = "") -> UnsupportedOperatorError:
    """One error for all operators that are refused: every sort of operator once, with the first places."""
    sorts = defaultdict[tuple[str, str], list[Node]](list)
    for node, reason in reasons.items():
        sorts[operator_name(node), reason].append(node)
    count = f"{len(reasons)} operators have" if len(reasons) > 1 else "1 operator has"
    lines = [f"{count} no rule:"]
    for (operator, reason), nodes in sorts.items():
        times = f", {len(nodes)} times" if len(nodes) > 1 else ""
        lines.append(f"{operator}{times}: {reason}")
        lines += [f"  {describe_node(node)}" for node in nodes[:_PLACES]]
        lines += [f"  and {len(nodes) - _PLACES} more"] if len(nodes) > _PLACES else []
    return UnsupportedOperatorError("\n".join([*lines, *([way_out] if way_out else [])]))
