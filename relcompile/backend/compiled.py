"""`Compiled`: the explainer graph as a PyTorch module, with what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import statically_known_true

from passes.runner import PassReport
from relcompile.errors import InputSpecError, TargetError
from relcompile.files.records import MANY, TargetRecord
from relcompile.metadata import TARGET_INPUT, Metadata
from relcompile.question.options import Options


class Compiled(torch.nn.Module):
    """Prediction and relevance in one static graph, without autograd.

    Call it as `explainer(*inputs, target)`, where `target` is int64 (N,) if the target mode is "index", int64 (N, axes)
    if it is "entry", a float tensor of the output's shape if it is "region" or "seed" (of that of the layer where
    relevance starts), and absent otherwise. Layers
    that are masked take a mask (N, channels) each; what is left out is ones. Methods that average over noisy copies
    then take standard normal numbers (N, copies, ...) for every explained input, and an explainer that was compiled
    with reference="input" a `reference` like the input. It returns the model's own outputs, then the relevance of every
    explained input, each in the shape of its input (of a layer: in that of its output), that of every tap; then, if it
    was asked for, the relevance that biases and stabilisers absorb, (N, operators), and the report on learned roots,
    (N, roots, quantities). With several targets a sample `target` is (N, K) or (N, K, ...), masks are (N, K, channels),
    and everything behind the model's own outputs has an axis K behind the batch; last come the classes (N, K), if the
    explainer chose them.

    Attributes:
        graph_module: the fx graph of aten operators.
        metadata: what is written into every exported file.
        examples: arguments by name, the batch on axis 0, that exports and self-checks run on.
        options: what was asked for.
        reports: what every pass did.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        metadata: Metadata,
        examples: Mapping[str, torch.Tensor],
        options: Options,
        reports: Sequence[PassReport] = (),
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.metadata = metadata
        self.examples = dict(examples)
        self.options = options
        self.reports = tuple(reports)
        self.train(False)

    def forward(self, *arguments: torch.Tensor, **named: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Arguments in the order of `examples`, or by name; a class may be an int, an entry a tuple, for all samples.

        Raises:
            InputSpecError: arguments are missing, too many or given twice.
            TargetError: the target has another form, or is no class or entry of the explained output.
        """
        given = self._by_name(arguments, named)
        x = given[self.metadata.inputs[0].name]
        if self.metadata.target.takes_class and TARGET_INPUT in given:
            given[TARGET_INPUT] = _classes(given[TARGET_INPUT], x, self.metadata.target)
        if self.metadata.target.takes_entry:
            given[TARGET_INPUT] = _entries(given[TARGET_INPUT], x, self.examples[TARGET_INPUT])
        for name in self._masks - given.keys():
            like = self.examples[name]
            many = given[TARGET_INPUT].shape[1:2] if self.metadata.target.questions == MANY else like.shape[1:-1]
            given[name] = torch.ones((x.shape[0], *many, like.shape[-1]), dtype=like.dtype, device=x.device)
        found = self.graph_module(*(given[name] for name in self.examples))
        if self.metadata.target.takes_entry and not torch.compiler.is_compiling():
            _require_entries(given[TARGET_INPUT], found[self.metadata.outputs.index(self.metadata.explained)])
        return found

    def _by_name(self, arguments: Sequence[torch.Tensor], named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = list(self.examples)
        given = dict(zip(names, arguments, strict=False))
        if self.metadata.target.takes_class and self.metadata.target.classes in (None, 1):
            only: Any = 0  # one number per sample has one target
            named = {**({} if TARGET_INPUT in given else {TARGET_INPUT: only}), **named}
        fit = {*names} - self._masks <= {*given, *named} <= {*names}
        if len(arguments) > len(names) or given.keys() & named.keys() or not fit:
            found = ", ".join([*map(str, range(len(arguments))), *named]) or "none"
            raise InputSpecError(f"the explainer takes {', '.join(names)}; positions and names given: {found}")
        return {**given, **named}

    @property
    def _masks(self) -> set[str]:
        """Arguments that may be left out."""
        return {mask.input.name for mask in self.metadata.masks}

    def example_arguments(self, batch: int) -> tuple[torch.Tensor, ...]:
        """The examples, repeated or cut to `batch` samples."""
        return tuple(_of_batch(tensor, batch) for tensor in self.examples.values())

    def smaller_arguments(self) -> tuple[torch.Tensor, ...] | None:
        """The examples at half their size along free axes, or one less; None if only the batch is free."""
        nodes = self.graph_module.graph.find_nodes(op="placeholder")
        own = {record.name: record.shape for record in self.metadata.inputs}
        free = (
            (node.meta["val"].shape[axis], self.examples[node.name].shape[axis])
            for node in nodes
            for axis, size in enumerate(own.get(node.name, ()))
            if axis and isinstance(size, str)
        )
        sizes = {symbol.node.expr: sympy.Integer(_smaller(symbol, size)) for symbol, size in free}
        return tuple(_cut(self.examples[node.name], node.meta["val"].shape, sizes) for node in nodes) if sizes else None


def _smaller(symbol: Any, size: int) -> int:
    """A size below that of the example which the captured graph is made for."""
    return next(s for s in (size // 2, size - 1, size) if s == size or not statically_known_true(symbol > s))


def _cut(tensor: torch.Tensor, shape: Sequence[Any], sizes: Mapping[Any, Any]) -> torch.Tensor:
    """The first elements along the axes whose symbolic `shape` has other `sizes` now."""
    for axis, size in enumerate(shape):
        if axis and isinstance(size, torch.SymInt):
            known: Any = size.node.expr.xreplace(sizes)
            tensor = tensor.narrow(axis, 0, int(known)) if known.is_number else tensor  # the number of questions is not
    return tensor.contiguous()


def _classes(target: Any, x: torch.Tensor, record: TargetRecord) -> torch.Tensor:
    """The target as the graph takes it. Ranges are not checked while a graph is being traced: that would need data."""
    batch, ndim = x.shape[0], 1 if record.questions is None else 2
    if not isinstance(target, int | torch.Tensor) or isinstance(target, bool):
        raise TargetError(f"target is {target!r}, a {type(target).__name__}; want one integer, or int64 ({batch},)")
    if isinstance(target, int):
        target = torch.full((batch, 1)[:ndim], target, device=x.device)
    if target.dtype != torch.int64 or target.dim() != ndim or target.shape[0] != batch or 0 in target.shape:
        wanted = f"({batch},)" if ndim == 1 else f"({batch}, questions)"
        raise TargetError(
            f"target has dtype {target.dtype} and shape {tuple(target.shape)}; want one integer, or int64 {wanted}"
        )
    limit = torch.iinfo(torch.int64).max if record.classes is None else record.classes
    if not torch.compiler.is_compiling() and bool(((target < 0) | (target >= limit)).any()):
        raise TargetError(f"target {target.tolist()}: classes run from 0 to {limit - 1}")
    return target


def _entries(target: Any, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The target as the graph takes it: int64 like an example of it, (N, axes) or (N, questions, axes)."""
    if isinstance(target, tuple | list):
        target = torch.tensor(target, device=x.device).expand(x.shape[0], *like.shape[1:-1], -1)
    fits = isinstance(target, torch.Tensor) and target.dtype == torch.int64 and target.dim() == like.dim()
    if not fits or (target.shape[0], target.shape[-1]) != (x.shape[0], like.shape[-1]):
        found = f"{target.dtype} {tuple(target.shape)}" if isinstance(target, torch.Tensor) else repr(target)
        wanted = (x.shape[0], *["questions"] * (like.dim() - 2), like.shape[-1])
        raise TargetError(f"target is {found}; want int64 {wanted}: an index for every axis behind the batch")
    return target


def _require_entries(target: torch.Tensor, output: torch.Tensor) -> None:
    sizes = torch.tensor(output.shape[1:], device=target.device)
    if bool(((target < 0) | (target >= sizes)).any()):
        raise TargetError(f"target {target.tolist()}: the axes behind the batch have the sizes {sizes.tolist()}")


def _of_batch(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    repeats = -(-batch // tensor.shape[0])
    return tensor.repeat([repeats] + [1] * (tensor.dim() - 1))[:batch].clone()
