"""annotated graph -> explainer graph: the reverse walk, and the one place where relevance is added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch.fx import GraphModule, Node

from passes.assign_rules import describe_active, explained_output, sources_of
from passes.emitter import Emitter, Value, aten
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
        absorbed: also return, per sample and operator, the relevance that biases and stabilisers keep.

    Guarantees: the forward half is untouched; the new outputs are `read_out` of every source, in order, then (if
    asked for) one tensor (N, operators), in graph order.
    """

    sources: tuple[str, ...]
    output: int
    seed: Callable[[Value], Message]
    read_out: Callable[[Message], Value]
    absorbed: bool = False
    name: ClassVar[str] = "propagate-relevance"

    def apply(self, module: GraphModule, /) -> int:
        emit = Emitter(module)
        described = describe_active(emit, self.sources, self.output)
        sink = explained_output(module, self.output)
        inbox: Inbox = defaultdict(list)
        with emit.on_behalf_of(sink):
            inbox[sink].append(self.seed(emit.value(sink)))
        sources = sources_of(module, self.sources)
        kept = _walk(described, sources, inbox, emit, ledger=self.absorbed)
        results = [_read(source, inbox, emit, self.read_out) for source in sources]
        if self.absorbed:
            results.append(_ledger(described, kept, emit))
        output = module.graph.output_node()
        output.args = ((*arguments(output)[0], *(value.node for value in results)),)
        return len(described)


def _walk(
    described: Mapping[Node, Call], sources: list[Node], inbox: Inbox, emit: Emitter, *, ledger: bool
) -> dict[Node, Value]:
    """From the output to the input: every operator's rule turns its message into messages for its operands."""
    kept: dict[Node, Value] = {}
    for node, call in reversed(list(described.items())):
        if node not in inbox:
            continue
        with emit.on_behalf_of(node):
            arriving = accumulate(inbox.pop(node))
            leaving = node.meta["rule"].propagate(call, arriving)
            for operand, message in zip(call.operands, leaving, strict=True):
                if message is not None and (operand in described or operand in sources):
                    inbox[operand].append(message)
            if ledger:
                kept[node] = _absorbed(arriving, [message for message in leaving if message is not None])
    return kept


def _read(source: Node, inbox: Inbox, emit: Emitter, read_out: Callable[[Message], Value]) -> Value:
    value = emit.value(source)
    with emit.on_behalf_of(source):
        if source not in inbox:
            return value.zeros()
        return read_out(accumulate(inbox[source]))


def _absorbed(arriving: Message, leaving: list[Message]) -> Value:
    """Relevance that arrives at an operator and does not leave it, (N, 1)."""
    total = arriving.relevance.sum_per_sample()
    for message in leaving:
        total = total - message.relevance.sum_per_sample()
    return total


def _ledger(described: Mapping[Node, Call], kept: Mapping[Node, Value], emit: Emitter) -> Value:
    zero = next(iter(kept.values())).zeros()
    return emit.call(aten.cat.default, [kept.get(node, zero) for node in described], 1)
