"""Explainer -> file: lowered, exported, checked against PyTorch, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import torch
from onnxscript.optimizer import fold_constants_ir
from torch.fx import GraphModule

from passes.pipelines import LOWER
from passes.runner import run_passes
from passes.stages import verify_canonical, verify_lowered
from relcompile.backend.check_runtime import Parity, check_parity
from relcompile.backend.compiled import Compiled
from relcompile.backend.external_weights import MOST_INSIDE, move_out, prediction_alone, weights_in
from relcompile.backend.program import NotInOnnxError, first_line, quiet, traced, untraced
from relcompile.backend.source import python_source
from relcompile.errors import ExportError
from relcompile.files.paths import atomic_path, require_utf8
from relcompile.files.seal import SEAL_KEY, UNSEALED, seal
from relcompile.metadata import METADATA_KEY, SOURCE_KEY

_PROVENANCE = "nn_module_stack", "stack_trace"
_LARGEST_FOLDED = 4096  # elements; what is larger, ONNX Runtime folds when it loads the file


def save(
    explainer: Compiled, path: Path, progress: Callable[[str], None] | None = None, *, pair: bool = False
) -> Parity | None:
    """Write `explainer` to `path`; the suffix says the format.

    Args:
        explainer: what is written.
        path: where.
        progress: told the name of every step.
        pair: of an .onnx file also write the prediction alone, NAME.predict.onnx; both share NAME.*.weights.

    Returns:
        The parity with PyTorch that was measured in ONNX Runtime (.onnx only).

    Raises:
        ExportError: see `write_onnx`; or the suffix is neither .onnx nor .pt2, or not that of a pair.
    """
    require_utf8(path, ExportError)
    suffix = path.suffix.lower()
    if pair and suffix != ".onnx":
        raise ExportError(f"{path}: a pair of files is one of .onnx files")
    if suffix == ".pt2":
        write_pt2(explainer, path)
        return None
    if suffix != ".onnx":
        raise ExportError(f"{path}: the suffix must be .onnx or .pt2")
    return write_onnx(explainer, path, progress, pair=pair)


def write_pt2(explainer: Compiled, path: Path) -> None:
    """Write a `torch.export` archive of the explainer graph, with its metadata and its Python source beside it."""
    program = traced(explainer.graph_module, explainer)
    for node in program.graph.nodes:  # names are no part of what torch reads back, and folders are no one's business
        for place in _PROVENANCE:
            node.meta.pop(place, None)
    extra = {METADATA_KEY: explainer.metadata.to_json(), SOURCE_KEY: python_source(explainer)}
    with atomic_path(path) as temporary:
        torch.export.save(program, temporary, extra_files=extra)


def write_onnx(
    explainer: Compiled, path: Path, progress: Callable[[str], None] | None = None, *, pair: bool = False
) -> Parity:
    """Write one ONNX file of standard operators, with a dynamic batch and the metadata; see `save`.

    Weights that do not fit the format, and those that a pair shares, lie in a file beside it.

    Raises:
        ExportError: the exporter fails, the batch was baked in, an operator is not standard, ONNX Runtime does not
            agree with PyTorch, or the file cannot be written. No file is left behind.
    """
    tell = progress or _silent
    tell("lower")
    module = lowered(explainer.graph_module)
    tell("export to ONNX")
    model = to_onnx(module, explainer)
    with atomic_path(path) as temporary:
        tell("write")
        if pair or weights_in(model) > MOST_INSIDE:
            move_out(model, temporary)
        if pair:
            beside = temporary.with_name(f"{path.stem}.predict.onnx")
            onnx.save_model(prediction_alone(model, explainer.metadata), str(beside))
            seal(beside)
        onnx.save_model(model, str(temporary))
        seal(temporary)
        tell("check in ONNX Runtime")
        onnx.checker.check_model(str(temporary))
        return check_parity(explainer, temporary)


def _silent(_step: str) -> None:
    """No progress display."""


def lowered(module: GraphModule) -> GraphModule:
    """A copy of the explainer graph in forward operators only; tensors are shared with the original."""
    graph = torch.fx.Graph()  # a deep copy would turn the symbolic batch into a number
    graph.output(graph.graph_copy(module.graph, {}))
    duplicate = GraphModule(module, graph, class_name="Lowered")
    run_passes(duplicate, LOWER, keeps=verify_canonical, ensures=verify_lowered)
    return duplicate


def to_onnx(module: GraphModule, explainer: Compiled) -> onnx.ModelProto:
    """The lowered graph as an ONNX model that keeps the I/O contract.

    Raises:
        ExportError: the exporter fails, or the result breaks the contract.
    """
    metadata = explainer.metadata
    try:
        exported = _exported(untraced(module), explainer)
    except NotInOnnxError:
        exported = _exported(traced(module, explainer), explainer)
    model: onnx.ModelProto = exported.model_proto
    _strip(model)
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json(), SEAL_KEY: UNSEALED})
    model.producer_name, model.producer_version = "relcompile", metadata.relcompile
    _check_contract(model, explainer)
    return model


def _exported(program: torch.export.ExportedProgram, explainer: Compiled) -> Any:
    """The program in the hands of the exporter, whose own optimiser stays off; see `_tidy`."""
    inputs, outputs = list(explainer.examples), explainer.metadata.output_names
    try:
        with quiet():
            exported: Any = torch.onnx.export(
                program, dynamo=True, input_names=inputs, output_names=outputs, optimize=False, verbose=False
            )
            _tidy(exported.model)
            _name_values(exported.model.graph, inputs, outputs)
    except Exception as error:
        if isinstance(error.__cause__, NotInOnnxError):
            raise error.__cause__ from None
        raise ExportError(f"the ONNX exporter refuses this explainer: {first_line(error)}") from error
    return exported


def _tidy(model: ir.Model) -> None:
    """Fold what the exporter writes for shapes and dtypes, share constants, drop what nobody reads.

    The exporter's own optimiser also rewrites arithmetic, with a tolerance: it drops `z + 1e-9`, and with it the
    stabiliser. Every pass here is exact.
    """
    ir.passes.Sequential(common.InlinePass(), common.IdentityEliminationPass())(model)
    fold_constants_ir(model, onnx_shape_inference=True, output_size_limit=_LARGEST_FOLDED)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    )(model)


def _name_values(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """In ONNX a value has one name: an output that is an input, or another output, becomes a copy of it."""
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    taken = set(graph.inputs)
    for position, name in enumerate(outputs):
        value = graph.outputs[position]
        if value in taken:
            copy = ir.Node("", "Identity", [value])
            graph.append(copy)
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            value = graph.outputs[position] = copy.outputs[0]
        value.name = name
        taken.add(value)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what names the machine that built the file."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _check_contract(model: onnx.ModelProto, explainer: Compiled) -> None:
    """Named inputs and outputs, a batch that is not a number, standard operators, no functions."""
    symbols, shapes = dict[str, str](), {record.name: record.shape for record in explainer.metadata.inputs}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        wanted = shapes.get(value.name, ("batch",))
        fixed = [name for dim, name in zip(dims, wanted, strict=False) if isinstance(name, str) and not dim.dim_param]
        if not dims or fixed:
            axes = ", ".join(fixed) or "batch"
            raise ExportError(f"{value.name}: the exporter fixed the size of {axes}; the model depends on it")
        free = ((dim, name) for dim, name in zip(dims, wanted, strict=False) if isinstance(name, str))
        symbols |= {dim.dim_param: name for dim, name in free}
    _rename_dimensions(model, symbols)
    names = [value.name for value in model.graph.input]
    if names != list(explainer.examples):
        raise ExportError(f"the exporter named the inputs {names}, not {list(explainer.examples)}")
    foreign = sorted({f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign or model.functions:
        raise ExportError(f"the graph holds operators outside the ONNX standard: {', '.join(foreign)}")


def _rename_dimensions(model: onnx.ModelProto, symbols: Mapping[str, str]) -> None:
    """Call the batch, and every free axis, by one name everywhere.

    A runtime may fuse or keep in its own layout only values whose shapes it can prove equal; where the batch comes
    from the shape of another input it does not find out by itself.
    """
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for size in (size for value in values for size in value.type.tensor_type.shape.dim):
        if size.dim_param in symbols:
            size.dim_param = symbols[size.dim_param]
