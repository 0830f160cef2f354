"""PyTorch model -> captured graph: functional aten operators, parameters as attributes, dynamic batch."""

from __future__ import annotations

import contextlib
import inspect
import io
import linecache
import logging
import re
import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count, takewhile
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from passes.graphs.emitter import aten
from passes.graphs.nodes import arguments
from passes.rewrites.canonical.decompose import composite_decompositions
from relcompile.errors import CaptureError, InputSpecError
from relcompile.frontend.chosen_elements import list_masked, refuse_unknown_sizes
from relcompile.frontend.constants import as_autograd_sees
from relcompile.frontend.effects import refuse_effects
from relcompile.frontend.fixed_sizes import fixed_size
from relcompile.frontend.flat_model import FlatModel, flattened
from relcompile.frontend.free_axes import FreeAxes, refuse_branches

_ASSERTIONS: tuple[Any, ...] = (  # what export writes down about dtypes and sizes; they compute nothing
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_LONGEST_NAME = 100  # of a stored tensor
_NAMED = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Captured:
    """A model as one static graph.

    Attributes:
        module: placeholders are the model's inputs, every parameter is a buffer behind a `get_attr`: a copy, so that
            whatever becomes of the model later does not change it.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order (nested outputs are flattened; what is not a tensor is left out).
        float_inputs: names of the inputs that relevance can be computed for.
        lost_backwards: custom autograd functions and hooks, whose derivative is not that of the graph.
        stored: the model's path to each parameter and buffer that the graph reads, by its name in the module.
    """

    module: GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    float_inputs: tuple[str, ...]
    lost_backwards: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict[str, str])


def capture(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], free: FreeAxes | None = None) -> Captured:
    """Capture `model` as it computes on `inputs`, for any batch size.

    Args:
        model: any module; it is used in eval mode, and every part of it is left in the mode it was in.
        inputs: example inputs by parameter name of `forward`, the batch on axis 0 (at least 2).
        free: axes of these beside the batch whose sizes the caller chooses.

    Raises:
        CaptureError: the model cannot be captured; the message quotes the user's own line.
        InputSpecError: `forward` does not take these inputs.
    """
    call_arguments(model, inputs)

    def call(*tensors: torch.Tensor) -> Any:
        args, kwargs = call_arguments(model, dict(zip(inputs, tensors, strict=True)))
        with seen:
            return model(*args, **kwargs)

    with (
        _quiet(),
        in_eval_mode(model),
        _any_mode(),
        as_autograd_sees(model) as seen,
        flattened(model, call, inputs) as flat,
    ):
        program = _export(flat, inputs, free or {}).run_decompositions(composite_decompositions())
    refuse_effects(program, flat)
    captured = _lifted(program, flat, tuple(inputs))
    if free:
        refuse_branches(captured.module, program.range_constraints, inputs, partial(_runs, model))
    return replace(captured, lost_backwards=tuple(dict.fromkeys(seen.lost)))


def forward_parameters(model: torch.nn.Module) -> list[str]:
    """Names of the positional parameters of `model.forward`, in order."""
    return [p.name for p in _parameters(model).values() if p.kind in _POSITIONAL] or ["input"]


def call_arguments(
    model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """How `forward` takes `inputs`: by position up to the first parameter that is left out, by name behind it.

    Raises:
        InputSpecError: it has no such parameters, or needs others too.
    """
    known = _parameters(model)
    if any(p.kind is p.VAR_POSITIONAL for p in known.values()) and known.keys().isdisjoint(inputs):
        return tuple(inputs.values()), {}
    if not known.keys() >= inputs.keys():
        raise InputSpecError(f"forward takes {', '.join(known)}, not {', '.join(inputs)}")
    missing = [p.name for p in known.values() if p.kind in _NAMED and p.default is p.empty and p.name not in inputs]
    if missing:
        raise InputSpecError(f"forward needs {', '.join(missing)} too; given: {', '.join(inputs)}")
    leading = [p.name for p in takewhile(lambda p: p.kind in _POSITIONAL and p.name in inputs, known.values())]
    return tuple(inputs[name] for name in leading), {name: x for name, x in inputs.items() if name not in leading}


@contextmanager
def in_eval_mode(model: torch.nn.Module) -> Generator[None]:
    """Every part of `model` in eval mode; afterwards in the mode it was in."""
    # The flags themselves: exported programs refuse `eval()`, and `train()` would forget that a part was frozen.
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _parameters(model: torch.nn.Module) -> Mapping[str, inspect.Parameter]:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise CaptureError("a TorchScript module cannot be captured; give the PyTorch module that it was made from")
    return inspect.signature(model.forward).parameters


def _export(flat: FlatModel, inputs: Mapping[str, torch.Tensor], free: FreeAxes) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch, **dict.fromkeys(free.get(name, ()), torch.export.Dim.DYNAMIC)} for name in inputs}

    def export() -> torch.export.ExportedProgram:
        with contextlib.redirect_stderr(io.StringIO()):  # where torch prints the graph of what it cannot capture
            return torch.export.export(flat, (*inputs.values(),), dynamic_shapes=shapes, strict=False)

    try:
        return export()
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError((free and fixed_size(error, export)) or _explain(error)) from error


