"""Anchors: values that rewrites keep, under names that the runner checks."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from passes.errors import InvariantError
from passes.graphs.anchors import add_anchor, anchored
from passes.graphs.graph import active_nodes
from passes.pipelines import CANONICALIZE, OPTIMISE
from passes.runner import run_passes
from passes.stages import verify_captured
from passes.views.active import explained_output, nodes_named
from passes.views.named_layers import layer_output
from relcompile.frontend.capture import capture
from tests.compare import FLOAT64, assert_close
from tests.conftest import randomise

X = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Normalised(nn.Module):
    """Layers that canonical form merges, splits and moves."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.conv, self.after = nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.act, self.pad = nn.ReLU6(), nn.Conv2d(4, 3, 3, padding="same", bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pad(self.act(self.after(self.conv(self.before(x))))) + 0.5


LAYERS = ("before", "conv", "after", "act", "pad")


def network() -> Normalised:
    torch.manual_seed(0)
    model = Normalised()
    randomise(model.before)
    randomise(model.after)
    return model.double().eval()


def graph_of(model: nn.Module) -> GraphModule:
    return capture(model, {"x": X}).module


def place(module: GraphModule, layer: str) -> torch.fx.Node:
    return layer_output(module, layer, nodes_named(module, ("x",)), explained_output(module, 0))


def with_outputs(module: GraphModule, *layers: str) -> GraphModule:
    """The graph, which returns what stands at the anchors."""
    module = copy.deepcopy(module)
    nodes = anchored(module)
    module.graph.output_node().args = (tuple(nodes[layer] for layer in layers),)
    module.recompile()
    return module


@pytest.mark.parametrize("layers", [*((layer,) for layer in LAYERS), LAYERS])
def test_the_value_at_an_anchor_survives_every_pass(layers: tuple[str, ...]) -> None:
    watched = network()
    seen: dict[str, torch.Tensor] = {}
    for name, child in watched.named_children():
        child.register_forward_hook(lambda _m, _i, y, name=name: seen.update({name: y}))
    watched(X)
    module = graph_of(network())
    for layer in layers:
        add_anchor(module, layer, place(module, layer))
    run_passes(module, CANONICALIZE, keeps=verify_captured)
    run_passes(module, OPTIMISE, keeps=verify_captured)
    for layer, value in zip(layers, with_outputs(module, *layers)(X), strict=True):
        assert_close(value, seen[layer].detach(), FLOAT64)


def test_without_an_anchor_the_same_value_is_merged_away() -> None:
    """Otherwise the test above would not test anything."""
    module = graph_of(network())
    node = place(module, "conv")
    run_passes(module, CANONICALIZE, keeps=verify_captured)
    assert node not in active_nodes(module, nodes_named(module, ("x",)), explained_output(module, 0))


class Forgets:
    """Erases a node without saying what stands for it."""

    name: ClassVar[str] = "forgets"

    def apply(self, module: GraphModule, /) -> int:
        node = explained_output(module, 0)
        node.replace_all_uses_with(node.all_input_nodes[0])
        module.graph.erase_node(node)
        return 1


def test_the_runner_sees_a_lost_anchor() -> None:
    module = graph_of(network())
    name = explained_output(module, 0).name
    for anchor in ("read", "tapped"):
        add_anchor(module, anchor, explained_output(module, 0))
    with pytest.raises(InvariantError, match=rf"forgets .* anchors without a node: read \({name}\), tapped \({name}\)"):
        run_passes(module, [Forgets()], keeps=verify_captured)
