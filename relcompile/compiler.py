"""The pipeline: model -> captured -> canonical -> annotated -> explainer graph."""

from __future__ import annotations

from typing import Unpack

import torch

from passes.pipelines import OPTIMISE
from passes.runner import run_passes
from passes.stages import verify_canonical
from relcompile.backend.check_prediction import check_outputs
from relcompile.backend.describe import described, example_arguments
from relcompile.backend.explainer import Explainer
from relcompile.frontend.canonical import (
    ExampleInputs,
    Progress,
    canonicalize,
    captured_graph,
    named_inputs,
    weights_digest,
)
from relcompile.frontend.constants import refuse_lost_backwards
from relcompile.frontend.first_run import check_runs
from relcompile.frontend.numbers import check_numbers
from relcompile.frontend.onnx.model import OnnxModel
from relcompile.frontend.onnx.original import check_original
from relcompile.question.io_names import check_names
from relcompile.question.options import Keywords, Options
from relcompile.question.plan import answering_passes, relevance_passes
from relcompile.question.question import Question


def compile(
    model: torch.nn.Module,
    example_inputs: ExampleInputs,
    *,
    progress: Progress | None = None,
    **keywords: Unpack[Keywords],
) -> Explainer:
    """Compile `model` and an attribution method into one static graph.

    Args:
        model: any module that `torch.export` can capture; used in eval mode.
        example_inputs: one tensor, several in the order of `forward`, or by name; the batch on axis 0.
        progress: told the name of every step.
        keywords: what is asked for: `rule`, `target`, `at`, ..., all of them optional; see `Options`.

    Returns:
        The explainer; its batch size is free.

    Raises:
        CalibrationError: the calibration belongs to a model with other weights.
        CaptureError: the model is not one static graph; or it has a backward of its own, and the rule is a gradient.
        CompositeError, TargetError, InputSpecError: a rule, a target or an input does not exist; two inputs or
            outputs have one name; or no rule learns the roots that were asked for.
        passes.errors.UnsupportedOperatorError: lists every operator that has no rule.
        passes.errors.UnknownLayerError: lists the layers that `at` may name.
        passes.errors.MiscompilationError: the explainer does not predict what the model predicts on the examples.
    """
    return compile_as_asked(model, example_inputs, Options(**keywords), progress)


def compile_as_asked(
    model: torch.nn.Module, example_inputs: ExampleInputs, options: Options, progress: Progress | None = None
) -> Explainer:
    """`compile`, with everything that is asked for in one object."""
    digest = weights_digest(model)
    inputs = named_inputs(model, example_inputs)
    options.check(digest, inputs)
    check_numbers(model, inputs)
    if isinstance(model, OnnxModel):
        if progress:
            progress("compare with ONNX Runtime")
        check_original(model, inputs)
    check_runs(model, inputs)
    captured = captured_graph(model, inputs, progress)
    if options.composite.is_gradient and not options.forward_derivative:
        refuse_lost_backwards(captured.lost_backwards)
    question, module = Question.resolve(captured, inputs, options), captured.module
    check_names(question)
    reports = canonicalize(module, progress)
    reports += run_passes(module, relevance_passes(question), keeps=verify_canonical, on_pass=progress)
    metadata = described(module, question, options, digest)
    reports += run_passes(module, OPTIMISE, keeps=verify_canonical, on_pass=progress)
    reports += run_passes(module, answering_passes(question), keeps=verify_canonical, on_pass=progress)
    explainer = Explainer(module, metadata, example_arguments(module, inputs, metadata.target), reports)
    if progress:
        progress("compare with the model")
    check_outputs(model, inputs, explainer)
    return explainer
