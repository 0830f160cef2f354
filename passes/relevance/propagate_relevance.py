"""annotated graph -> explainer graph: the reverse walk, and the one place where relevance is added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, final

from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value
from passes.graphs.nodes import arguments
from passes.operators.call import Call
from passes.operators.signs import SIGN
from passes.relevance.ledgers import Ledger
from passes.relevance.protocol.messages import Message, Multiplier, accumulate
from passes.relevance.protocol.rule import RULE, Messages, passed_by
from passes.views.active import active_operators, describe_active, nodes_named, walk_start
from passes.views.ways import ALL_WAYS, Ways, ways_through

Inbox = dict[Node, list[Message]]
Passages: TypeAlias = dict[Node, tuple[Message, Messages]]
Seed: TypeAlias = Callable[[Value], tuple[Message, ...]]
ReadOut: TypeAlias = Callable[[tuple[Message, ...]], Value]
Mask: TypeAlias = Callable[[Value], Value]


@final
@dataclass(frozen=True)
class PropagateRelevance:
    """Append the relevance half, written by the rule on every node, to the forward half.

    Attributes:
        sources: names of the nodes that hold the explained inputs.
        output: position of the explained output.
        seed: writes the messages where relevance starts; each starts a walk of its own over the same forward half.
        read: names of the nodes whose relevance is wanted; the explained inputs, or any nodes above them.
        read_out: turns the messages that arrive at such a node, one a walk, into what the user gets.
        ledgers: what else is written down about every operator, on the first walk.
        start: name of the node where relevance starts; None for the explained output.
        masks: by name of a node, writes what the relevance that arrives there is multiplied by, before it is read.
        through_masks: what does not pass these nodes, one after the other, is cut.

    Guarantees: the forward half is untouched; the new outputs are `read_out` of every node in `read`, in order, then
    one tensor for each ledger that has something to say.
    """

    sources: tuple[str, ...]
    output: int
    seed: Seed
    read: tuple[str, ...]
    read_out: ReadOut
    ledgers: tuple[Ledger, ...] = ()
    start: str | None = None
    masks: Mapping[str, Mask] = field(default_factory=dict[str, Mask])
    through_masks: bool = False
    name: ClassVar[str] = "propagate-relevance"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        described = describe_active(emit, self.sources, self.output)
        start, places = walk_start(module, self.output, self.start), nodes_named(module, self.read)
        carriers = frozenset((*described, *nodes_named(module, self.sources)))
        way = {node for place in self.read for node in active_operators(module, (place,), self.output)}
        above = {node: call for node, call in described.items() if node in way}
        masks = dict(zip(nodes_named(module, tuple(self.masks)), self.masks.values(), strict=True))
        with emit.on_behalf_of(start):
            seeds = self.seed(emit.value(start))
        ways = ways_through(described, masks) if self.through_masks else ALL_WAYS
        walks = [_Walk.down(above, carriers, masks, ways, seed) for seed in seeds]
        results = [self._read(place, walks, emit) for place in places]
        for ledger in self.ledgers:
            entries = _entries(ledger, described, walks[0].passed, emit)
            report = ledger.output(described, entries, emit.value(start), walks[0].strays(above, places))
            results += [] if report is None else [report]
        output = module.graph.output_node()
        output.args = ((*arguments(output)[0], *(value.node for value in results)),)
        SIGN.forget(module.graph)  # what the rules wrote has none
        return len(described) or len(results)  # an output that is an input has no operator in between

    def _read(self, place: Node, walks: Sequence[_Walk], emit: Emitter) -> Value:
        with emit.on_behalf_of(place):
            return self.read_out(tuple(walk.arriving(emit.value(place)) for walk in walks))


@dataclass(frozen=True, eq=False)
class _Walk:
    """From where relevance starts to the input: every operator's rule turns its message into some for its operands.

    Attributes:
        masks: what messages are multiplied by, by node.
        ways: where messages go.
        inbox: what arrived.
        passed: what arrived at an operator in all, and what left it.
    """

    masks: Mapping[Node, Mask]
    ways: Ways
    inbox: Inbox
    passed: Passages = field(default_factory=Passages)

    @classmethod
    def down(
        cls,
        described: Mapping[Node, Call],
        carriers: frozenset[Node],
        masks: Mapping[Node, Mask],
        ways: Ways,
        seed: Message,
    ) -> _Walk:
        """The walk of `seed` through the operators of `described`."""
        walk = cls(masks, ways, defaultdict(list, {seed.at.node: [seed]}))
        for node, call in reversed(list(described.items())):
            if node in walk.inbox:
                with call.emit.on_behalf_of(node):
                    walk._pass(call, carriers)
        return walk

    def _pass(self, call: Call, carriers: frozenset[Node]) -> None:
        arriving = self.arriving(call.output)
        leaving = passed_by(RULE.of(call.node), call, arriving)
        self.passed[call.node] = arriving, leaving
        for operand, message in zip(call.operands, leaving, strict=True):
            if message is not None and operand in carriers and self.ways.lead(call.node, operand):
                self.inbox[operand].append(message)

    def arriving(self, value: Value) -> Message:
        """All that arrives at `value`, added up and masked."""
        if value.node in self.passed:
            return self.passed[value.node][0]
        if value.node not in self.inbox:
            return Multiplier(value, value.zeros, value.zeros)
        total = accumulate(self.inbox[value.node])
        return total.times(self.masks[value.node](value)) if value.node in self.masks else total

    def strays(self, above: Mapping[Node, Call], places: Collection[Node]) -> list[Message]:
        """The messages to values that no rule passes on and nobody reads."""
        ended = {*self.passed, *places}
        sent = ((n, *pair) for n in self.passed for pair in zip(above[n].operands, self.passed[n][1], strict=True))
        found = [(node, operand, m) for node, operand, m in sent if m is not None and operand not in ended]
        return [message for node, operand, message in found if self.ways.lead(node, operand)]


def _entries(ledger: Ledger, described: Mapping[Node, Call], passed: Passages, emit: Emitter) -> dict[Node, Value]:
    entries = dict[Node, Value]()
    for node, (arriving, leaving) in passed.items():
        with emit.on_behalf_of(node):
            entry = ledger.entry(described[node], arriving, leaving)
        if entry is not None:
            entries[node] = entry
    return entries
