"""An explainer graph -> what its files say about it, and arguments that it runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.nodes import arguments
from passes.relevance.annotations.add_reference import REFERENCE_INPUT
from passes.relevance.ledgers import ROOT_QUANTITIES, AbsorbedRelevance, RootReport
from passes.relevance.protocol.found_root import ROOT
from passes.relevance.protocol.rule import RULE
from passes.views.active import explained_output, nodes_named
from passes.views.layer import LAYER
from relcompile.errors import CompositeError
from relcompile.files.records import MANY, InputRecord, LayerRecord, MaskRecord, RootsRecord, TapRecord, TargetRecord
from relcompile.metadata import Metadata
from relcompile.methods.rules.adjoint import Fallback
from relcompile.question.io_names import relevance_names
from relcompile.question.options import Options
from relcompile.question.question import Question
from relcompile.question.references import describe_reference
from relcompile.question.targets import TARGET_INPUT, number_of_classes

_EXAMPLES: Final = 3  # questions; different from the number of samples that a graph is exported with

# The last column of what is absorbed belongs to no layer.
_STRAYS: Final = LayerRecord("(not explained)", "inputs and constants", "structure", "nobody reads their relevance", 0)


def described(module: GraphModule, question: Question, options: Options, digest: str) -> Metadata:
    """The metadata of an explainer graph, before passes that drop the annotations of its nodes.

    Raises:
        CompositeError: an entry of the composite has to match a layer, and matches none; or no roots are learned.
    """
    annotated = LAYER.known_in(module.graph.nodes)
    question.composite.check([LAYER.of(node) for node in annotated])
    absorbed = any(isinstance(ledger, AbsorbedRelevance) for ledger in question.ledgers)
    at_runtime = question.references is not None and None in question.references.values()
    return Metadata(
        relcompile=version("relcompile"),
        torch=torch.__version__,
        rule=question.composite.name,
        chosen=options.chosen,
        layers=(*map(_layer_record, annotated), *([_STRAYS] if absorbed else [])),
        target=question.target.record(number_of_classes(explained_output(module, question.output).meta["val"])),
        start=question.places.start,
        inputs=tuple(_input_record(module, question, name) for name in question.inputs),
        outputs=question.outputs,
        explained=question.outputs[question.output],
        relevance=relevance_names(question),
        absorbed=absorbed,
        roots=_roots_record(annotated, question),
        weights_sha256=digest,
        class_names=None if options.class_names is None else tuple(options.class_names),
        preprocessing=options.photographs,
        model=options.name,
        layer_rules=(*options.rules_of_layers, *(["fallback=gradient"] if _falls_back(annotated) else [])),
        at=question.places.at,
        taps=_tap_records(module, question),
        masks=_mask_records(module, question),
        exclude_parallel=question.places.exclude_parallel,
        reduce=question.reduce,
        output_dtype=question.output_dtype,
        reference=describe_reference(question.reference),
        sampling=None if question.composite.sampling is None else str(question.composite.sampling),
        noise=tuple(_input_record(module, question, name) for name in question.noise.values()),
        reference_input=_input_record(module, question, REFERENCE_INPUT) if at_runtime else None,
    )


def example_arguments(
    module: GraphModule, inputs: Mapping[str, torch.Tensor], target: TargetRecord
) -> dict[str, torch.Tensor]:
    """The examples of the model's inputs; classes from 0 on, standard normal numbers for anything else."""
    generator = torch.Generator().manual_seed(0)
    batch = next(iter(inputs.values())).shape[0]
    arguments = dict[str, torch.Tensor]()
    for node in module.graph.find_nodes(op="placeholder"):
        fake: Any = node.meta["val"]
        shape = [batch, *(size if isinstance(size, int) else size.node.hint for size in fake.shape[1:])]
        drawn = torch.randn(shape, generator=generator) if fake.is_floating_point() else torch.zeros(shape)
        arguments[node.name] = inputs.get(node.name, drawn.to(fake.dtype))
    if target.takes_class and target.questions is not None:
        arguments[TARGET_INPUT] += torch.arange(_EXAMPLES) % (target.classes or 1)
    return arguments


def _falls_back(annotated: Sequence[Node]) -> bool:
    return any(isinstance(RULE.of(node), Fallback) for node in annotated)


def _layer_record(node: Node) -> LayerRecord:
    layer = LAYER.of(node)
    return LayerRecord(layer.name, layer.operator, layer.kind, str(RULE.of(node)), layer.parameters)


def _mask_records(module: GraphModule, question: Question) -> tuple[MaskRecord, ...]:
    places = question.places
    records = (_input_record(module, question, name) for name in places.mask_inputs.values())
    return tuple(map(MaskRecord, places.masks, records))


def _tap_records(module: GraphModule, question: Question) -> tuple[TapRecord, ...]:
    first = len(question.outputs) + len(relevance_names(question))
    values = [node.meta["val"] for node in arguments(module.graph.output_node())[0][first:]]
    of_questions = () if question.questions is None else (question.questions,)
    names = _free_names(module, question)
    return tuple(
        TapRecord(
            name,
            layer,
            (
                "batch",
                *of_questions,
                *(s if isinstance(s, int) else names.get(str(s), str(s)) for s in value.shape[1:]),
            ),
        )
        for name, layer, value in zip(question.places.tap_outputs, question.places.taps, values, strict=False)
    )


def _roots_record(annotated: Sequence[Node], question: Question) -> RootsRecord | None:
    if not any(isinstance(ledger, RootReport) for ledger in question.ledgers):
        return None
    layers = tuple(LAYER.of(node).name for node in ROOT.known_in(annotated))
    if not layers:
        raise CompositeError(f"rule {question.composite.name} learns no roots to report")
    return RootsRecord(layers, ROOT_QUANTITIES)


def _input_record(module: GraphModule, question: Question, name: str) -> InputRecord:
    fake: torch.Tensor = nodes_named(module, (name,))[0].meta["val"]
    return InputRecord(
        name, _symbolic(fake.shape, _free_names(module, question)), str(fake.dtype).removeprefix("torch.")
    )


def _symbolic(shape: Sequence[Any], names: Mapping[str, str]) -> tuple[int | str, ...]:
    """The batch, and sizes: numbers, names of free axes, or the number of questions."""
    return ("batch", *(size if isinstance(size, int) else names.get(str(size), MANY) for size in shape[1:]))


def _free_names(module: GraphModule, question: Question) -> dict[str, str]:
    """`input_ids_1` for axis 1 of the input `input_ids`, by symbol; what has to be equal has the name of the first."""
    names = dict[str, str]()
    for node in reversed(nodes_named(module, question.inputs)):
        sizes = list(enumerate(node.meta["val"].shape))[:0:-1]
        names |= {str(size): f"{node.name}_{axis}" for axis, size in sizes if not isinstance(size, int)}
    return names
