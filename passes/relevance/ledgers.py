"""What is written down about every operator while relevance passes it, as further outputs of the explainer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from torch.fx import Node

from passes.graphs.emitter import Value, aten
from passes.operators.call import Call, UnaryCall
from passes.relevance.protocol.found_root import ROOT
from passes.relevance.protocol.messages import Message
from passes.relevance.protocol.rule import Messages
from passes.relevance.protocol.stabilise import without_zeros

ROOT_QUANTITIES: Final = (
    "|root| / |x|",
    "loss before",
    "loss after",
    "|f(root)| / |f(x)|",
    "sum R in / sum R out - 1",
)


class Ledger(Protocol):
    """Entries for operators, and the output that they become."""

    def entry(self, call: Call, arriving: Message, leaving: Messages, /) -> Value | None:
        """What is noted about one operator, (N, k); None if there is nothing to say."""
        ...

    def output(
        self, nodes: Collection[Node], entries: Mapping[Node, Value], explained: Value, strays: Sequence[Message], /
    ) -> Value | None:
        """All entries, in the order of the graph; None if the explainer gets no further output.

        `strays` are the messages that end at values which nobody reads: inputs that are not explained, constants of a
        batch, what lies beside the layer whose relevance is read.
        """
        ...


@final
@dataclass(frozen=True)
class AbsorbedRelevance:
    """Relevance that arrives at an operator and does not leave it: (N, operators + 1), 0 where no relevance comes.

    The last column is what strays. With what is read it adds up to what is explained. A constant without a batch has no
    share of its own: what it gets stays at its operator.
    """

    def entry(self, _call: Call, arriving: Message, leaving: Messages, /) -> Value:
        total = arriving.relevance.sum_per_sample()
        for message in leaving:
            total = total - message.relevance.sum_per_sample() if message is not None and has_batch(message) else total
        return total

    def output(
        self, nodes: Collection[Node], entries: Mapping[Node, Value], explained: Value, strays: Sequence[Message], /
    ) -> Value:
        zero = explained.sum_per_sample().zeros()
        stray = sum((message.relevance.sum_per_sample() for message in strays if has_batch(message)), zero)
        return zero.emit.call(aten.cat.default, [*(entries.get(node, zero) for node in nodes), stray], 1)


@final
@dataclass(frozen=True)
class RootReport:
    """The roots that rules noted, one row for every `ROOT`: (N, roots, quantities), see `ROOT_QUANTITIES`.

    f is the operator itself, with its bias.
    """

    def entry(self, call: Call, arriving: Message, leaving: Messages, /) -> Value | None:
        if ROOT.is_absent(call.node) or not isinstance(call, UnaryCall) or leaving[0] is None:
            return None
        root, before = ROOT.of(call.node), arriving.relevance.sum_per_sample()
        columns = (
            _ratio(_norm(root.point), _norm(root.x)),
            root.loss_before,
            root.loss_after,
            _ratio(_norm(call.at(root.point).output), _norm(call.output)),
            _ratio(leaving[0].relevance.sum_per_sample() - before, before),
        )
        return call.emit.call(aten.cat.default, columns, 1)

    def output(
        self, nodes: Collection[Node], entries: Mapping[Node, Value], explained: Value, _strays: Sequence[Message], /
    ) -> Value | None:
        rows = [entries[node] for node in nodes if node in entries]
        return explained.emit.call(aten.stack.default, rows, 1) if rows else None


def has_batch(message: Message) -> bool:
    """The value that the message belongs to differs from sample to sample."""
    return any(map(message.at.emit.is_of_batch, message.at.shape))


def _norm(value: Value) -> Value:
    return value.emit.call(aten.sqrt.default, (value * value).sum_per_sample())


def _ratio(a: Value, b: Value) -> Value:
    return a / without_zeros(b)
