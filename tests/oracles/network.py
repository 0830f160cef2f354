"""A whole network as data, run forwards and backwards in the textbook relevance form, slowly and in float64.

A network is a list of steps `Step(name, op, inputs)`; the value "input" is the network's input and the last
step its output. The same list gives the oracle (`forward`, `propagate`, `explain`) and an ordinary
`torch.nn.Module` (`as_module`) for the compiler under test. What travels backwards here is always a relevance
at a value: split in proportion at sums, unchanged through activations, shared by the matrix at affine steps.

Rules are a mapping from a step's name, or else its op's kind, to a function:
    affine, average, batch_norm   `rule(x, W, b, R)` on flat (N, J) and (N, K)   tests.oracles.affine
    activation                    `rule(z, y, slope, R)`                         tests.oracles.local
    add                           `rule(summands, R)`                            tests.oracles.local
    max_pool                      `rule(x, pool, R)`                             tests.oracles.local
Flatten and concat have no choice. A kind without a rule is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from tests.oracles import local
from tests.oracles.affine import matrix_of
from tests.oracles.local import Pool

Rules = Mapping[str, Callable[..., Any]]
INPUT = "input"


@dataclass(frozen=True, eq=False)
class Affine:
    """Any affine `function(x, **parameters)` of one value. The oracle reads its matrix off the function."""

    function: Callable[..., Tensor]
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    kind: str = "affine"

    def run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return self.function(inputs[0], **parameters)


@dataclass(frozen=True, eq=False)
class Activation:
    """A pointwise function."""

    function: Callable[[Tensor], Tensor]
    kind: ClassVar[str] = "activation"
    parameters: ClassVar[Mapping[str, Tensor]] = {}

    def run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return self.function(inputs[0])

    def slope(self, z: Tensor) -> Tensor:
        """f'(z), by autograd on the pointwise function alone; relu'(0) = 0."""
        leaf = z.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.function(leaf).sum(), leaf)
        return slope


@dataclass(frozen=True, eq=False)
class MaxPool:
    """The largest of every 2-D window."""

    pool: Pool
    kind: ClassVar[str] = "max_pool"
    parameters: ClassVar[Mapping[str, Tensor]] = {}

    def run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return functional.max_pool2d(inputs[0], *self.pool)


@dataclass(frozen=True, eq=False)
class Add:
    """The sum of two or more values of one shape; a value may be repeated."""

    kind: ClassVar[str] = "add"
    parameters: ClassVar[Mapping[str, Tensor]] = {}

    def run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        total = inputs[0]
        for value in inputs[1:]:
            total = total + value
        return total


@dataclass(frozen=True, eq=False)
class Concat:
    """Values laid side by side along axis 1."""

    kind: ClassVar[str] = "concat"
    parameters: ClassVar[Mapping[str, Tensor]] = {}

    def run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(list(inputs), dim=1)


@dataclass(frozen=True, eq=False)
class Flatten:
    """Everything but the batch in one axis."""

    kind: ClassVar[str] = "flatten"
    parameters: ClassVar[Mapping[str, Tensor]] = {}

    def run(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        return inputs[0].flatten(1)


Op = Affine | Activation | MaxPool | Add | Concat | Flatten


@dataclass(frozen=True, eq=False)
class Step:
    """One value of the network: `name` = `op` of the values named `inputs`. Two steps may share one op."""

    name: str
    op: Op
    inputs: tuple[str, ...]


@cache
def matrix(op: Affine, input_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """W (K, J) and b (K,) of an affine op; kept, so never change the parameters."""
    return matrix_of(lambda sample: op.run([sample], op.parameters), input_shape)


def forward(steps: Sequence[Step], x: Tensor) -> dict[str, Tensor]:
    """Every value of the network for a batch, by name."""
    values = {INPUT: x.detach().to(torch.float64)}
    for step in steps:
        arguments = [values[name] for name in step.inputs]
        if isinstance(step.op, MaxPool):
            values[step.name] = local.max_pool(arguments[0], step.op.pool)[0]
        else:
            values[step.name] = step.op.run(arguments, step.op.parameters).detach()
    return values


def propagate(
    steps: Sequence[Step], values: Mapping[str, Tensor], seeds: Mapping[str, Tensor], rules: Rules
) -> dict[str, Tensor]:
    """Carry the relevance `seeds` (by value name; usually one, at the output) back to every value."""
    relevance = {name: torch.zeros_like(value) for name, value in values.items()}
    for name, R in seeds.items():
        relevance[name] = relevance[name] + R
    for step in reversed(steps):
        arguments = [values[name] for name in step.inputs]
        parts = _back(step, arguments, values[step.name], relevance[step.name], rules)
        for name, part in zip(step.inputs, parts, strict=True):  # every part of a repeated operand
            relevance[name] = relevance[name] + part
    return relevance


def explain(
    steps: Sequence[Step], x: Tensor, target: Tensor, rules: Rules, *, start: Literal["logit", "one"]
) -> dict[str, Tensor]:
    """Relevance of every value, seeded with onehot(target), times the logit for "logit", at the output."""
    values = forward(steps, x)
    output = values[steps[-1].name]
    onehot = torch.zeros_like(output)
    onehot[torch.arange(len(output)), target] = 1.0
    seed = onehot * output if start == "logit" else onehot
    return propagate(steps, values, {steps[-1].name: seed}, rules)


def _back(step: Step, inputs: list[Tensor], output: Tensor, R: Tensor, rules: Rules) -> list[Tensor]:
    op, x = step.op, inputs[0]
    if isinstance(op, Flatten):
        return [R.reshape(x.shape)]
    if isinstance(op, Concat):
        return list(R.split([value.shape[1] for value in inputs], dim=1))
    rule = rules[step.name] if step.name in rules else rules.get(op.kind)
    if rule is None:
        raise KeyError(f"no rule for step {step.name!r} nor for kind {op.kind!r}")
    if isinstance(op, Affine):
        W, b = matrix(op, tuple(x.shape[1:]))
        return [rule(x.flatten(1), W, b, R.flatten(1)).reshape(x.shape)]
    if isinstance(op, Activation):
        return [rule(x, output, op.slope(x), R)]
    if isinstance(op, MaxPool):
        return [rule(x, op.pool, R)]
    return rule(inputs, R)


class _StepModule(torch.nn.Module):
    """One op with its parameters; "running_*" are buffers, all others nn.Parameters."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op
        for name, value in op.parameters.items():
            if name.startswith("running_"):
                self.register_buffer(name, value.detach().clone())
            else:
                self.register_parameter(name, torch.nn.Parameter(value.detach().clone()))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.op.run(inputs, {name: getattr(self, name) for name in self.op.parameters})


class _StepsModule(torch.nn.Module):
    """The steps as a module: each a submodule of its own name; steps that share an op share it."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        first = {id(step.op): step.name for step in reversed(steps)}
        self.plan = tuple((step.name, first[id(step.op)], step.inputs) for step in steps)
        for step in steps:
            if first[id(step.op)] == step.name:
                self.add_module(step.name, _StepModule(step.op))

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for name, module, inputs in self.plan:
            values[name] = self.get_submodule(module)(*[values[i] for i in inputs])
        return values[self.plan[-1][0]]


def as_module(steps: Sequence[Step]) -> torch.nn.Module:
    """The same network as an ordinary module in eval mode, in float64 (`.float()` for float32)."""
    return _StepsModule(steps).eval()
