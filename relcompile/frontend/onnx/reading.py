"""An ONNX file -> `OnnxModel`. The file is a stranger's: it is held to limits, and nothing of it is run."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass
from torch import Tensor

from passes.errors import UnsupportedOperatorError
from relcompile.errors import ModelFileError
from relcompile.files.onnx_bounds import check_weights
from relcompile.files.text import printable
from relcompile.frontend.onnx.model import IF, Declared, OnnxGraph, OnnxModel, folded, with_branches
from relcompile.frontend.onnx.node import Branch, Node
from relcompile.frontend.onnx.operators.pointwise import DTYPES
from relcompile.frontend.onnx.sizes import SHAPES
from relcompile.frontend.onnx.table import MAP, OPERATORS
from relcompile.metadata import METADATA_KEY

_DOMAINS: Final = ("", "ai.onnx")
_BRANCHES: Final = ("then_branch", "else_branch")
_LONGEST_NAME: Final = 200
_RESERVED: Final = r"[=,*?\[\]\s]"  # what `--layer NAME=RULE` and patterns of names read otherwise


def read_onnx(path: Path) -> OnnxModel:
    """The model an ONNX file holds.

    Args:
        path: the file; weights in files of their own lie in its folder.

    Raises:
        ModelFileError: the file is damaged, has no input, or asks for more than it may.
        passes.errors.UnsupportedOperatorError: lists every node that cannot be computed, by name.
    """
    check_weights(path)
    try:
        proto = onnx.load_model(path, load_external_data=False)
        if any(entry.key == METADATA_KEY for entry in proto.metadata_props):
            raise ModelFileError(
                f"{path}: an explainer that relcompile wrote; `relcompile inspect` and `relcompile explain` read it"
            )
        _forget_names(proto.graph)
        model = ir.from_proto(proto)
        graph = _graph(path, model)
        return OnnxModel(graph)
    except (ModelFileError, UnsupportedOperatorError):
        raise
    except Exception as error:
        raise ModelFileError(f"{path}: an ONNX file that cannot be read ({printable(_reason(error))})") from error


def _forget_names(graph: onnx.GraphProto) -> None:
    """What names the scores of classes is declared as the scores: of onnx-ir's types, none is a map."""
    maps = {name for node in graph.node if f"{node.domain}::{node.op_type}" == MAP for name in node.output}
    for value in graph.output:
        if value.name in maps:
            value.type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))


def _reason(error: BaseException) -> str:
    """What is at the bottom of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _graph(path: Path, model: ir.Model) -> OnnxGraph:
    graph, opset = model.graph, next((model.opset_imports[d] for d in _DOMAINS if d in model.opset_imports), 1)
    stored = {name: value.const_value for name, value in graph.initializers.items()}
    inputs = [value for value in graph.inputs if value.name not in stored]
    if not inputs:
        raise ModelFileError(f"{path}: has no input: there is nothing to explain")
    taken = dict[str, str]()
    declared = tuple(_declared(value, taken) for value in inputs)
    batches = {value.shape[0] if value.shape else None for value in declared}
    batch = batches.pop() if len(batches) == 1 else None
    if batch is not None:
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    nodes = _nodes(graph, opset, batch, {})
    _refuse_unsupported(path, list(with_branches(nodes)))
    stored |= {name: value.const_value for inner in _graphs(graph) for name, value in inner.initializers.items()}
    constants = {name: _tensor(path, name, tensor) for name, tensor in stored.items()}
    left, constants = folded(nodes, constants)
    outputs = tuple(_declared(value, {}) for value in graph.outputs if value.dtype != ir.DataType.STRING)
    if not outputs:
        raise ModelFileError(f"{path}: computes texts alone: there is nothing to explain")
    return OnnxGraph(path, declared, outputs, _needed(left, [o.name for o in outputs]), constants, batch)


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Those that its nodes hold, at any depth."""
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield attribute.as_graph()
                yield from _graphs(attribute.as_graph())


def _nodes(graph: ir.Graph, opset: int, batch: int | None, names: dict[str, str]) -> tuple[Node, ...]:
    used = {value.name for inner in (graph, *_graphs(graph)) for node in inner for value in node.inputs if value}
    moved = _of_inputs(graph)
    used |= {value.name for inner in (graph, *_graphs(graph)) for value in inner.outputs}
    return tuple(
        Node(
            _layer_name(node, position, names),
            f"{node.domain}::{node.op_type}" if node.domain not in _DOMAINS else str(node.op_type),
            opset,
            tuple(str(value.name) if value is not None else "" for value in node.inputs),
            tuple(str(value.name) if value.name in used else "" for value in node.outputs),
            {name: _attribute(attribute) for name, attribute in node.attributes.items()},
            batch if batch is not None and _is_batched(node, batch, moved) else None,
            tuple(_branch(node, name, opset, batch, names) for name in _BRANCHES if node.op_type == IF),
        )
        for position, node in enumerate(graph)
    )