def _runs(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> bool:
    args, kwargs = call_arguments(model, inputs)
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(*args, **kwargs)
    except Exception:
        return False
    return True


def _explain(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    advice = "rewrite that line without Python control flow on tensor values or the batch size"
    if "Constraints violated" in text or "batch" in text.lower():
        advice = "the model fixes its batch size; use x.shape[0] (or -1 in a view) instead of a number"
    if "functorch" in text:
        advice = "torch.func in forward cannot be captured; write the derivative that it takes with tensor operations"
    frames = re.findall(r'File "([^"]+)", line (\d+), in forward\n\s*([^\n]+)', text + _user_frame(error))
    place = f"\n  at {frames[-1][0].rpartition('/')[2]}:{frames[-1][1]}: {frames[-1][2]}" if frames else ""
    first = next((line for line in text.splitlines() if line.strip()), text)[:400]
    if "data-dependent" in first:
        first = "its forward decides by the values of a tensor, and a graph does the same for all of them"
    return f"the model cannot be captured as one static graph: {first}{place}\n  {advice}"


def _user_frame(error: BaseException | None) -> str:
    """The innermost `forward` frame of the chain of errors that is not torch's own."""
    frames = list[str]()
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_name == "forward" and "/torch/" not in code.co_filename:
                line = linecache.getline(code.co_filename, trace.tb_lineno).strip() or "(no source)"
                frames.append(f'\nFile "{code.co_filename}", line {trace.tb_lineno}, in forward\n  {line}')
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return frames[0] if frames else ""


def _lifted(program: torch.export.ExportedProgram, flat: FlatModel, names: tuple[str, ...]) -> Captured:
    """Parameters and constants of the program as buffers of a plain GraphModule; every name is the user's again."""
    graph, root = program.graph, torch.nn.Module()
    outputs = _outputs(program)
    graph.output_node().args = (tuple(node for _, node in outputs),)
    stored = _lift_tensors(program, root, flat, names)
    for node in list(graph.nodes):
        if node.target in _ASSERTIONS:
            graph.erase_node(node)
    for node, name in zip(graph.find_nodes(op="placeholder"), names, strict=True):
        node.name = node.target = name  # torch writes them in small letters
    for node in graph.nodes:
        entries = ((call, flat.layer_entry(entry)) for call, entry in node.meta.get("nn_module_stack", {}).items())
        node.meta["nn_module_stack"] = {call: entry for call, entry in entries if entry is not None}
    module = GraphModule(root, graph, class_name="Captured").train(False)
    list_masked(module)
    refuse_unknown_sizes(module)
    placeholders = module.graph.find_nodes(op="placeholder")
    floats = tuple(n.target for n in placeholders if n.meta["val"].is_floating_point())
    return Captured(module, names, tuple(name for name, _ in outputs), floats, stored=stored)


def _lift_tensors(
    program: torch.export.ExportedProgram, root: torch.nn.Module, flat: FlatModel, inputs: tuple[str, ...]
) -> dict[str, str]:
    """Placeholders of stored tensors -> `get_attr` of buffers of `root`, one for each tensor; see `Captured.stored`."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    tensors: dict[str, Any] = {**program.constants, **program.state_dict}
    buffers = dict[int, str]()  # by identity: a tensor that several layers share is stored once
    stored = dict[str, str]()
    for node in program.graph.find_nodes(op="placeholder"):
        target = str(specs[node.name].target)
        if specs[node.name].kind is InputKind.USER_INPUT:
            continue
        tensor = tensors[target]
        if id(tensor) not in buffers:
            buffers[id(tensor)] = _attribute(flat.tensors.get(target, target), (*inputs, *buffers.values()))
            root.register_buffer(buffers[id(tensor)], tensor.detach().clone())
            stored |= {buffers[id(tensor)]: flat.tensors[target]} if target in flat.tensors else {}
        with program.graph.inserting_before(node):
            attribute = program.graph.create_node("get_attr", buffers[id(tensor)])
        attribute.meta.update(node.meta)
        node.replace_all_uses_with(attribute)
        program.graph.erase_node(node)
    return stored


def _attribute(path: str, taken: Collection[str]) -> str:
    """`p_conv1_weight`: says which tensor it is, can stand in source, and is not taken."""
    plain = "p_" + re.sub(r"[^0-9A-Za-z]+", "_", path)[:_LONGEST_NAME]
    numbered = (f"{plain}_{k}" for k in count(1))
    return next(name for name in chain([plain], numbered) if name not in taken)


def _outputs(program: torch.export.ExportedProgram) -> list[tuple[str, Node]]:
    """The tensors among the results: called `output` if it is one, after keys or positions in a nested result else."""
    results = zip(program.graph_signature.output_specs, arguments(program.graph.output_node())[0], strict=True)
    own = [(spec, node) for spec, node in results if spec.kind is OutputKind.USER_OUTPUT]
    skeleton: Any = pytree.tree_unflatten(list(range(len(own))), program.call_spec.out_spec)  # type: ignore[arg-type]
    paths, _ = pytree.tree_flatten_with_path(skeleton)
    named = [
        (_key(path), node)
        for (path, _), (spec, node) in zip(paths, own, strict=True)
        if isinstance(spec.arg, TensorArgument)
    ]
    if not named:
        raise CaptureError("the model returns no tensor")
    return named if len(named) > 1 else [("output", named[0][1])]


def _key(path: tuple[Any, ...]) -> str:
    """`logits` for {"logits": ...}, `output_1` for the second of several, `hidden_0` for {"hidden": [...]}."""
    key = "_".join(re.sub(r"\W", "", str(getattr(k, "key", getattr(k, "idx", k)))) for k in path)
    return f"output_{key}" if key.isdigit() else key


@contextmanager
def _any_mode() -> Generator[None]:
    """Gradients are on, whatever the mode of the caller."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _quiet() -> Generator[None]:
    """torch.export warns about its own internals; nothing there is for the user of a compiler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)
