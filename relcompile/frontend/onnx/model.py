"""`OnnxModel`: an ONNX graph as a torch module, one child a node, called as the node is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relcompile.errors import InputSpecError, ModelFileError, RelcompileError
from relcompile.frontend.flat_model import with_parameters
from relcompile.frontend.onnx.node import Branch, Node, Numbers
from relcompile.frontend.onnx.sizes import MOVING, SHAPES, SIZES
from relcompile.frontend.onnx.table import OPERATORS

IF = "If"


@dataclass(frozen=True)
class Declared:
    """An input or output as the file declares it.

    Attributes:
        name: of the file.
        identifier: as `forward` and the explainer call it.
        dtype: of its numbers.
        shape: sizes; None for one that is free.
    """

    name: str
    identifier: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """What a file holds.

    Attributes:
        path: of the file.
        inputs, outputs: in its order.
        nodes: in the order in which they can be computed.
        constants: its weights, and what follows from them alone, by name.
        batch: the size of the batch that it is fixed to; None if it is free.
    """

    path: Path
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    batch: int | None


class Step(nn.Module):
    """One node: called with those of its operands that are not constants.

    Args:
        node: what it computes.
        constants: weights of the file, by name; those among its operands are stored as buffers, or as numbers.
    """

    def __init__(self, node: Node, constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        row = OPERATORS[node.operator]
        self._node, self._compute, self._as_numbers = node, row.compute, (*row.numbers, *row.known)
        self._needed, self._numbers, self._stored = row.numbers, dict[int, Numbers](), dict[int, str]()
        for k, name in enumerate(node.inputs):
            if name in constants and k in self._as_numbers:
                self._numbers[k] = numbers_of(constants[name])
            elif name in constants:
                self._stored[k] = f"operand{k}"
                self.register_buffer(f"operand{k}", constants[name])

    def forward(self, *given: Any) -> Any:
        """One tensor or several."""
        rest = iter(given)
        return self._compute(self._node, *(self._operand(k, name, rest) for k, name in enumerate(self._node.inputs)))

    def _operand(self, k: int, name: str, rest: Iterator[Any]) -> Any:
        if k in self._stored:
            return getattr(self, self._stored[k])
        if k in self._numbers:
            return self._numbers[k]
        value = next(rest) if name else None
        if k in self._needed and isinstance(value, Tensor):
            self._node.refuse(f"its operand {k} is computed from the input, and has to be known")
        return _as_tensor(value) if isinstance(value, np.ndarray) and k not in self._as_numbers else value


@dataclass(frozen=True)
class _Planned:
    """A node in the order of computation; and the values that nobody needs behind it."""

    node: Node
    operands: tuple[str, ...]
    unneeded: tuple[str, ...]
    branches: tuple[tuple[_Planned, ...], ...] = ()


class _Forward:
    """`OnnxModel.run` with the inputs of its file for parameters; not stored, so that copies call themselves."""

    def __get__(self, model: OnnxModel, _owner: type) -> Callable[..., Any]:
        return with_parameters(model.run, [declared.identifier for declared in model.graph.inputs])


class OnnxModel(nn.Module):
    """An ONNX graph as a module: every node is a layer with the node's name, and its weights are buffers.

    Called with the file's inputs, in its order, under names that Python allows; returns its outputs by name. What the
    file computes of shapes alone is no layer. A batch that the file fixes is free.

    Attributes:
        graph: what the file holds.
    """

    forward = _Forward()  # type: ignore[assignment]

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        self.graph = graph
        for node in with_branches(graph.nodes):
            if node.operator in OPERATORS:
                self._modules[node.name] = Step(node, graph.constants)  # `add_module` takes no names with a dot
        needed = {n for node in with_branches(graph.nodes) if node.operator in (*SIZES, IF) for n in node.inputs}
        self._numbers = {n: numbers_of(tensor) for n, tensor in graph.constants.items() if n in needed}
        self._plan = self._in_order(graph.nodes, [declared.name for declared in graph.outputs])
        self.train(False)

    @property
    def is_quantised(self) -> bool:
        """Some of its values are rounded to steps."""
        operators = {node.operator for node in with_branches(self.graph.nodes)}
        return any(OPERATORS[name].rounds for name in operators & OPERATORS.keys())

    def made_by(self, name: str) -> str | None:
        """The operator that the value of this name comes from; None for inputs and constants."""
        return next((node.operator for node in self.graph.nodes if name in node.outputs), None)

    def run(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of the file."""
        values: dict[str, Any] = dict(zip((declared.name for declared in self.graph.inputs), inputs, strict=True))
        self._compute(self._plan, values)
        return {declared.identifier: self._output(declared.name, values) for declared in self.graph.outputs}

    def _compute(self, plan: Sequence[_Planned], values: dict[str, Any]) -> None:
        """Put the results of all nodes into `values`, and take out what is not needed any more."""
        for planned in plan:
            results = self._results(planned, [values[name] for name in planned.operands])
            values.update(zip(planned.node.outputs, results, strict=False))
            for name in planned.unneeded:
                values.pop(name, None)

    def _results(self, planned: _Planned, given: list[Any]) -> tuple[Any, ...]:
        """Of sizes where all operands are, and of the network's values where one is."""
        node, known = planned.node, self._numbers
        if node.operator == IF:
            return self._chosen(planned, dict(zip(planned.operands, given, strict=True)))
        if node.operator in SHAPES or (self._is_of_sizes(node) and not any(isinstance(x, Tensor) for x in given)):
            rest = iter(given)
            operands = [known[n] if n in known else next(rest) for n in node.inputs if n]
            return called(node, {**SHAPES, **SIZES}[node.operator], [node, *operands])
        return called(node, self.get_step(node.name), given)

    def get_step(self, name: str) -> Step:
        """The layer of a node; its name may hold dots, so that `get_submodule` does not find it."""
        step = self._modules[name]
        assert isinstance(step, Step)
        return step

    def _is_of_sizes(self, node: Node) -> bool:
        """Sizes alone; weights that are moved or reshaped by sizes stay values."""
        if node.operator not in SIZES:
            return False
        weight = self.graph.constants.get(node.inputs[0])
        return node.operator not in MOVING or weight is None or not weight.is_floating_point()

    def _chosen(self, planned: _Planned, values: dict[str, Any]) -> tuple[Any, ...]:
        """The results of one branch; which one has to be known from shapes."""
        condition = self._numbers.get(planned.node.inputs[0], values.get(planned.node.inputs[0]))
        if not isinstance(condition, np.ndarray):
            planned.node.refuse("what it computes depends on the values of the input")
        chosen = 0 if bool(condition.item()) else 1
        self._compute(planned.branches[chosen], values)
        return tuple(
            values[name] if name in values else self.graph.constants[name]
            for name in planned.node.branches[chosen].outputs
        )

    def _output(self, name: str, values: Mapping[str, Any]) -> Tensor:
        value = values[name] if name in values else self.graph.constants[name]
        return value if isinstance(value, Tensor) else _as_tensor(value)

    def _in_order(self, nodes: Sequence[Node], kept: Iterable[str]) -> list[_Planned]:
        seen, plan = set(kept), list[_Planned]()
        for node in reversed(nodes):
            names = node.reads if node.branches else filter(None, node.inputs)
            operands = tuple(name for name in names if name not in self.graph.constants)
            last = tuple(n for n in dict.fromkeys((*operands, *filter(None, node.outputs))) if n not in seen)
            seen.update(last)
            branches = tuple(tuple(self._in_order(branch.nodes, branch.outputs)) for branch in node.branches)
            plan.append(_Planned(node, operands, last, branches))
        return plan[::-1]