def _of_inputs(graph: ir.Graph) -> set[str]:
    """Values that depend on what the inputs hold, and not on their shapes alone."""
    made = {value.name for node in graph for value in node.outputs}
    operands = (value for node in graph for value in node.inputs if value is not None and value.const_value is None)
    found = {str(value.name) for value in operands if value.name not in made}
    for node in graph:
        if node.op_type not in SHAPES and (node.op_type == IF or any(v and v.name in found for v in node.inputs)):
            found.update(str(value.name) for value in node.outputs)
    return found


def _is_batched(node: ir.Node, batch: int, moved: set[str]) -> bool:
    """Its first operand has the batch in front: by its size, or, if the file does not say it, as far as it can be."""
    first = node.inputs[0] if node.inputs else None
    size = first.shape[0] if first is not None and first.shape else None
    return size == batch if isinstance(size, int) else first is not None and first.name in moved


def _branch(node: ir.Node, name: str, opset: int, batch: int | None, names: dict[str, str]) -> Branch:
    graph = node.attributes[name].as_graph()
    return Branch(_nodes(graph, opset, batch, names), tuple(str(value.name) for value in graph.outputs))


def _refuse_unsupported(path: Path, nodes: Sequence[Node]) -> None:
    reasons = ((node, _refusal(node)) for node in nodes)
    listing = [f"  {node.name} ({printable(node.operator)}): {why}" for node, why in reasons if why]
    if listing:
        raise UnsupportedOperatorError(
            f"{path}: {len(listing)} of its {len(nodes)} nodes cannot be read:\n" + "\n".join(listing)
        )


def _refusal(node: Node) -> str | None:
    if node.operator in (*SHAPES, IF):
        return None
    row = OPERATORS.get(node.operator)
    return "not supported" if row is None else row.refusal(node)


def _needed(nodes: Sequence[Node], outputs: Iterable[str]) -> tuple[Node, ...]:
    """Those that an output depends on."""
    wanted, kept = set(outputs), list[Node]()
    for node in reversed(nodes):
        if wanted.intersection(filter(None, node.outputs)):
            wanted.update(node.reads)
            kept.append(node)
    return tuple(reversed(kept))


def _attribute(attribute: Any) -> Any:
    """Its value: what holds a tensor as an array, lists as tuples."""
    value: Any = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return _array(value)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _tensor(path: Path, name: str, tensor: Any) -> Tensor:
    if tensor is None:
        raise ModelFileError(f"{path}: its weight {printable(name)} has no numbers")
    if isinstance(tensor, ir.ExternalTensor):
        tensor = ir.ExternalTensor(
            tensor.location, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=name,
            base_dir=path.resolve().parent,
        )  # fmt: skip
    return torch.from_numpy(_array(tensor))


def _array(tensor: Any) -> Any:
    """A copy, which owns its numbers, in a data type that torch has."""
    array = np.array(tensor.numpy())
    return array if array.dtype.kind in "fiub" and array.dtype.itemsize in (1, 2, 4, 8) else array.astype(np.float32)


def _declared(value: ir.Value, taken: dict[str, str]) -> Declared:
    name = str(value.name)
    dtype = DTYPES.get(int(value.dtype)) if value.dtype is not None else None
    if dtype is None:
        raise ModelFileError(f"the input or output {printable(name)} holds no numbers of a kind that torch has")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape or ())
    return Declared(name, _free(_identifier(name), taken, name), dtype, shape)


def _identifier(name: str) -> str:
    """As Python may call a parameter: `input_1` for "input.1"."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)[:_LONGEST_NAME]
    return f"x_{plain}" if not plain.isidentifier() or keyword.iskeyword(plain) else plain


def _layer_name(node: ir.Node, position: int, taken: dict[str, str]) -> str:
    """As a layer may be called: the name of the node, printable; its type and place if it has none."""
    own = re.sub(_RESERVED, "_", printable(str(node.name or "")))[:_LONGEST_NAME]
    return _free(own or f"{printable(str(node.op_type))}_{position}", taken, str(position))


def _free(name: str, taken: dict[str, str], owner: str) -> str:
    """`name`, or with a number behind it, if another has it."""
    numbered = chain([name], (f"{name}_{k}" for k in count(1)))
    found = next(candidate for candidate in numbered if candidate not in taken)
    taken[found] = owner
    return found
