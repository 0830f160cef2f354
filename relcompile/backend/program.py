"""An explainer graph as a program of torch.export: traced anew, or as it stands for the ONNX exporter to read."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.export.exported_program import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node

from relcompile.backend.compiled import Compiled
from relcompile.errors import ExportError

_COLOURS: Final = re.compile(r"\x1b\[[\d;]*m")


def traced(module: GraphModule, explainer: Compiled) -> ExportedProgram:
    """What `torch.export` makes of `module`, which takes the arguments of `explainer`.

    Raises:
        ExportError: torch refuses it.
    """
    batch = torch.export.Dim("batch", min=1)
    arguments = explainer.example_arguments(2)
    asked = {1: torch.export.Dim("questions", min=1)}
    many = explainer.metadata.names_of_many
    shapes = tuple(
        {0: batch, **_free(node.meta["val"].shape), **(asked if node.name in many else {})}
        for node in module.graph.find_nodes(op="placeholder")
    )
    try:
        with quiet():
            return torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ExportError(f"the explainer graph cannot be exported: {first_line(error)}") from error


class NotInOnnxError(Exception):
    """Some operators have to be taken apart for ONNX, which wants a traced program."""


def untraced(module: GraphModule) -> ExportedProgram:
    """A lowered graph as the ONNX exporter reads it.

    It is functional and every node knows its shape, so nothing need be traced, which would take longer than all else.
    The exporter would trace every graph, and take it apart; here that ends in `NotInOnnxError`, where anything is to be
    taken apart. (To trace it then and there, in the midst of the exporter, fixes the batch.)
    """
    program: Any = _as_it_stands(module)

    def run_decompositions(table: Any = None, **_options: Any) -> Any:
        if table is None or any(node.target in table for node in module.graph.nodes):
            raise NotInOnnxError
        return program

    program.run_decompositions = run_decompositions
    return program


def _as_it_stands(module: GraphModule) -> ExportedProgram:
    """The same graph; the tensors that it stores are inputs, which come first."""
    graph, stored = Graph(), dict[str, Node]()
    attributes = module.graph.find_nodes(op="get_attr")
    for node in attributes:
        if node.target not in stored:
            stored[node.target] = graph.placeholder(f"stored_{len(stored)}")
            stored[node.target].meta["val"] = node.meta["val"]
    results: Any = graph.graph_copy(module.graph, {node: stored[node.target] for node in attributes})
    graph.output(tuple(results))
    own = graph.find_nodes(op="placeholder")[len(stored) :]
    signature = ExportGraphSignature(
        [
            *(InputSpec(InputKind.BUFFER, _named(node), name, persistent=True) for name, node in stored.items()),
            *(InputSpec(InputKind.USER_INPUT, _named(node), None) for node in own),
        ],
        [OutputSpec(OutputKind.USER_OUTPUT, _named(node), None) for node in results],
    )
    tensors = {name: getattr(module, name) for name in stored}
    return ExportedProgram(module, graph, signature, tensors, {}, [ModuleCallEntry("")])


def _named(node: Node) -> TensorArgument:
    return TensorArgument(name=node.name)


def _free(shape: Sequence[Any]) -> dict[int, Any]:
    """The axes behind the batch whose sizes are symbols."""
    return {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape) if axis and not isinstance(size, int)}


def first_line(error: Exception) -> str:
    """The first line of a message that says something, without the colours that torch gives it."""
    lines = _COLOURS.sub("", str(error)).splitlines()
    return next((line for line in lines if line.strip()), type(error).__name__)[:300]


@contextmanager
def quiet() -> Generator[None]:
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
