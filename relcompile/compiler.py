"""The pipeline: model -> captured -> canonical -> annotated -> explainer graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.fx import GraphModule, Node

from passes.graphs.graph import active_nodes, layer_name
from passes.graphs.nodes import arguments
from passes.pipelines import OPTIMISE
from passes.relevance.ledgers import AbsorbedRelevance, RootReport
from passes.runner import run_passes
from passes.stages import verify_canonical
from passes.views.active import explained_output, nodes_named
from passes.views.named_layers import keep, last_feature_map, layer_output, release
from relcompile.backend.check_prediction import check_outputs
from relcompile.backend.describe import described, example_arguments
from relcompile.backend.explainer import Explainer
from relcompile.calibration.store import Calibration
from relcompile.errors import InputSpecError
from relcompile.frontend.canonical import (
    ExampleInputs,
    Progress,
    canonicalize,
    captured_graph,
    named_inputs,
    weights_digest,
)
from relcompile.frontend.capture import Captured
from relcompile.frontend.constants import refuse_lost_backwards
from relcompile.frontend.numbers import check_numbers
from relcompile.metadata import Preprocessing
from relcompile.methods.composites import Composite
from relcompile.methods.presets import Bounds
from relcompile.methods.spelling import Given, bounds_of, named
from relcompile.question.io_names import check_names
from relcompile.question.plan import relevance_passes
from relcompile.question.question import Question
from relcompile.question.references import Reference, chosen_reference, describe_reference, reference_tensors
from relcompile.question.targets import Target


def compile(
    model: torch.nn.Module,
    example_inputs: ExampleInputs,
    *,
    rule: str | Composite = "z+",
    bounds: Bounds | None = None,
    calibration: Calibration | None = None,
    target: str | int | Target = "index",
    reference: Reference | None = None,
    explain: Sequence[str] | None = None,
    output: int = 0,
    at: str | None = None,
    absorbed: bool = False,
    roots: bool = False,
    forward_derivative: bool = False,
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    progress: Progress | None = None,
) -> Explainer:
    """Compile `model` and an attribution method into one static graph.

    Args:
        model: any module that `torch.export` can capture; used in eval mode.
        example_inputs: one tensor, several in the order of `forward`, or by name; the batch on axis 0.
        rule: a name ("z+", "epsilon=0.25") or a composite.
        bounds: (low, high) of the input, numbers or one per channel, for the rules that need them; taken from
            `preprocessing` if that is given.
        calibration: the patterns of this very model, for the rules that need them (see `relcompile.calibrate`).
        target: "index" (a runtime input), "argmax", "seed", or a class number.
        reference: the input that differences are taken from, for the deeplift rules: one number, one per channel, a
            tensor of one sample, or "input" (a runtime input `reference`); 0 by default.
        explain: names of the inputs that get relevance; all floating point inputs by default.
        output: position of the output that is explained; if that is not floating point and exactly one is, that one.
        at: name of a layer: relevance is that of its output, and not that of the input. (Grad-CAM reads its feature
            map there; by default it takes the last one.)
        absorbed: also compute what biases and stabilisers absorb, (N, operators).
        roots: also report on the roots that the rules learn, (N, roots, quantities); names are in the metadata.
        forward_derivative: the model calls custom autograd functions or hooks, and yet the derivative of its forward is
            meant, for the rules that are gradients.
        class_names: stored with the explainer, one per class.
        preprocessing: stored with the explainer: how a photograph becomes the input.
        progress: told the name of every step.

    Returns:
        The explainer; its batch size is free.

    Raises:
        CalibrationError: the calibration belongs to a model with other weights.
        CaptureError: the model is not one static graph; or it has a backward of its own, and the rule is a gradient.
        MiscompilationError: the explainer does not predict what the model predicts on the examples.
        CompositeError, TargetError, InputSpecError: a rule, a target or an input does not exist; two inputs or
            outputs have one name; or no rule learns the roots that were asked for.
        passes.errors.UnsupportedOperatorError: lists every operator that has no rule.
        passes.errors.UnknownLayerError: lists the layers that `at` may name.
    """
    digest = weights_digest(model)
    if calibration is not None:
        calibration.require(digest)
    given = Given(bounds or bounds_of(preprocessing), calibration)
    composite = named(rule, given) if isinstance(rule, str) else rule
    reference = chosen_reference(composite, reference)
    inputs = named_inputs(model, example_inputs)
    check_numbers(model, inputs)
    captured = captured_graph(model, inputs, progress)
    if composite.start == "cotangent" and not forward_derivative:
        refuse_lost_backwards(captured.lost_backwards)
    module, output = captured.module, _explained_output(captured, output)
    sources = _explained_inputs(captured, explain, output)
    reads_layer = at is not None or composite.result == "activation-map"
    if reads_layer:
        at = _keep_layer(module, at, sources, output)
    reports = canonicalize(module, progress)
    question = Question(
        composite=composite,
        target=target if isinstance(target, Target) else Target.parse(target),
        inputs=captured.inputs,
        outputs=captured.outputs,
        sources=sources,
        output=output,
        place=release(module).name if reads_layer else None,
        ledgers=((AbsorbedRelevance(),) if absorbed else ()) + ((RootReport(),) if roots else ()),
        references=None if reference is None else reference_tensors(reference, inputs, sources),
    )
    check_names(question)
    reports += run_passes(module, relevance_passes(module, question), keeps=verify_canonical, on_pass=progress)
    metadata = replace(
        described(module, question, digest),
        class_names=None if class_names is None else tuple(class_names),
        preprocessing=preprocessing,
        at=at,
        reference=describe_reference(reference),
    )
    reports += run_passes(module, OPTIMISE, keeps=verify_canonical, on_pass=progress)
    explainer = Explainer(module, metadata, example_arguments(module, inputs), reports)
    if progress:
        progress("compare with the model")
    check_outputs(model, inputs, explainer)
    return explainer


def _keep_layer(module: GraphModule, at: str | None, sources: tuple[str, ...], output: int) -> str:
    """Make the output of layer `at`, or else the last feature map, the last output of `module`; the layer's name."""
    ends = nodes_named(module, sources), explained_output(module, output)
    node = last_feature_map(module, *ends) if at is None else layer_output(module, at, *ends)
    keep(module, node)
    return at or layer_name(node)


