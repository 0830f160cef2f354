"""A composite and what is asked of it -> the passes that write the relevance half."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.fx import GraphModule

from passes.graphs.emitter import Emitter, Value, aten
from passes.relevance.annotate import annotating_passes
from passes.relevance.assign_rules import AssignRules
from passes.relevance.messages import Message, Multiplier, Relevance
from passes.relevance.propagate_relevance import PropagateRelevance
from passes.relevance.unroll_samples import AverageSamples, UnrollSamples, unrolled_name
from passes.runner import Pass
from passes.views.active import explained_output, nodes_named
from relcompile.errors import CompositeError
from relcompile.question import read_out
from relcompile.question.question import Question
from relcompile.question.targets import add_target


def relevance_passes(module: GraphModule, question: Question) -> tuple[Pass, ...]:
    """The passes from a canonical to an explainer graph; inputs that they need are added to `module` at once.

    Raises:
        CompositeError: the method does not answer such a question.
        TargetError: see `add_target`.
    """
    explained = Emitter(module).value(explained_output(module, question.output))
    _check(question, module, explained)
    choose = add_target(module, question.target, explained)
    before, sources, after = _sampling(module, question)
    read = sources if question.place is None else (question.place,)
    seed = partial(_seed, question, choose)
    read_out_ = partial(_read_out, question, Emitter(module).value(nodes_named(module, question.sources)[0]))
    rules = [entry.rule for entry in question.composite.entries]
    return (
        *before,
        AssignRules(question.composite.choose, sources, question.output),
        *annotating_passes(rules, question.references, sources, question.output),
        PropagateRelevance(sources, question.output, seed, read, read_out_, question.ledgers),
        *after,
    )


def _check(question: Question, module: GraphModule, explained: Value) -> None:
    composite = question.composite
    if composite.result == "contrast" and (question.target.mode == "seed" or explained.ndim < 2):
        raise CompositeError(f"{composite.name} contrasts a class with all others: it takes no seed, and needs classes")
    if composite.result == "contrast" and question.ledgers:
        raise CompositeError(f"{composite.name} compares two walks: a report belongs to one")
    if question.place is None:
        return
    if composite.sampling is not None and composite.sampling.at_input_only:
        raise CompositeError(f"{composite.name} is defined at the input only, not at a layer")
    shape = Emitter(module).value(nodes_named(module, (question.place,))[0]).shape
    if composite.result == "activation-map" and not 3 <= len(shape) <= 5:
        raise CompositeError(f"{composite.name} needs a layer with a spatial output, not one of shape {shape}")


def _seed(question: Question, choose: Callable[[Value], Value], output: Value) -> tuple[Message, ...]:
    """The messages that start at the output, one a walk."""
    start, rows = question.composite.start, question.rows
    seeded = question.target.mode == "seed"
    is_relevance = start == "one" or (seeded and start not in ("cotangent", "signal"))
    form = Relevance if is_relevance else Multiplier
    own = rows.samples(output)
    chosen = choose(own)
    if start == "signal" and not seeded:
        chosen = chosen * own
    if start == "magnitude" and not seeded:
        chosen = chosen * own.emit.call(aten.sign.default, own)
    both = (chosen, chosen.ones() - chosen) if question.composite.result == "contrast" else (chosen,)
    return tuple(form(output, rows.repeated(part)) for part in both)


def _read_out(question: Question, x: Value, messages: tuple[Message, ...]) -> Value:
    match question.composite.result:
        case "relevance":
            return messages[0].relevance
        case "multiplier":
            return messages[0].multiplier
        case "contrast":
            return read_out.contrast(*messages)
        case "activation-map":
            return read_out.activation_map(messages[0], x)


def _sampling(module: GraphModule, question: Question) -> tuple[tuple[Pass, ...], tuple[str, ...], tuple[Pass, ...]]:
    """Passes before and after the relevance half, and the names of the nodes that hold the explained inputs."""
    sampling, rows, names = question.composite.sampling, question.rows, question.sources
    if sampling is None:
        return (), names, ()
    emit = Emitter(module)
    noise = {source: _noise(emit, source, name, rows.copies) for source, name in question.noise.items()}

    def draw(x: Value) -> Value:
        own = noise.get(x.node.name)
        return sampling.copies(x, None if own is None else x.emit.value(own.node))

    unroll = UnrollSamples(rows, question.inputs, dict.fromkeys(names, draw))
    average = AverageSamples(rows, len(question.outputs), names, sampling.finish)
    return (unroll,), tuple(map(unrolled_name, names)), (average,)


def _noise(emit: Emitter, source: str, name: str, copies: int) -> Value:
    """A new input `name` (N, copies, ...) for the noise on `source`."""
    fake: torch.Tensor = nodes_named(emit.module, (source,))[0].meta["val"]
    return emit.placeholder(name, fake, shape=(fake.shape[0], copies, *fake.shape[1:]))
