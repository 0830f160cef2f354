"""An explainer graph as Python: one line an operator, under the names of the user's layers. It can be read, and run.

Names come from models and files that others made. In the source they are identifiers of letters, digits and
underscores, or ASCII literals in which everything else is escaped: nothing in a name ends a comment or a string.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import torch
from torch.fx import Node

from passes.graphs.graph import layer_name
from relcompile.backend.compiled import Compiled
from relcompile.errors import ExportError
from relcompile.files.records import MANY

_HEAD: Final = '''"""{title}"""

import operator

import torch


class Explainer(torch.nn.Module):
    """Prediction and relevance, as compiled.

    Args:
        tensors: the stored ones, by name: those of a .pt2 file are program.state_dict | program.constants, where
            program = torch.export.load(path).
    """

    def __init__(self, tensors):
        super().__init__()
        self.tensors = dict(tensors)

    def forward(self, {inputs}):
'''
_MODULES: Final = {"operator": operator, "torch": torch}  # that have functions of sizes, and of several results
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WIDTH: Final = 100  # a shape stands behind what is narrower, and above what is not


def python_source(explainer: Compiled) -> str:
    """The source of a module that computes what `explainer` computes.

    Raises:
        ExportError: the graph holds something that is neither an operator of torch nor a plain value.
    """
    module, names, lines, layer = explainer.graph_module, _Names(), list[str](), None
    symbols = _symbols(explainer)
    for node in module.graph.nodes:
        if node.op == "output":
            lines.append(f"return {_text(tuple(node.args[0]), names)}")
        elif node.op == "get_attr":
            lines.append(f"{names.of(node)} = self.tensors[{node.target!a}]")
        elif node.op == "call_function":
            lines += [] if layer_name(node) == layer else ["", *_heading(node)]
            layer = layer_name(node)
            lines += _commented(f"{names.of(node)} = {_call(node, names)}", _shape(node.meta.get("val"), symbols))
    inputs = ", ".join(names.of(node) for node in module.graph.find_nodes(op="placeholder"))
    head = _HEAD.format(title=_prose(", ".join(explainer.metadata.name)), inputs=inputs)
    return head + "".join(f"        {line}".rstrip() + "\n" for line in lines)


@dataclass(frozen=True, eq=False)
class _Names:
    """Identifiers of nodes, no two of which are the same."""

    known: dict[Node, str] = field(default_factory=dict[Node, str])
    taken: set[str] = field(default_factory=lambda: {"self", "torch", "operator", *keyword.kwlist})

    def of(self, node: Node) -> str:
        if node not in self.known:
            plain = re.sub(r"\W", "_", str(node.name), flags=re.ASCII) or "value"
            plain = plain if _PLAIN.fullmatch(plain) else f"_{plain}"
            free = (name for k in count() if (name := f"{plain}_{k}" if k else plain) not in self.taken)
            self.known[node] = next(free)
            self.taken.add(self.known[node])
        return self.known[node]


def _call(node: Node, names: _Names) -> str:
    arguments = [_text(argument, names) for argument in node.args]
    arguments += [f"{_identifier(key)}={_text(argument, names)}" for key, argument in node.kwargs.items()]
    return f"{_function(node.target)}({', '.join(arguments)})"


def _function(target: Any) -> str:
    for module, functions in _MODULES.items():
        if getattr(functions, getattr(target, "__name__", ""), None) is target:
            return f"{module}.{_identifier(target.__name__)}"
    schema = getattr(target, "_schema", None)
    if schema is None:
        raise ExportError(f"{target} is no operator of torch: the graph cannot be written as Python")
    namespace, _, name = schema.name.partition("::")
    return ".".join(("torch.ops", *map(_identifier, (namespace, name, schema.overload_name or "default"))))


def _identifier(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise ExportError(f"{text!a} is no name of torch: the graph cannot be written as Python")
    return text


def _text(argument: Any, names: _Names) -> str:
    if isinstance(argument, Node):
        return names.of(argument)
    if isinstance(argument, list | tuple):
        return _sequence([_text(part, names) for part in argument], is_tuple=isinstance(argument, tuple))
    if isinstance(argument, slice):
        return f"slice({', '.join(_text(part, names) for part in (argument.start, argument.stop, argument.step))})"
    if isinstance(argument, float):
        return repr(argument) if argument - argument == 0 else f'float("{argument}")'
    if isinstance(argument, torch.device):
        return f"torch.device({str(argument)!a})"
    if isinstance(argument, torch.dtype | torch.layout | torch.memory_format):
        return str(argument)
    if argument is None or isinstance(argument, bool | int | str):
        return ascii(argument)
    raise ExportError(f"an argument is a {type(argument).__name__}: the graph cannot be written as Python")


def _sequence(parts: Iterable[str], *, is_tuple: bool) -> str:
    inside = ", ".join(parts)
    return f"({inside},)" if is_tuple else f"[{inside}]"


def _commented(line: str, comment: str) -> list[str]:
    if not comment:
        return [line]
    return [f"{line}  # {comment}"] if len(line) < _WIDTH else [f"# {comment}", line]


def _heading(node: Node) -> list[str]:
    """The name of a layer; what is in none, stands apart."""
    return [] if layer_name(node) == node.name else [f"# {ascii(layer_name(node))[1:-1]}"]


def _symbols(explainer: Compiled) -> dict[str, str]:
    """What torch calls the sizes that the caller chooses, and what the metadata call them."""
    metadata = explainer.metadata
    records = {record.name: record.shape for record in (*metadata.inputs, *(mask.input for mask in metadata.masks))}
    found = dict[str, str]()
    for node in reversed(explainer.graph_module.graph.find_nodes(op="placeholder")):
        sizes: tuple[Any, ...] = node.meta["val"].shape
        names = records.get(node.name, ("batch", *[MANY] * (len(sizes) - 1)))
        found |= {str(size): str(name) for size, name in zip(sizes, names, strict=True) if not isinstance(size, int)}
    return found


def _shape(value: Any, symbols: Mapping[str, str]) -> str:
    """float32[batch, 3, 8, 8]."""
    if not isinstance(value, torch.Tensor):
        return ""
    sizes = ", ".join(map(str, value.shape))
    for symbol, name in symbols.items():
        sizes = re.sub(rf"\b{symbol}\b", name, sizes)
    return f"{str(value.dtype).removeprefix('torch.')}[{sizes}]"


def _prose(text: str) -> str:
    """A line of a docstring that ends where it is to end."""
    return ascii(text)[1:-1].replace('"', "'").replace("\\", "/")
