"""The pipeline: model -> captured -> canonical -> annotated -> explainer graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Unpack

import torch

from passes.graphs.graph import copied
from passes.pipelines import OPTIMISE
from passes.runner import run_passes
from passes.stages import verify_canonical
from relcompile.backend.check_prediction import check_outputs
from relcompile.backend.describe import described, example_arguments
from relcompile.backend.explainer import Explainer
from relcompile.errors import CaptureError
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
from relcompile.frontend.first_run import check_runs
from relcompile.frontend.free_axes import free_axes
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
    return capture(model, example_inputs).compile(progress=progress, **keywords)


def capture(model: torch.nn.Module, example_inputs: ExampleInputs) -> CapturedModel:
    """Look at a model once, to compile several explainers from it.

        captured = relcompile.capture(model, x)
        explainers = {rule: captured.compile(rule=rule) for rule in ("z+", "epsilon", "root")}

    Args:
        model: as `compile` takes it; its weights stay as they are from here on.
        example_inputs: the same.

    Raises:
        InputSpecError: the inputs are not those of the model.
    """
    return CapturedModel(model, named_inputs(model, example_inputs), weights_digest(model))


@dataclass(eq=False)
class CapturedModel:
    """A model that is captured by the first explainer that is compiled from it, and only then; see `capture`.

    Attributes:
        model: the model.
        inputs: the examples, by name.
        digest: of its weights.
    """

    model: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    digest: str
    _captured: dict[tuple[str, ...], Captured] = field(default_factory=dict[tuple[str, ...], Captured], repr=False)

    def compile(self, *, progress: Progress | None = None, **keywords: Unpack[Keywords]) -> Explainer:
        """What `relcompile.compile` makes of the model.

        Raises:
            CaptureError: as `relcompile.compile`; or the weights of the model have changed since it was captured.
        """
        return self.compile_as_asked(Options(**keywords), progress)

    def compile_as_asked(self, options: Options, progress: Progress | None = None) -> Explainer:
        """`compile`, with everything that is asked for in one object."""
        options.check(self.digest, self.inputs)
        captured = self.graph(tuple(options.dynamic), progress)
        options = options.settled(captured.module)
        if options.composite.is_gradient and not options.forward_derivative:
            refuse_lost_backwards(captured.lost_backwards)
        question, module = Question.resolve(captured, self.inputs, options), captured.module
        check_names(question)
        reports = canonicalize(module, progress, merge_branches=not question.composite.chooses_branches)
        reports += run_passes(module, relevance_passes(question), keeps=verify_canonical, on_pass=progress)
        metadata = described(module, question, options, self.digest)
        reports += run_passes(module, OPTIMISE, keeps=verify_canonical, on_pass=progress)
        reports += run_passes(module, answering_passes(question), keeps=verify_canonical, on_pass=progress)
        explainer = Explainer(
            module, metadata, example_arguments(module, self.inputs, metadata.target), options, reports
        )
        if progress:
            progress("compare with the model")
        check_outputs(self.model, explainer)
        return explainer

    def graph(self, dynamic: tuple[str, ...] = (), progress: Progress | None = None) -> Captured:
        """The graph of the model with these free axes, a copy of its own for every explainer."""
        if dynamic not in self._captured:
            free = free_axes(dynamic, self.inputs)
            check_numbers(self.model, self.inputs)
            if isinstance(self.model, OnnxModel):
                if progress:
                    progress("compare with ONNX Runtime")
                check_original(self.model, self.inputs)
            check_runs(self.model, self.inputs)
            self._captured[dynamic] = captured_graph(self.model, self.inputs, progress, free)
        elif weights_digest(self.model) != self.digest:
            raise CaptureError("the model has other weights than when it was captured: capture it again")
        captured = self._captured[dynamic]
        return replace(captured, module=copied(captured.module))


def compile_as_asked(
    model: torch.nn.Module, example_inputs: ExampleInputs, options: Options, progress: Progress | None = None
) -> Explainer:
    """`compile`, with everything that is asked for in one object."""
    return capture(model, example_inputs).compile_as_asked(options, progress)
