"""What is to be explained, and where: every name looked up, every contradiction refused, before a pass runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import GraphModule, Node

from passes.graphs.graph import active_nodes
from passes.graphs.nodes import argument, arguments
from passes.operators.embedding import EmbeddingCall
from passes.operators.table import is_a
from passes.relevance.ledgers import AbsorbedRelevance, Ledger, RootReport
from passes.relevance.unroll_samples import Rows, unrolled_name
from passes.views.active import explained_output, nodes_named
from relcompile.errors import CompositeError, InputSpecError, TargetError
from relcompile.files.records import TargetRecord
from relcompile.frontend.capture import Captured
from relcompile.methods.composites import Composite
from relcompile.methods.results import Asked
from relcompile.methods.sampling import Background
from relcompile.question.options import Options
from relcompile.question.places import Places
from relcompile.question.references import Reference, chosen_reference, number_of_references, reference_tensors
from relcompile.question.target_names import target_named
from relcompile.question.targets import ClassInput, Seed, Target, number_of_classes


@dataclass(frozen=True)
class Question:
    """What is to be explained, and where.

    Attributes:
        composite: the attribution method.
        target: which entry of the explained output; a seed, if relevance starts elsewhere.
        questions: how many targets every sample has, as `TargetRecord` says it.
        inputs: names of the model's inputs.
        sources: names of those that are explained.
        outputs: names of the model's outputs.
        output: position of the explained one.
        places: the layers where relevance starts, is read and is masked.
        ledgers: what else is written down about every operator.
        reference: what differences are taken from, or where paths start; None for a method without either.
        reduce, output_dtype: how relevance leaves the graph, as in `FinishOutputs`.
        references: the same by name of an explained input: samples, or None for a further input of the explainer.
    """

    composite: Composite
    target: Target
    questions: int | str | None
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    output: int
    places: Places
    ledgers: tuple[Ledger, ...] = ()
    reference: Reference | None = None
    references: Mapping[str, torch.Tensor | None] | None = None
    reduce: str | None = None
    output_dtype: str | None = None

    @classmethod
    def resolve(cls, captured: Captured, inputs: Mapping[str, torch.Tensor], options: Options) -> Question:
        """What `options` ask of a captured model; the layers that they name get anchors in its graph.

        Args:
            captured: the model as it was captured.
            inputs: the examples that it was captured on, by name.
            options: what the user asks for.

        Raises:
            CompositeError: the rule does not exist, or does not answer such a question.
            InputSpecError: an input or output does not exist, or the reference does not fit.
            TargetError: the target does not exist.
            passes.errors.UnknownLayerError: the layer does not exist, or cannot be read.
        """
        composite = options.composite
        reference = chosen_reference(composite, options.reference)
        output = _explained_output(captured, options.output)
        sources = _explained_inputs(captured, options.explain, output)
        indices = [name for name in sources if name not in captured.float_inputs]
        if composite.sampling is not None and indices:
            raise CompositeError(f"{composite.name} moves the input, but {', '.join(indices)} holds indices")
        sink = explained_output(captured.module, output)
        references = None if reference is None else reference_tensors(reference, inputs, sources)
        composite = _over_background(composite, references)
        places = Places.resolve(
            captured.module,
            nodes_named(captured.module, sources),
            sink,
            options,
            reads_layer=composite.result.reads_layer,
        )
        target = _target(options)
        record = target.record(number_of_classes(sink.meta["val"]))
        _require_classes(record, sink.meta["val"])
        question = cls(
            composite=composite,
            target=target,
            questions=record.questions,
            inputs=captured.inputs,
            outputs=captured.outputs,
            sources=sources,
            output=output,
            places=places,
            ledgers=((AbsorbedRelevance(),) if options.absorbed else ()) + ((RootReport(),) if options.roots else ()),
            reference=reference,
            references=references,
            reduce=options.reduce,
            output_dtype=options.output_dtype,
        )
        _check(question, captured.module)
        return question

    @property
    def rows(self) -> Rows:
        """How samples and their copies lie in the batch."""
        return Rows() if self.composite.sampling is None else Rows(self.composite.sampling.count)

    @property
    def differences(self) -> Mapping[str, torch.Tensor | None] | None:
        """What differences are taken from, by the node that holds an explained input; None for a method without any.

        Of a background every copy of a sample has its own; the sample itself, whose relevance nobody reads, the first.
        """
        if self.composite.reference is None or self.references is None:
            return None
        if self.composite.sampling is None:
            return self.references
        several = {name: one is not None and len(one) > 1 for name, one in self.references.items()}
        return {
            unrolled_name(name): torch.cat([one[:1], one]) if one is not None and several[name] else one
            for name, one in self.references.items()
        }

    @property
    def path_starts_at_runtime(self) -> bool:
        """The baseline of a path is a further input of the explainer."""
        return self.composite.reference is None and self.references is not None and None in self.references.values()

    @property
    def noise(self) -> Mapping[str, str]:
        """Explained inputs, and the names of the inputs of noise that their copies need."""
        if self.composite.sampling is None or not self.composite.sampling.noisy:
            return {}
        single = len(self.sources) == 1
        return {source: "noise" if single else f"noise_{source}" for source in self.sources}


def _target(options: Options) -> Target:
    """What was asked for; where relevance starts at a layer, a seed."""
    target = target_named(options.target) if isinstance(options.target, str | int) else options.target
    if options.start is None or target.is_seed:
        return target
    if isinstance(target, ClassInput):  # nobody chose it: it is the default
        return Seed()
    raise TargetError(
        f"target {options.target!r} chooses from the output, but relevance starts at layer {options.start!r}: "
        "the explainer's input `target` is the relevance there; leave the target out"
    )


def _require_classes(record: TargetRecord, output: torch.Tensor) -> None:
    """Refuse to choose a class along an axis whose size is the caller's: those are positions.

    Raises:
        TargetError: says what to ask for.
    """
    if record.mode in ("index", "argmax", "fixed") and record.classes is None and output.dim() > 1:
        raise TargetError(
            f"the explained output {list(output.shape)} has no classes behind the batch: that axis is free. "
            'target="entry" (--target entry) explains one entry, such as a class at a position, "region" several'
        )


def _over_background(composite: Composite, references: Mapping[str, torch.Tensor | None] | None) -> Composite:
    """The mean over all references, if there are several.

    Raises:
        CompositeError: the method takes one, or averages over something else.
    """
    count = 1 if references is None else number_of_references(references)
    if count == 1:
        return composite
    if composite.reference is None or composite.sampling is not None:
        raise CompositeError(
            f"{composite.name} takes one reference, {count} were given; the deeplift rules take several"
        )
    return replace(composite, sampling=Background(count))


def _check(question: Question, module: GraphModule) -> None:
    """Refuse what the method does not answer."""
    composite, shapes = question.composite, question.places.read_shapes(module)
    if composite.sampling is not None and question.differences is not None and None in question.differences.values():
        raise CompositeError(f"{composite.name} averages over copies of the input: a runtime reference has none")
    if shapes and composite.sampling is not None and composite.sampling.at_input_only:
        raise CompositeError(f"{composite.name} is defined at the input only, not at a layer")
    for place in shapes or [None]:
        composite.result.check(
            Asked(
                method=composite.name,
                one_class=question.target.is_one_class,
                output=tuple(explained_output(module, question.output).meta["val"].shape),
                place=place,
                reports=bool(question.ledgers),
            )
        )


def _explained_output(captured: Captured, asked: int | str) -> int:
    """The position of a floating point output: the one at that position or of that name, or else the only one."""
    position = captured.outputs.index(asked) if asked in captured.outputs else asked
    nodes: tuple[Node, ...] = arguments(captured.module.graph.output_node())[0]
    floating = [k for k, node in enumerate(nodes) if node.meta["val"].is_floating_point()]
    if isinstance(position, int) and position in floating:
        return position
    if position in range(len(nodes)) and len(floating) == 1:
        return floating[0]
    dtypes = (str(node.meta["val"].dtype).removeprefix("torch.") for node in nodes)
    known = ", ".join(
        f"{k}: {name} {dtype}" for k, (name, dtype) in enumerate(zip(captured.outputs, dtypes, strict=True))
    )
    raise InputSpecError(
        f"there is no floating point output {asked} to explain; the outputs are {known}; "
        "choose with output= (--explained-output)"
    )


def _explained_inputs(captured: Captured, names: Sequence[str] | None, output: int) -> tuple[str, ...]:
    """Those that were named; else all floating point inputs; else the integer inputs that are embedded."""
    sink, floats = explained_output(captured.module, output), captured.float_inputs
    ways = {n: active_nodes(captured.module, nodes_named(captured.module, (n,)), sink) for n in captured.inputs}
    embedded = tuple(name for name, way in ways.items() if name not in floats and _embeds(way))
    chosen = (floats or embedded) if names is None else tuple(dict.fromkeys(names))
    unknown = [name for name in chosen if name not in (*floats, *embedded)]
    if unknown or not chosen:
        known = ", ".join((*floats, *embedded)) or "none"
        raise InputSpecError(
            f"no floating point or embedded input called {', '.join(unknown) or '(any)'}; there are: {known}"
        )
    without = [name for name in chosen if sink not in ways[name]]
    if len(without) == len(chosen) or (names is not None and without):
        raise InputSpecError(
            f"the explained output {captured.outputs[output]} does not depend on {', '.join(without)}, "
            "or by way of integers and comparisons only: there is no relevance to compute"
        )
    return chosen


def _embeds(way: set[Node]) -> bool:
    """Indices become values on the way."""
    return any(is_a(node, EmbeddingCall) and argument(node, "indices") in way for node in way)
