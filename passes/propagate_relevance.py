"""annotated graph -> explainer graph: the reverse walk, and the one place where relevance is added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.assign_rules import describe_active, explained_output, sources_of
from passes.emitter import Emitter, Value
from passes.ledgers import Ledger
from passes.messages import Message, accumulate
from passes.nodes import arguments
from passes.operators.call import Call

Inbox = dict[Node, list[Message]]


@final
@dataclass(frozen=True)
class PropagateRelevance:
    """Append the relevance half, written by the rule on every node, to the forward half.

    Attributes:
        sources: names of the explained inputs.
        output: position of the explained output.
        seed: writes the message at the explained output.
        read_out: turns the message that arrives at an input into what the user gets.
        ledgers: what else is written down about every operator.

    Guarantees: the forward half is untouched; the new outputs are `read_out` of every source, in order, then one
    tensor for each ledger that has an entry.
    """

    sources: tuple[str, ...]
    output: int
    seed: Callable[[Value], Message]
    read_out: Callable[[Message], Value]
    ledgers: tuple[Ledger, ...] = ()
    name: ClassVar[str] = "propagate-relevance"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        described = describe_active(emit, self.sources, self.output)
        sink = explained_output(module, self.output)
        inbox: Inbox = defaultdict(list)
        with emit.on_behalf_of(sink):
            inbox[sink].append(self.seed(emit.value(sink)))
        sources = sources_of(module, self.sources)
        books = _walk(described, sources, inbox, emit, self.ledgers)
        results = [_read(source, inbox, emit, self.read_out) for source in sources]
        results += [ledger.output(described, book) for ledger, book in zip(self.ledgers, books, strict=True) if book]
        output = module.graph.output_node()
        output.args = ((*arguments(output)[0], *(value.node for value in results)),)
        return len(described)


def _walk(
    described: Mapping[Node, Call], sources: list[Node], inbox: Inbox, emit: Emitter, ledgers: Sequence[Ledger]
) -> list[dict[Node, Value]]:
    """From the output to the input: every operator's rule turns its message into messages for its operands."""
    books = [dict[Node, Value]() for _ in ledgers]
    for node, call in reversed(list(described.items())):
        if node not in inbox:
            continue
        with emit.on_behalf_of(node):
            arriving = accumulate(inbox.pop(node))
            leaving = node.meta["rule"].propagate(call, arriving)
            for operand, message in zip(call.operands, leaving, strict=True):
                if message is not None and (operand in described or operand in sources):
                    inbox[operand].append(message)
            for ledger, book in zip(ledgers, books, strict=True):
                _note(ledger.entry(call, arriving, leaving), node, book)
    return books


def _note(entry: Value | None, node: Node, book: dict[Node, Value]) -> None:
    if entry is not None:
        book[node] = entry


def _read(source: Node, inbox: Inbox, emit: Emitter, read_out: Callable[[Message], Value]) -> Value:
    value = emit.value(source)
    with emit.on_behalf_of(source):
        if source not in inbox:
            return value.zeros()
        return read_out(accumulate(inbox[source]))
