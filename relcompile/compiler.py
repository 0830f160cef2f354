"""The pipeline: model -> captured -> canonical -> annotated -> explainer graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch.fx import GraphModule

from passes.assign_rules import AssignRules, explained_output
from passes.emitter import Emitter
from passes.ledgers import REPORTED, ROOT_QUANTITIES, AbsorbedRelevance, Ledger, RootReport
from passes.messages import Message
from passes.pipelines import CANONICALIZE, OPTIMISE
from passes.propagate_relevance import PropagateRelevance
from passes.runner import PassReport, run_passes
from passes.stages import verify_canonical, verify_captured
from relcompile.capture import Captured, capture, forward_parameters
from relcompile.composites import Composite
from relcompile.errors import CompositeError, InputSpecError
from relcompile.explainer import Explainer
from relcompile.metadata import InputRecord, LayerRecord, Metadata, Preprocessing, RootsRecord, TargetRecord
from relcompile.names import Given, named
from relcompile.presets import Bounds
from relcompile.targets import Target, add_target

ExampleInputs = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
Progress = Callable[[str], None]


def compile(
    model: torch.nn.Module,
    example_inputs: ExampleInputs,
    *,
    rule: str | Composite = "z+",
    bounds: Bounds | None = None,
    target: str | int | Target = "index",
    explain: Sequence[str] | None = None,
    output: int = 0,
    absorbed: bool = False,
    roots: bool = False,
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
        target: "index" (a runtime input), "argmax", "seed", or a class number.
        explain: names of the inputs that get relevance; all floating point inputs by default.
        output: position of the output that is explained.
        absorbed: also compute what biases and stabilisers absorb, (N, operators).
        roots: also report on the roots that the rules learn, (N, roots, quantities); names are in the metadata.
        class_names: stored with the explainer, one per class.
        preprocessing: stored with the explainer: how a photograph becomes the input.
        progress: told the name of every step.

    Returns:
        The explainer; its batch size is free.

    Raises:
        CaptureError: the model is not one static graph.
        CompositeError, TargetError, InputSpecError: a rule, a target or an input does not exist; or no rule learns
            the roots that were asked for.
        passes.errors.UnsupportedOperatorError: lists every operator that has no rule.
    """
    composite = named(rule, Given(bounds or bounds_of(preprocessing))) if isinstance(rule, str) else rule
    target = target if isinstance(target, Target) else Target.parse(target)
    inputs = _named_inputs(model, example_inputs)
    _tell(progress, "capture")
    captured = capture(model, {name: _at_least_two(tensor) for name, tensor in inputs.items()})
    sources = _explained(captured, explain)
    module = captured.module
    reports = run_passes(module, CANONICALIZE, keeps=verify_captured, ensures=verify_canonical, on_pass=progress)
    ledgers = ((AbsorbedRelevance(),) if absorbed else ()) + ((RootReport(),) if roots else ())
    reports += _propagate(module, composite, target, sources, output, ledgers=ledgers, progress=progress)
    composite.check([node.meta["layer"] for node in module.graph.nodes if "layer" in node.meta])
    layers = _layers(module)
    learned = _learned_roots(module, composite.name) if roots else None
    reports += run_passes(module, OPTIMISE, keeps=verify_canonical, on_pass=progress)
    explained = Emitter(module).value(explained_output(module, output))
    metadata = Metadata(
        relcompile=version("relcompile"),
        torch=torch.__version__,
        rule=composite.name,
        layers=layers,
        target=TargetRecord(target.mode, target.index, _class_count(explained.shape)),
        inputs=tuple(_input_record(name, tensor) for name, tensor in inputs.items()),
        outputs=captured.outputs,
        explained=captured.outputs[output],
        relevance=_relevance_names(sources),
        absorbed=absorbed,
        roots=learned,
        weights_sha256=_digest(model),
        class_names=None if class_names is None else tuple(class_names),
        preprocessing=preprocessing,
    )
    return Explainer(module, metadata, _examples(inputs, target, explained.fake), reports)


