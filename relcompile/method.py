"""A composite and what is asked of it -> the passes that write the relevance half."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import GraphModule

from passes.add_contributions import AddContributions
from passes.add_reference import AddReference
from passes.add_spread import AddSpread
from passes.assign_rules import AssignRules, explained_output, nodes_named
from passes.emitter import Emitter, Value, aten
from passes.ledgers import Ledger
from passes.messages import Message
from passes.propagate_relevance import PropagateRelevance
from passes.runner import Pass
from passes.unroll_samples import AverageSamples, Rows, UnrollSamples, unrolled_name
from relcompile.composites import Composite
from relcompile.errors import CompositeError
from relcompile.rules import read_out
from relcompile.targets import Target, add_target


@dataclass(frozen=True)
class Question:
    """What is to be explained, and where.

    Attributes:
        composite: the attribution method.
        target: which entry of the explained output.
        inputs: names of the model's inputs.
        sources: names of those that are explained.
        outputs: names of the model's outputs.
        output: position of the explained one.
        place: name of the node whose relevance is wanted; None for that of the explained inputs.
        ledgers: what else is written down about every operator.
        references: what differences are taken from, by name of an explained input: one sample, or None for a further
            input of the explainer; None for a method without differences.
    """

    composite: Composite
    target: Target
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    output: int
    place: str | None = None
    ledgers: tuple[Ledger, ...] = ()
    references: Mapping[str, torch.Tensor | None] | None = None

    @property
    def rows(self) -> Rows:
        """How samples and their copies lie in the batch."""
        return Rows() if self.composite.sampling is None else Rows(self.composite.sampling.count)

    @property
    def noise(self) -> Mapping[str, str]:
        """Explained inputs, and the names of the inputs of noise that their copies need."""
        if self.composite.sampling is None or not self.composite.sampling.noisy:
            return {}
        single = len(self.sources) == 1
        return {source: "noise" if single else f"noise_{source}" for source in self.sources}


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
    references = question.references
    return (
        *before,
        *(() if references is None else (AddReference(references, question.output),)),
        AssignRules(question.composite.choose, sources, question.output),
        *(() if references is None else (AddContributions(sources, question.output),)),
        AddSpread(sources, question.output),
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
    form = Message.of_relevance if is_relevance else Message.of_multiplier
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