def with_branches(nodes: Sequence[Node]) -> Iterator[Node]:
    """Every node, those of branches behind the node that chooses."""
    for node in nodes:
        yield node
        for branch in node.branches:
            yield from with_branches(branch.nodes)


def called(node: Node, compute: Callable[..., Any], operands: Sequence[Any]) -> tuple[Any, ...]:
    """The results of a node.

    Raises:
        InputSpecError: it cannot be computed on these operands.
    """
    try:
        results = compute(*operands)
    except RelcompileError:
        raise
    except Exception as error:
        if torch.compiler.is_exporting():  # torch has its own way to say what cannot be captured
            raise
        shapes = ", ".join("x".join(map(str, x.shape)) or "a number" for x in operands if hasattr(x, "shape"))
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputSpecError(f"{node.name} ({node.operator}) cannot be computed on {shapes}: {reason}") from error
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def folded(nodes: Sequence[Node], constants: Mapping[str, Tensor]) -> tuple[tuple[Node, ...], dict[str, Tensor]]:
    """The nodes that depend on inputs, and the constants with what the other nodes make of them.

    Raises:
        ModelFileError: a node cannot be computed.
    """
    left, known = list[Node](), dict(constants)
    for node in nodes:
        if node.branches:
            inner = list[Branch]()
            for branch in node.branches:
                rest, known = folded(branch.nodes, known)
                inner.append(replace(branch, nodes=rest))
            left.append(replace(node, branches=tuple(inner)))
            continue
        if not all(name in known for name in node.inputs if name):
            left.append(node)
            continue
        try:
            results = _of_constants(node, known)
        except InputSpecError as error:
            raise ModelFileError(str(error)) from error
        known.update(zip(node.outputs, results, strict=False))
    return tuple(left), known


@torch.no_grad()
def _of_constants(node: Node, known: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    if node.operator in SHAPES:
        shape = called(node, SHAPES[node.operator], [node, known[node.inputs[0]]])
        return tuple(map(_as_tensor, shape))
    return called(node, Step(node, known), [])


def numbers_of(tensor: Tensor) -> Numbers:
    """The numbers of a constant."""
    return tensor.detach().numpy()


def _as_tensor(numbers: Numbers) -> Tensor:
    values: list[Any] = numbers.reshape(-1).tolist()
    if any(isinstance(value, torch.SymInt) for value in values):
        return torch.stack([torch.scalar_tensor(value, dtype=torch.int64) for value in values]).reshape(numbers.shape)
    dtype = torch.float32 if any(isinstance(value, float) for value in values) else torch.int64
    return torch.tensor(values, dtype=dtype).reshape(numbers.shape)
