"""PyTorch model -> captured graph: functional aten operators, parameters as attributes, dynamic batch."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from passes.decompose import composite_decompositions
from passes.emitter import aten
from passes.nodes import arguments
from relcompile.errors import CaptureError

_ASSERTIONS: tuple[Any, ...] = (  # what export writes down about dtypes and sizes; they compute nothing
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
)


@dataclass(frozen=True)
class Captured:
    """A model as one static graph.

    Attributes:
        module: placeholders are the model's inputs, every parameter is a buffer behind a `get_attr`.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order (nested outputs are flattened).
        float_inputs: names of the inputs that relevance can be computed for.
    """

    module: GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    float_inputs: tuple[str, ...]


def capture(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Captured:
    """Capture `model` as it computes on `inputs`, for any batch size.

    Args:
        model: any module; it is used in eval mode and left in the mode it was in.
        inputs: example inputs by parameter name of `forward`, the batch on axis 0 (at least 2).

    Raises:
        CaptureError: the model cannot be captured; the message quotes the user's own line.
    """
    training = model.training
    try:
        with _quiet():
            program = _export(model.eval(), inputs).run_decompositions(composite_decompositions())
    finally:
        model.train(training)
    if program.graph_signature.buffers_to_mutate:
        names = ", ".join(program.graph_signature.buffers_to_mutate.values())
        raise CaptureError(f"the model changes its own buffers in forward ({names}); an explainer has no state")
    return _lifted(program, tuple(inputs))


def forward_parameters(model: torch.nn.Module) -> list[str]:
    """Names of the positional parameters of `model.forward`, required ones only if there are any."""
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in named if p.default is p.empty]
    return required or [p.name for p in named[:1]] or ["input"]


def _export(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    known = inspect.signature(model.forward).parameters
    positional = not all(name in known for name in inputs)
    args = tuple(inputs.values())
    shapes: Any = tuple({0: batch} for _ in args)
    if positional and not any(p.kind == p.VAR_POSITIONAL for p in known.values()):
        raise CaptureError(f"forward takes {', '.join(known)}, not {', '.join(inputs)}")
    kwargs = None if positional else dict(inputs)
    if kwargs is not None:
        args, shapes = (), {name: {0: batch} for name in inputs}
    else:
        shapes = (shapes,)
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise CaptureError(_explain(error)) from error


def _explain(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    advice = "rewrite that line without Python control flow on tensor values or the batch size"
    if "Constraints violated" in text or "batch" in text.lower():
        advice = "the model fixes its batch size; use x.shape[0] (or -1 in a view) instead of a number"
    frames = re.findall(r'File "([^"]+)", line (\d+), in forward\n\s*([^\n]+)', text + _user_frame(error))
    place = f"\n  at {frames[-1][0].rpartition('/')[2]}:{frames[-1][1]}: {frames[-1][2]}" if frames else ""
    first = next((line for line in text.splitlines() if line.strip()), text)[:400]
    return f"the model cannot be captured as one static graph: {first}{place}\n  {advice}"


def _user_frame(error: BaseException | None) -> str:
    """The innermost `forward` frame of the chain of errors that is not torch's own."""
    frames = list[str]()
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_name == "forward" and "/torch/" not in code.co_filename:
                source = inspect.getsource(trace.tb_frame).splitlines()
                line = source[trace.tb_lineno - code.co_firstlineno].strip()
                frames.append(f'\nFile "{code.co_filename}", line {trace.tb_lineno}, in forward\n  {line}')
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return frames[0] if frames else ""


def _lifted(program: torch.export.ExportedProgram, names: tuple[str, ...]) -> Captured:
    """Parameters and constants of the program as buffers of a plain GraphModule."""
    graph, root = program.graph, torch.nn.Module()
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    tensors: dict[str, Any] = {**program.constants, **program.state_dict}
    for node in graph.find_nodes(op="placeholder"):
        spec = specs[node.name]
        if spec.kind is InputKind.USER_INPUT:
            continue
        name = re.sub(r"\W", "_", str(spec.target))
        if name not in dict(root.named_buffers()):
            root.register_buffer(name, tensors[str(spec.target)].detach())
        with graph.inserting_before(node):
            attribute = graph.create_node("get_attr", name)
        attribute.meta.update(node.meta)
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node.target in _ASSERTIONS:
            graph.erase_node(node)
    for node in graph.find_nodes(op="placeholder"):
        node.name = node.target = str(node.target)
    module = GraphModule(root, graph, class_name="Captured").train(False)
    placeholders = module.graph.find_nodes(op="placeholder")
    floats = tuple(n.target for n in placeholders if n.meta["val"].is_floating_point())
    return Captured(module, names, _output_names(program), floats)


def _output_names(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """The name `output` for a single tensor; keys or positions of a nested result otherwise."""
    count = len(arguments(program.graph.output_node())[0])
    spec: Any = program.call_spec.out_spec
    skeleton = pytree.tree_unflatten(list(range(count)), spec)
    if count == 1:
        return ("output",)
    paths, _ = pytree.tree_flatten_with_path(skeleton)
    keys = [
        "_".join(re.sub(r"\W", "", str(getattr(k, "key", getattr(k, "idx", k)))) for k in path) for path, _ in paths
    ]
    return tuple(key if not key.isdigit() else f"output_{key}" for key in keys)


@contextmanager
def _quiet() -> Generator[None]:
    """torch.export warns about its own internals; nothing there is for the user of a compiler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