def _explained_output(captured: Captured, position: int) -> int:
    """The position of a floating point output: the one at `position`, or else the only one."""
    nodes: tuple[Node, ...] = arguments(captured.module.graph.output_node())[0]
    floating = [k for k, node in enumerate(nodes) if node.meta["val"].is_floating_point()]
    if position in floating:
        return position
    if position in range(len(nodes)) and len(floating) == 1:
        return floating[0]
    dtypes = (str(node.meta["val"].dtype).removeprefix("torch.") for node in nodes)
    known = ", ".join(
        f"{k}: {name} {dtype}" for k, (name, dtype) in enumerate(zip(captured.outputs, dtypes, strict=True))
    )
    raise InputSpecError(
        f"there is no floating point output {position} to explain; the outputs are {known}; "
        "choose with output= (--explained-output)"
    )


def _explained_inputs(captured: Captured, names: Sequence[str] | None, output: int) -> tuple[str, ...]:
    chosen = captured.float_inputs if names is None else tuple(dict.fromkeys(names))
    unknown = [name for name in chosen if name not in captured.float_inputs]
    if unknown or not chosen:
        known = ", ".join(captured.float_inputs) or "none"
        raise InputSpecError(f"no floating point input called {', '.join(unknown) or '(any)'}; there are: {known}")
    sink = explained_output(captured.module, output)
    without = [
        n.name for n in nodes_named(captured.module, chosen) if sink not in active_nodes(captured.module, [n], sink)
    ]
    if len(without) == len(chosen) or (names is not None and without):
        raise InputSpecError(
            f"the explained output {captured.outputs[output]} does not depend on {', '.join(without)}, "
            "or by way of integers and comparisons only: there is no relevance to compute"
        )
    return chosen
