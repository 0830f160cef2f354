"""What is asked -> the passes that write the relevance half."""

from __future__ import annotations

from functools import partial

from passes.graphs.emitter import Value
from passes.relevance.add_reference import REFERENCE_INPUT
from passes.relevance.annotate import annotating_passes
from passes.relevance.assign_rules import AssignRules
from passes.relevance.messages import Message, Multiplier, Relevance
from passes.relevance.propagate_relevance import PropagateRelevance
from passes.relevance.reference import CONTRIBUTIONS
from passes.relevance.rule import facts_needed
from passes.relevance.spread import SPREAD
from passes.relevance.unroll_samples import AverageSamples, UnrollSamples, unrolled_name
from passes.runner import Pass
from relcompile.question.inputs import AddBaseline, AddNoise, AddTarget
from relcompile.question.question import Question
from relcompile.question.targets import input_value


def relevance_passes(question: Question) -> tuple[Pass, ...]:
    """The passes from a canonical to an explainer graph."""
    output = question.output
    sources = question.sources if question.composite.sampling is None else tuple(map(unrolled_name, question.sources))
    read = sources if question.anchor is None else (question.anchor,)
    rules = [entry.rule for entry in question.composite.entries]
    everything = not facts_needed(rules).isdisjoint((CONTRIBUTIONS, SPREAD))
    unroll, average = _sampling(question)
    return (
        *((AddTarget(question.target, output),) if question.target.is_input else ()),
        *((AddNoise(question.noise, question.rows.copies),) if question.noise else ()),
        *((AddBaseline(question.sources[0]),) if question.path_starts_at_runtime else ()),
        *unroll,
        AssignRules(question.composite.choose, sources, output, None if everything else read),
        *annotating_passes(rules, question.differences, sources, output),
        PropagateRelevance(sources, output, partial(_seed, question), read, partial(_read, question), question.ledgers),
        *average,
    )


def _seed(question: Question, y: Value) -> tuple[Message, ...]:
    """The messages that start at the output y, one a walk."""
    start, target, rows = question.composite.start, question.target, question.rows
    own = rows.samples(y)
    parts = question.composite.result.walks(target.choice(own))
    if target.is_seed:
        is_relevance, weights = start.seed_is_relevance, parts
    else:
        is_relevance, weights = start.is_relevance, [start.weigh(own, part) for part in parts]
    form = Relevance if is_relevance else Multiplier
    return tuple(form(y, rows.repeated(weight)) for weight in weights)


def _read(question: Question, messages: tuple[Message, ...]) -> Value:
    """What the user gets of the messages that arrive, one a walk."""
    emit = messages[0].at.emit
    return question.composite.result.read(messages, input_value(emit, question.sources[0]))


def _sampling(question: Question) -> tuple[tuple[Pass, ...], tuple[Pass, ...]]:
    """Passes before and after the relevance half."""
    sampling, rows, noise = question.composite.sampling, question.rows, question.noise
    if sampling is None:
        return (), ()

    def draw(x: Value) -> Value:
        name = noise.get(str(x.node.target))
        return sampling.copies(x, _baseline(question, x) if name is None else input_value(x.emit, name))

    def finish(x: Value, mean: Value) -> Value:
        return sampling.finish(x, _baseline(question, x), mean)

    unroll = UnrollSamples(rows, question.inputs, dict.fromkeys(question.sources, draw))
    return (unroll,), (AverageSamples(rows, len(question.outputs), question.sources, finish),)


def _baseline(question: Question, x: Value) -> Value | None:
    """Where the path to the explained input x starts; None for 0, or for a method without a path."""
    sampling, references = question.composite.sampling, question.references
    if sampling is None or sampling.start is None or references is None:
        return None
    tensor = references[str(x.node.target)]
    if tensor is None:
        return input_value(x.emit, REFERENCE_INPUT)
    return x.emit.constant("baseline", tensor.to(x.fake.dtype)) if bool(tensor.any()) else None
