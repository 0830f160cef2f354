"""The protocol of a rule: how relevance passes one kind of operator, and what else it may say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from passes.graphs.emitter import Value
from passes.graphs.facts import Fact
from passes.operators.call import Call
from passes.relevance.protocol.messages import Form, Message, read_as
from passes.relevance.protocol.outside import is_from_outside, passed_by_outside
from passes.relevance.protocol.reference import Split

Messages: TypeAlias = tuple[Message | None, ...]


CallT_contra = TypeVar("CallT_contra", bound=Call, contravariant=True)
MessageT_contra = TypeVar("MessageT_contra", bound=Message, contravariant=True)


class Rule(Protocol[CallT_contra, MessageT_contra]):
    """How relevance passes through one kind of operator: a frozen object that holds hyperparameters only.

    Attributes:
        applies_to: the kinds of operators.
        reads: the forms of messages that it tells apart; what arrives comes in the tightest of them that holds it.
    """

    applies_to: ClassVar[tuple[type[Call], ...]]
    reads: ClassVar[tuple[Form, ...]]

    def propagate(self, call: CallT_contra, arriving: MessageT_contra, /) -> Messages:
        """Messages for the operands of `call`, one entry per operand, None where nothing flows."""
        ...


AnyRule: TypeAlias = Rule[Any, Any]
RULE: Final = Fact[AnyRule]("rule")


@runtime_checkable
class InformedRule(Protocol):
    """A rule that has to know more about values than what arrives at them."""

    needs: ClassVar[tuple[Fact[Any], ...]]
    """The facts that it asks for, of the operands and of the output of its operator."""


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


def passed_by(rule: AnyRule, call: Call, arriving: Message) -> Messages:
    """What leaves `call` by `rule`, which gets what arrives in a form that it reads.

    Raises:
        OutsideRuleError: the rule is from outside, and failed.
    """
    read = read_as(arriving, rule.reads)
    return passed_by_outside(rule, call, read) if is_from_outside(rule) else rule.propagate(call, read)


def facts_needed(rules: Iterable[AnyRule]) -> frozenset[Fact[Any]]:
    """What `rules` ask for themselves, and to read the forms of messages that they tell apart."""
    needed = set[Fact[Any]]()
    for rule in rules:
        needed.update(rule.needs if isinstance(rule, InformedRule) else ())
        needed.update(*(form.needs for form in rule.reads))
    return frozenset(needed)
