"""What is asked -> the passes that write the relevance half."""

from __future__ import annotations

from functools import partial

from passes.graphs.emitter import Value
from passes.pipelines import LOWER
from passes.relevance.annotations.add_reference import REFERENCE_INPUT
from passes.relevance.annotations.annotate import annotating_passes
from passes.relevance.answer_questions import AnswerQuestions
from passes.relevance.assign_rules import AssignRules
from passes.relevance.propagate_relevance import PropagateRelevance
from passes.relevance.protocol.messages import Message, Multiplier, Relevance
from passes.relevance.protocol.reference import CONTRIBUTIONS
from passes.relevance.protocol.rule import facts_needed
from passes.relevance.protocol.spread import SPREAD
from passes.relevance.share_factors import ShareFactors
from passes.relevance.unroll_samples import AverageSamples, UnrollSamples, unrolled_name
from passes.rewrites.optimise.remove_dead_code import RemoveDeadCode
from passes.rewrites.optimise.share_subexpressions import ShareSubexpressions
from passes.runner import Pass
from relcompile.question.inputs import AddBaseline, AddMasks, AddNoise, AddTarget
from relcompile.question.many_targets import first_of
from relcompile.question.outputs import FinishOutputs
from relcompile.question.question import Question
from relcompile.question.targets import EXPLAINED_CLASSES, FIRST_QUESTION, input_value


def relevance_passes(question: Question) -> tuple[Pass, ...]:
    """The passes from a canonical to an explainer graph."""
    output = question.output
    sources = question.sources if question.composite.sampling is None else tuple(map(unrolled_name, question.sources))
    places = question.places
    read = sources if places.at_anchor is None else (places.at_anchor,)
    rules = [entry.rule for entry in question.composite.entries]
    everything = bool(places.tap_anchors) or not facts_needed(rules).isdisjoint((CONTRIBUTIONS, SPREAD))
    unroll, average = _sampling(question)
    return (
        *((AddTarget(question.target, output, places.start_anchor),) if question.target.is_input else ()),
        *((AddMasks(places.mask_inputs, question.questions),) if places.masks else ()),
        *((AddNoise(question.noise, question.rows.copies),) if question.noise else ()),
        *((AddBaseline(question.sources[0]),) if question.path_starts_at_runtime else ()),
        *unroll,
        AssignRules(question.composite.choose, sources, output, None if everything else read),
        *annotating_passes(rules, question.differences, sources, output),
        PropagateRelevance(
            sources,
            output,
            seed=partial(_seed, question),
            read=(*read, *places.tap_anchors),
            read_out=partial(_read, question),
            ledgers=question.ledgers,
            start=places.start_anchor,
            masks={anchor: partial(_mask, question, name) for anchor, name in places.mask_inputs.items()},
            through_masks=places.exclude_parallel,
        ),
        *average,
        *_finish(question, len(read)),
    )


def _finish(question: Question, read: int) -> tuple[Pass, ...]:
    if question.reduce is None and question.output_dtype is None:
        return ()
    taps = len(question.places.taps)
    return (FinishOutputs(len(question.outputs), read, taps, question.reduce, question.output_dtype),)


def answering_passes(question: Question) -> tuple[Pass, ...]:
    """The passes from the explainer graph of one question a sample to that of many; none if there is one.

    Lowered first: masks of pools are then found once a sample.
    """
    if not question.target.is_many:
        return ()
    shown = () if question.target.is_input else (EXPLAINED_CLASSES,)
    firsts = (FIRST_QUESTION, *shown, *map(_first_mask, question.places.mask_inputs.values()))
    answer = AnswerQuestions(firsts, shown, 1 + question.rows.copies)
    return (*LOWER, ShareFactors(firsts), answer, ShareSubexpressions(), RemoveDeadCode())


def _seed(question: Question, y: Value) -> tuple[Message, ...]:
    """The messages that start at the value y, one a walk."""
    start, target, rows = question.composite.start, question.target, question.rows
    own = rows.samples(y)
    parts = question.composite.result.walks(target.choice(own))
    if question.places.start is not None:
        form, weights = question.composite.result.form, parts
    elif target.is_seed:
        form, weights = Relevance if start.seed_is_relevance else Multiplier, parts
    else:
        form, weights = Relevance if start.is_relevance else Multiplier, [start.weigh(own, part) for part in parts]
    return tuple(form(y, rows.repeated(weight)) for weight in weights)


def _mask(question: Question, name: str, value: Value) -> Value:
    """The mask in the input `name`, (N, channels), as it meets `value`, (N, channels, ...)."""
    given = input_value(value.emit, name)
    mask = question.rows.repeated(first_of(given, _first_mask(name)) if question.target.is_many else given)
    return mask.reshape([-1, value.shape[1], *[1] * (value.ndim - 2)])


def _first_mask(name: str) -> str:
    return f"first {name}"


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