def _relevance_names(sources: tuple[str, ...]) -> tuple[str, ...]:
    return ("relevance",) if len(sources) == 1 else tuple(f"relevance_{name}" for name in sources)


def bounds_of(preprocessing: Preprocessing | None) -> Bounds | None:
    """The values that black and white pixels become, per channel; None if the preprocessing is not known."""
    if preprocessing is None:
        return None
    white = 255.0 / preprocessing.scale
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    return tuple(-mean / std for mean, std in pairs), tuple((white - mean) / std for mean, std in pairs)


def _propagate(
    module: GraphModule,
    composite: Composite,
    target: Target,
    sources: tuple[str, ...],
    output: int,
    *,
    ledgers: tuple[Ledger, ...],
    progress: Progress | None,
) -> list[PassReport]:
    """Write the relevance half."""
    explained = Emitter(module).value(explained_output(module, output))
    seed = add_target(module, target, explained, composite.start)

    def read_out(message: Message):
        return message.multiplier if composite.result == "multiplier" else message.relevance

    passes = (
        AssignRules(composite.choose, sources, output),
        PropagateRelevance(sources, output, seed, read_out, ledgers),
    )
    return run_passes(module, passes, keeps=verify_canonical, on_pass=progress)


def _named_inputs(model: torch.nn.Module, given: ExampleInputs) -> dict[str, torch.Tensor]:
    if isinstance(given, Mapping):
        inputs = dict(given)
    else:
        tensors = [given] if isinstance(given, torch.Tensor) else list(given)
        names = forward_parameters(model)
        if len(tensors) > len(names):
            raise InputSpecError(f"forward takes {len(names)} inputs ({', '.join(names)}), {len(tensors)} were given")
        inputs = dict(zip(names, tensors, strict=False))
    without_batch = [name for name, tensor in inputs.items() if tensor.dim() == 0 or tensor.shape[0] == 0]
    if without_batch or not inputs:
        raise InputSpecError(
            f"every input needs a batch axis of at least one sample: {', '.join(without_batch) or 'none given'}"
        )
    return inputs


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    """A batch of one would be captured as the constant 1."""
    return torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor


def _explained(captured: Captured, names: Sequence[str] | None) -> tuple[str, ...]:
    chosen = captured.float_inputs if names is None else tuple(names)
    unknown = [name for name in chosen if name not in captured.float_inputs]
    if unknown or not chosen:
        known = ", ".join(captured.float_inputs) or "none"
        raise InputSpecError(f"no floating point input called {', '.join(unknown) or '(any)'}; there are: {known}")
    return chosen


def _layers(module: GraphModule) -> tuple[LayerRecord, ...]:
    annotated = [node for node in module.graph.nodes if "layer" in node.meta]
    records = [(node.meta["layer"], node.meta["rule"]) for node in annotated]
    return tuple(
        LayerRecord(layer.name, layer.operator, layer.kind, str(rule), layer.parameters) for layer, rule in records
    )


def _learned_roots(module: GraphModule, rule: str) -> RootsRecord:
    layers = tuple(node.meta["layer"].name for node in module.graph.nodes if REPORTED in node.meta)
    if not layers:
        raise CompositeError(f"rule {rule} learns no roots to report; root-v1, root-v2 and root-v3 do")
    return RootsRecord(layers, ROOT_QUANTITIES)


def _class_count(shape: tuple[Any, ...]) -> int | None:
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None


def _input_record(name: str, tensor: torch.Tensor) -> InputRecord:
    return InputRecord(name, ("batch", *tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))


def _examples(inputs: Mapping[str, torch.Tensor], target: Target, output: torch.Tensor) -> dict[str, torch.Tensor]:
    examples = dict(inputs)
    if target.mode == "index":
        examples["target"] = torch.zeros(next(iter(inputs.values())).shape[0], dtype=torch.int64)
    elif target.mode == "seed":
        batch = next(iter(inputs.values())).shape[0]
        examples["target"] = torch.ones([batch, *output.shape[1:]], dtype=output.dtype)
    return examples


def _digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of the model's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tell(progress: Progress | None, step: str) -> None:
    if progress:
        progress(step)
