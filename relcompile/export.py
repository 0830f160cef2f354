"""Explainer -> file: lowered, exported, checked against PyTorch, written whole or not at all."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import torch
from onnxscript.optimizer import fold_constants_ir
from torch.fx import GraphModule

from passes.pipelines import LOWER
from passes.runner import run_passes
from passes.stages import verify_canonical, verify_lowered
from relcompile.errors import ExportError
from relcompile.explainer import Explainer
from relcompile.files import atomic_path
from relcompile.metadata import ABSORBED_OUTPUT, METADATA_KEY

PARITY = 2e-3  # of max|R|: a stabiliser of 1e-6 amplifies float32 rounding to about 1e-3
ILL_CONDITIONED = 4  # or so many times the error of PyTorch itself against float64, if that is larger
_CHECK_BATCHES = (1, 3)
_LARGEST_FOLDED = 4096  # elements; what is larger, ONNX Runtime folds when it loads the file
Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Parity:
    """Largest difference between ONNX Runtime and PyTorch, relative to the largest magnitude of each output."""

    errors: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(self.errors.values())


def save(explainer: Explainer, path: Path, progress: Callable[[str], None] | None = None) -> Parity | None:
    """Write `explainer` to `path`; the suffix says the format.

    Returns:
        The parity with PyTorch that was measured in ONNX Runtime (.onnx only).

    Raises:
        ExportError: see `write_onnx`; or the suffix is neither .onnx nor .pt2.
    """
    suffix = path.suffix.lower()
    if suffix == ".pt2":
        write_pt2(explainer, path)
        return None
    if suffix != ".onnx":
        raise ExportError(f"{path}: the suffix must be .onnx or .pt2")
    return write_onnx(explainer, path, progress)


def write_pt2(explainer: Explainer, path: Path) -> None:
    """Write a `torch.export` archive of the explainer graph."""
    program = _exported(explainer.graph_module, explainer)
    with atomic_path(path) as temporary:
        torch.export.save(program, temporary, extra_files={METADATA_KEY: explainer.metadata.to_json()})


def write_onnx(explainer: Explainer, path: Path, progress: Callable[[str], None] | None = None) -> Parity:
    """Write one ONNX file of standard operators, with a dynamic batch and the metadata.

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
        onnx.save_model(model, str(temporary))
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


def to_onnx(module: GraphModule, explainer: Explainer) -> onnx.ModelProto:
    """The lowered graph as an ONNX model that keeps the I/O contract.

    Raises:
        ExportError: the exporter fails, or the result breaks the contract.
    """
    metadata = explainer.metadata
    program = _exported(module, explainer)
    try:
        with _quiet():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(explainer.examples),
                output_names=metadata.output_names,
                optimize=False,
                verbose=False,
            )
            _tidy(exported.model)
    except Exception as error:
        raise ExportError(f"the ONNX exporter refuses this explainer: {_first_line(error)}") from error
    model: onnx.ModelProto = exported.model_proto
    _strip(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, metadata.to_json()
    model.producer_name, model.producer_version = "relcompile", metadata.relcompile
    _check_contract(model, explainer)
    return model


def check_parity(explainer: Explainer, path: Path) -> Parity:
    """Run the file in ONNX Runtime on several batch sizes and compare with the explainer in PyTorch.

    Rules that divide by small numbers, and gradients of functions with kinks, are ill-conditioned in some networks:
    float32 on its own is then far from float64, wherever it runs. What PyTorch itself loses is allowed for.

    Raises:
        ExportError: an output differs by more than `PARITY` relative to its largest magnitude, and by more than
            `ILL_CONDITIONED` times what PyTorch in the same precision differs from PyTorch in float64.
        RuntimeUnavailableError: ONNX Runtime is not installed.
    """
    from relcompile.runtime import load

    production = load(path, device="cpu")
    names, errors = explainer.metadata.output_names, dict[str, float]()
    for batch in _CHECK_BATCHES:
        arguments = explainer.example_arguments(batch)
        with torch.no_grad():
            expected = explainer(*arguments)
        feeds = dict(zip(explainer.examples, (a.numpy() for a in arguments), strict=True))
        actual = production.run(feeds)
        wanted = dict(zip(names, (tensor.numpy() for tensor in expected), strict=True))
        for name in names:
            # What is absorbed may be rounding alone: it is measured in units of what is explained.
            scale = wanted[explainer.metadata.explained if name == ABSORBED_OUTPUT else name]
            errors[name] = max(errors.get(name, 0.0), _error(actual[name], wanted[name], scale))
    parity = Parity(errors)
    infinite = [name for name, error in errors.items() if not np.isfinite(error)]
    if infinite:
        raise ExportError(
            f"the explainer computes NaN or infinity in {', '.join(infinite)}: the rule overflows float32"
        )
    if not parity.worst <= PARITY and not parity.worst <= ILL_CONDITIONED * rounding_error(explainer):
        listing = ", ".join(f"{name} {error:.2e}" for name, error in errors.items())
        raise ExportError(f"ONNX Runtime and PyTorch disagree by more than {PARITY:g} of the maximum: {listing}")
    return parity


def rounding_error(explainer: Explainer) -> float:
    """How far the explainer's own precision is from float64, relative to the largest magnitude of each output."""
    arguments = explainer.example_arguments(max(_CHECK_BATCHES))
    exact = copy.deepcopy(explainer.graph_module).double()
    with torch.no_grad():
        found = explainer(*arguments)
        wanted = exact(*(a.double() if a.is_floating_point() else a for a in arguments))
    pairs = [(f.double().numpy(), w.numpy()) for f, w in zip(found, wanted, strict=True)]
    return max(_error(f, w, w) for f, w in pairs)


def _error(actual: Array, expected: Array, scale: Array) -> float:
    """Largest difference, relative to the largest magnitude of `scale`."""
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.abs(actual - expected).max(initial=0.0)) / (float(np.abs(scale).max(initial=0.0)) or 1.0)


def _exported(module: GraphModule, explainer: Explainer) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    arguments = explainer.example_arguments(2)
    shapes = tuple({0: batch} for _ in arguments)
    try:
        with _quiet():
            return torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ExportError(f"the explainer graph cannot be exported: {_first_line(error)}") from error


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


def _strip(model: onnx.ModelProto) -> None:
    """Remove what names the machine that built the file."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _check_contract(model: onnx.ModelProto, explainer: Explainer) -> None:
    """Named inputs and outputs, a batch that is not a number, standard operators, no functions."""
    symbols = set[str]()
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or not dims[0].dim_param:
            raise ExportError(f"{value.name}: the exporter fixed the batch size; the model depends on it")
        symbols.add(dims[0].dim_param)
        dims[0].dim_param = "batch"
    _rename_dimensions(model, symbols)
    names = [value.name for value in model.graph.input]
    if names != list(explainer.examples):
        raise ExportError(f"the exporter named the inputs {names}, not {list(explainer.examples)}")
    foreign = sorted({f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign or model.functions:
        raise ExportError(f"the graph holds operators outside the ONNX standard: {', '.join(foreign)}")


def _rename_dimensions(model: onnx.ModelProto, symbols: set[str]) -> None:
    """Call the batch by one name everywhere.

    A runtime may fuse or keep in its own layout only values whose shapes it can prove equal; where the batch comes
    from the shape of another input it does not find out by itself.
    """
    sizes = (size for value in model.graph.value_info for size in value.type.tensor_type.shape.dim)
    for size in sizes:
        if size.dim_param in symbols:
            size.dim_param = "batch"


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


@contextmanager
def _quiet() -> Generator[None]:
    """The exporters warn about, and log, their own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
