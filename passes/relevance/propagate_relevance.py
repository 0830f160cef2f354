"""annotated graph -> explainer graph: the reverse walk, and the one place where relevance is added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value
from passes.graphs.nodes import arguments
from passes.operators.call import Call
from passes.relevance.ledgers import Ledger
from passes.relevance.messages import Message, Multiplier, accumulate
from passes.relevance.rule import RULE, Messages, passed_by
from passes.views.active import active_operators, describe_active, explained_output, nodes_named

Inbox = dict[Node, list[Message]]
Seed: TypeAlias = Callable[[Value], tuple[Message, ...]]
ReadOut: TypeAlias = Callable[[tuple[Message, ...]], Value]


@final
@dataclass(frozen=True)
class PropagateRelevance:
    """Append the relevance half, written by the rule on every node, to the forward half.

    Attributes:
        sources: names of the nodes that hold the explained inputs.
        output: position of the explained output.
        seed: writes the messages at the explained output; each starts a walk of its own over the same forward half.
        read: names of the nodes whose relevance is wanted; the explained inputs, or any node above them.
        read_out: turns the messages that arrive at such a node, one a walk, into what the user gets.
        ledgers: what else is written down about every operator, on the first walk.

    Guarantees: the forward half is untouched; the new outputs are `read_out` of every node in `read`, in order, then
    one tensor for each ledger that has something to say.
    """

    sources: tuple[str, ...]
    output: int
    seed: Seed
    read: tuple[str, ...]
    read_out: ReadOut
    ledgers: tuple[Ledger, ...] = ()
    name: ClassVar[str] = "propagate-relevance"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        described = describe_active(emit, self.sources, self.output)
        sink, places = explained_output(module, self.output), nodes_named(module, self.read)
        carriers = {*described, *nodes_named(module, self.sources)}
        way = set(active_operators(module, self.read, self.output)).difference(places)
        above = {node: call for node, call in described.items() if node in way}
        with emit.on_behalf_of(sink):
            seeds = self.seed(emit.value(sink))
        inboxes, passages = zip(*(_walk(above, carriers, sink, seed, emit) for seed in seeds), strict=True)
        results = [self._read(place, inboxes, emit) for place in places]
        for ledger in self.ledgers:
            entries = _entries(ledger, described, passages[0], emit)
            report = ledger.output(described, entries, emit.value(sink), _strays(above, passages[0], places))
            results += [] if report is None else [report]
        output = module.graph.output_node()
        output.args = ((*arguments(output)[0], *(value.node for value in results)),)
        return len(described) or len(results)  # an output that is an input has no operator in between

    def _read(self, place: Node, inboxes: tuple[Inbox, ...], emit: Emitter) -> Value:
        with emit.on_behalf_of(place):
            return self.read_out(tuple(_arrived(place, inbox, emit) for inbox in inboxes))


def _walk(
    described: Mapping[Node, Call], carriers: set[Node], sink: Node, seed: Message, emit: Emitter
) -> tuple[Inbox, dict[Node, tuple[Message, Messages]]]:
    """From the output to the input: every operator's rule turns its message into messages for its operands."""
    inbox: Inbox = defaultdict(list, {sink: [seed]})
    passed: dict[Node, tuple[Message, Messages]] = {}
    for node, call in reversed(list(described.items())):
        if node not in inbox:
            continue
        with emit.on_behalf_of(node):
            arriving = accumulate(inbox[node])
            leaving = passed_by(RULE.of(node), call, arriving)
            for operand, message in zip(call.operands, leaving, strict=True):
                if message is not None and operand in carriers:
                    inbox[operand].append(message)
        inbox[node], passed[node] = [arriving], (arriving, leaving)
    return inbox, passed


def _arrived(place: Node, inbox: Inbox, emit: Emitter) -> Message:
    value = emit.value(place)
    return accumulate(inbox[place]) if place in inbox else Multiplier(value, value.zeros, value.zeros)


def _strays(
    above: Mapping[Node, Call], passed: Mapping[Node, tuple[Message, Messages]], places: Collection[Node]
) -> list[Message]:
    """The messages to values that no rule passes on and nobody reads."""
    ended = {*passed, *places}
    sent = [pair for node in passed for pair in zip(above[node].operands, passed[node][1], strict=True)]
    return [message for operand, message in sent if message is not None and operand not in ended]


def _entries(
    ledger: Ledger, described: Mapping[Node, Call], passed: Mapping[Node, tuple[Message, Messages]], emit: Emitter
) -> dict[Node, Value]:
    entries = dict[Node, Value]()
    for node, (arriving, leaving) in passed.items():
        with emit.on_behalf_of(node):
            entry = ledger.entry(described[node], arriving, leaving)
        if entry is not None:
            entries[node] = entry
    return entries
