"""Every row of the table of operators: its adjoint is torch.autograd's, as written and as lowered for export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.nn import functional
from torch.utils import _pytree as pytree

from passes.graphs.emitter import Emitter, Value, aten
from passes.operators.activation import ActivationCall
from passes.operators.call import Call
from passes.operators.table import OPERATORS, describe
from passes.pipelines import LOWER
from passes.runner import run_passes
from passes.stages import verify_canonical, verify_lowered
from tests.compare import FLOAT64, assert_close
from tests.operators.cases import ACTIVATIONS, CASES, Case

# torch has no second derivative of hardsigmoid.
SAME_FUNCTION: dict[Any, Any] = {aten.hardsigmoid.default: lambda z: functional.relu6(z + 3) / 6}


class Written:
    """A graph of one operator: `tensors` are its inputs, and a multiplier like its output is the last one."""

    def __init__(self, case: Case) -> None:
        leaves, structure = pytree.tree_flatten(list(case.args))
        self.tensors = list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())
        mode, graph = FakeTensorMode(), Graph()
        nodes = dict[int, Node]()
        for position, tensor in enumerate(self.tensors):
            nodes[id(tensor)] = graph.placeholder(f"x{position}")
            nodes[id(tensor)].meta["val"] = mode.from_tensor(tensor.detach())
        graph.output(())
        self.module = GraphModule(nn.Module(), graph).train(False)
        self.emit = Emitter(self.module)
        args = pytree.tree_unflatten([nodes.get(id(leaf), leaf) for leaf in leaves], structure)
        output = self.emit.call(case.target, *args, **case.settings)
        self.active = {nodes[id(tensor)]: tensor for tensor in self.tensors if tensor.requires_grad}
        call = describe(output.node, self.emit, {output.node, *self.active}.__contains__)
        assert call is not None
        self.call: Call = call
        self.multiplier = self.emit.placeholder("m", output.fake)

    def run(self, results: list[Value], m: Tensor) -> Any:
        self.module.graph.output_node().args = (tuple(value.node for value in results),)
        self.module.recompile()
        return self.module(*(tensor.detach() for tensor in self.tensors), m)


def multiplier_of(case: Case) -> tuple[Tensor, Tensor]:
    """The operator's output, and a multiplier like it."""
    output: Tensor = case.target(*case.args, **case.settings)
    generator = torch.Generator().manual_seed(1)
    return output, torch.randn(output.shape, generator=generator, dtype=torch.float64)


def test_every_operator_has_a_case() -> None:
    # An index has no derivative: see tests/whole/test_tokens.py.
    differentiable = {target for target, row in OPERATORS.items() if row.views and target is not aten.embedding.default}
    assert {case.target for case in CASES} == differentiable


@pytest.mark.parametrize("lowered", [False, True], ids=["as written", "lowered"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_adjoint_is_autograd(case: Case, lowered: bool) -> None:
    graph, (output, m) = Written(case), multiplier_of(case)
    parts = graph.call.adjoint(graph.multiplier)
    assert len(parts) == len(graph.call.operands)
    if lowered:
        graph.module.graph.output_node().args = (tuple(part.node for part in parts if part is not None),)
        run_passes(graph.module, LOWER, keeps=verify_canonical, ensures=verify_lowered)
        found = graph.module(*(tensor.detach() for tensor in graph.tensors), m)
    else:
        found = graph.run([part for part in parts if part is not None], m)
    expected = torch.autograd.grad(output, list(graph.active.values()), m)
    for (node, _), gradient in zip(graph.active.items(), expected, strict=True):
        shares = [share for share, operand in zip(found, graph.call.operands, strict=True) if operand is node]
        assert_close(sum(shares), gradient, FLOAT64)


@pytest.mark.parametrize("case", ACTIVATIONS, ids=str)
def test_curvature_is_autograd(case: Case) -> None:
    graph = Written(case)
    assert isinstance(graph.call, ActivationCall)
    (x,) = graph.active.values()
    output = SAME_FUNCTION.get(case.target, case.target)(*case.args, **case.settings)
    (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    bend = torch.zeros_like(x)
    if slope.requires_grad:
        bend = bend + torch.autograd.grad(slope.sum(), x)[0]
    assert_close(graph.run([graph.call.curvature()], torch.zeros_like(x))[0], bend, FLOAT64)


@pytest.mark.parametrize("case", ACTIVATIONS, ids=str)
def test_the_secant_leads_through_the_origin(case: Case) -> None:
    graph = Written(case)
    assert isinstance(graph.call, ActivationCall)
    if not graph.call.vanishes_at_zero:
        pytest.skip("no secant through the origin")
    (x,) = graph.active.values()
    (found,) = graph.run([graph.call.secant()], torch.zeros_like(x))
    assert_close(found * x, case.target(*case.args, **case.settings), FLOAT64)
    (at_zero,) = graph.module(torch.zeros_like(x.detach()), *(t.detach() for t in graph.tensors[1:]), x.detach())
    leaf = torch.zeros_like(x, requires_grad=True)
    (slope,) = torch.autograd.grad(case.target(leaf, *case.args[1:], **case.settings).sum(), leaf)
    assert_close(at_zero, torch.where(slope.isinf(), 0, slope), FLOAT64)
