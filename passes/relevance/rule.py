"""The protocol of a rule: how relevance passes one kind of operator, and what else it may say."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, runtime_checkable

from passes.graphs.emitter import Value
from passes.operators.call import Call
from passes.relevance.messages import Message
from passes.relevance.reference import Split

Messages: TypeAlias = tuple[Message | None, ...]


CallT_contra = TypeVar("CallT_contra", bound=Call, contravariant=True)


class Rule(Protocol[CallT_contra]):
    """How relevance passes through one kind of operator: a frozen object that holds hyperparameters only."""

    applies_to: ClassVar[tuple[type[Call], ...]]

    def propagate(self, call: CallT_contra, arriving: Message, /) -> Messages:
        """Messages for the operands of `call`, one entry per operand, None where nothing flows."""
        ...


AnyRule: TypeAlias = Rule[Any]


@runtime_checkable
class DifferenceRule(Protocol):
    """A rule of differences from a reference: it also says how the difference of its output splits."""

    def contribute(self, call: Any, /) -> Split:
        """Δy⁺ and Δy⁻ of the output of `call`, from the differences of its operands or from how these split."""
        ...


@runtime_checkable
class SpreadRule(Protocol):
    """A rule that tells the contributions to the output of its operator apart."""

    def spread(self, call: Any, /) -> Value:
        """The sum of their squares."""
        ...
