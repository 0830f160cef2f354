"""A graph as text, from what torch.fx itself says of its nodes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.fx import GraphModule, Node


def printed(module: GraphModule) -> str:
    """One node a line: its name, what computes it, and its shape."""
    names = dict[Node, str]()
    used = Counter[str]()
    lines = list[tuple[str, str, str]]()
    for node in module.graph.nodes:
        if node.op == "output":
            lines.append(("return", _text(node.args[0], names), ""))
            continue
        base = _operator(node)
        used[base] += 1
        names[node] = base if used[base] == 1 else f"{base}_{used[base]}"
        lines.append((names[node], _call(node, names), _shape(node.meta.get("val"))))
    return "".join(f"{name:<17} {shape:<27} {call}".rstrip() + "\n" for name, call, shape in lines)


def _operator(node: Node) -> str:
    """`convolution` of an operator, the stored name of a tensor or an input."""
    if node.op != "call_function":
        return str(node.target)
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))


def _call(node: Node, names: dict[Node, str]) -> str:
    if node.op != "call_function":
        return {"placeholder": "input", "get_attr": "stored"}[node.op]
    arguments = [_text(argument, names) for argument in node.args]
    arguments += [f"{key}={_text(argument, names)}" for key, argument in node.kwargs.items()]
    return f"{_operator(node)}({', '.join(arguments)})"


def _text(argument: Any, names: dict[Node, str]) -> str:
    if isinstance(argument, Node):
        return names[argument]
    if isinstance(argument, list | tuple):
        return f"[{', '.join(_text(a, names) for a in argument)}]"
    return f"{argument:g}" if isinstance(argument, float) else str(argument)


def _shape(value: Any) -> str:
    """The batch is free, whatever symbol stands for it."""
    if not hasattr(value, "shape"):
        return ""
    sizes = [str(size) if isinstance(size, int) else "batch" for size in value.shape]
    return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(sizes)}]"
