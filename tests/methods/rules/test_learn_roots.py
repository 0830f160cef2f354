"""The unrolled search equals the same search over torch.autograd, in PyTorch and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from passes.graphs.emitter import Emitter, Value
from passes.pipelines import CANONICALIZE, OPTIMISE
from passes.runner import run_passes
from passes.stages import verify_canonical, verify_captured
from passes.views.active import describe_active
from relcompile.backend.onnx_file import lowered
from relcompile.frontend.capture import capture
from relcompile.methods.rules.roots.root_losses import HingeEmbedding, SquaredError, StructuralSimilarity
from relcompile.methods.rules.roots.root_search import (
    AffineResponse,
    BetweenZeroAndInput,
    Descent,
    LinearRegion,
    PointwiseResponse,
    Response,
    RootInBox,
    SoftmaxResponse,
    learn_root,
)
from tests.compare import FLOAT32, assert_close
from tests.oracles import root_search
from tests.oracles.root_search import Search, find_signal

# float64: the same steps in another order of summation; up to 50 steps follow each other.
CLOSE = 1e-9


def linear() -> nn.Module:
    return nn.Linear(12, 7)


def convolution(**settings: Any) -> nn.Module:
    return nn.Conv2d(4, 6, 3, **settings)


def weights_of(call: Any) -> Response:
    return AffineResponse(call, call.weight)


def positive_weights_of(call: Any) -> Response:
    return AffineResponse(call, call.weight.positive)


def softmax_of_linear(call: Any) -> Response:
    return SoftmaxResponse(weights_of(call))


def softmax_of_maps(call: Any) -> Response:
    return SoftmaxResponse(weights_of(call), axes=2)


def softmax_alone(_call: Any) -> Response:
    return SoftmaxResponse()


def softmax_of(_layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda s: s.softmax(-1)


def without_bias(layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda s: layer(s) - layer(torch.zeros_like(s))


def positive_convolution(layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda s: functional.conv2d(
        s, layer.weight.clamp(min=0), None, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def over_last_axis(layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda s: without_bias(layer)(s).softmax(-1)


def over_maps(layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda s: without_bias(layer)(s).flatten(2).softmax(-1).reshape(layer(s).shape)


def between(s: Tensor, x: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(s, x.clamp(min=0)), x.clamp(max=0))


def in_box(s: Tensor, x: Tensor) -> Tensor:
    return x - (x - s).clamp(-0.5, 0.25)


@dataclass(frozen=True)
class SearchCase:
    """A layer, the search in the graph, and the same search over autograd.

    Attributes:
        scale: of the input; larger ones make the hinge's y > 1 true.
    """

    layer: Callable[[], nn.Module]
    response: Callable[[Any], Response]
    descent: Descent
    search: Search
    function: Callable[[Any], Callable[[Tensor], Tensor]] = without_bias
    shape: tuple[int, ...] = (4, 9, 8)
    scale: float = 3.0


HINGE, SSIM, SQUARES = HingeEmbedding(), StructuralSimilarity(), SquaredError()
RELEASED_CONVOLUTION = Descent(SSIM, 5), Search(root_search.ssim, 5)
RELEASED_ACTIVATION = (
    Descent(HINGE, 20, 3.0, "ones", region=LinearRegion()),
    Search(root_search.hinge, 20, 3.0, "ones", decays=True),
)
# From x instead of from ones the hinge does move, and the step sizes do decay.
MOVING_ACTIVATION = (
    Descent(HINGE, 20, 3.0, region=LinearRegion()),
    Search(root_search.hinge, 20, 3.0, decays=True),
)


def activation(layer: Callable[[], nn.Module], pair: tuple[Descent, Search]) -> SearchCase:
    return SearchCase(layer, PointwiseResponse, *pair, lambda f: f, (6,))


CASES: dict[str, SearchCase] = {
    "linear": SearchCase(
        linear,
        weights_of,
        Descent(HINGE, 5, 1.0, largest_gradient=1.0),
        Search(root_search.hinge, 5, 1.0, clamp=1.0),
        shape=(12,),
    ),
    "linear, cut": SearchCase(
        linear,
        weights_of,
        Descent(HINGE, 50, 3.0, largest_gradient=0.02),
        Search(root_search.hinge, 50, 3.0, clamp=0.02),
        shape=(12,),
    ),
    "linear over tokens": SearchCase(
        linear, weights_of, Descent(HINGE, 5), Search(root_search.hinge, 5), shape=(3, 12)
    ),
    "linear, squares": SearchCase(
        linear, weights_of, Descent(SQUARES, 20, 2.0), Search(root_search.squared_error, 20, 2.0), shape=(12,)
    ),
    "linear, softmax": SearchCase(
        linear,
        softmax_of_linear,
        Descent(SQUARES, 10, 5.0),
        Search(root_search.squared_error, 10, 5.0),
        over_last_axis,
        (12,),
        1.0,
    ),
    "linear, between": SearchCase(
        linear,
        weights_of,
        Descent(SQUARES, 10, 2.0, constraint=BetweenZeroAndInput()),
        Search(root_search.squared_error, 10, 2.0, project=between),
        shape=(12,),
    ),
    "linear, box": SearchCase(
        linear,
        weights_of,
        Descent(SQUARES, 10, 2.0, "zeros", constraint=RootInBox(-0.5, 0.25)),
        Search(root_search.squared_error, 10, 2.0, "zeros", project=in_box),
        shape=(12,),
    ),
    "convolution": SearchCase(convolution, positive_weights_of, *RELEASED_CONVOLUTION, positive_convolution),
    "convolution, stride and padding": SearchCase(
        lambda: convolution(stride=2, padding=1), positive_weights_of, *RELEASED_CONVOLUTION, positive_convolution
    ),
    "convolution, groups": SearchCase(
        lambda: convolution(groups=2, padding=2), positive_weights_of, *RELEASED_CONVOLUTION, positive_convolution
    ),
    "convolution, dilation": SearchCase(
        lambda: convolution(dilation=2, padding=1), positive_weights_of, *RELEASED_CONVOLUTION, positive_convolution
    ),
    "convolution, large steps": SearchCase(
        convolution, weights_of, Descent(SSIM, 10, 30.0, ascend=True), Search(root_search.ssim, 10, 30.0, sign=-1.0)
    ),
    "convolution, softmax": SearchCase(
        convolution, softmax_of_maps, Descent(SSIM, 5, 2.0), Search(root_search.ssim, 5, 2.0), over_maps, scale=1.0
    ),
    "relu": activation(nn.ReLU, RELEASED_ACTIVATION),
    "relu, moving": activation(nn.ReLU, MOVING_ACTIVATION),
    "gelu": activation(nn.GELU, RELEASED_ACTIVATION),
    "gelu, moving": activation(nn.GELU, MOVING_ACTIVATION),
    "tanh gelu, moving": activation(lambda: nn.GELU(approximate="tanh"), MOVING_ACTIVATION),
    "softplus, moving": activation(nn.Softplus, MOVING_ACTIVATION),
    "silu, moving": activation(nn.SiLU, MOVING_ACTIVATION),
    # The layer only shapes R; the search goes through the softmax of the signal itself.
    "softmax": SearchCase(nn.ReLU, softmax_alone, *RELEASED_ACTIVATION, softmax_of, (4, 6)),
    "softmax, squares": SearchCase(
        nn.ReLU,
        softmax_alone,
        Descent(SQUARES, 20, 5.0, region=LinearRegion()),
        Search(root_search.squared_error, 20, 5.0, decays=True),
        softmax_of,
        (4, 6),
        1.0,
    ),
}


class WithRelevance(nn.Module):
    """A layer whose arriving relevance is a second input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), R * 1


def searched(case: SearchCase, layer: nn.Module, x: Tensor, R: Tensor) -> GraphModule:
    """(x, R) -> the signal, and the losses before and after."""
    module = capture(WithRelevance(layer), {"x": x, "R": R}).module
    run_passes(module, CANONICALIZE, keeps=verify_captured, ensures=verify_canonical)
    emit = Emitter(module)
    (call,) = describe_active(emit, ("x",), 0).values()
    signal, relevance = (emit.value(node) for node in module.graph.find_nodes(op="placeholder"))
    root = learn_root(case.response(call), signal, relevance, case.descent)
    return with_outputs(module, root.signal, root.loss_before, root.loss_after)


def with_outputs(module: GraphModule, *values: Value) -> GraphModule:
    module.graph.output_node().args = (tuple(value.node for value in values),)
    run_passes(module, OPTIMISE, keeps=verify_canonical)
    return module


def samples(case: SearchCase, dtype: torch.dtype, batch: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = case.layer().to(dtype).eval()
    x = (torch.randn(batch, *case.shape, dtype=torch.float64) * case.scale).to(dtype)
    y = layer(x).detach()
    return layer, x, (torch.rand(y.shape, dtype=torch.float64) * 2).to(dtype)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, CLOSE), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_search_equals_autograd(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case = CASES[name]
    layer, x, R = samples(case, dtype)
    signal, before, after = searched(case, layer, x, R)(x, R)
    expected = find_signal(case.function(layer), x, R, case.search)
    assert_close(signal, expected[0].detach(), tolerance)
    assert_close(before[:, 0], expected[1], tolerance)
    assert_close(after[:, 0], expected[2], tolerance)


def test_hinge_is_that_of_pytorch() -> None:
    y, R = torch.randn(1, 50, dtype=torch.float64) * 3, torch.randn(1, 50, dtype=torch.float64)
    assert_close(root_search.hinge(y, R), functional.hinge_embedding_loss(y, R), 1e-12)
    wanted = root_search.gradient(lambda v: functional.hinge_embedding_loss(v, R), y)
    assert_close(root_search.gradient(lambda v: root_search.hinge(v, R), y), wanted, 1e-12)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CASES)
def test_search_moves_or_is_inert(name: str) -> None:
    """Equality alone would hold for two searches that stand still: which of these do?"""
    case = CASES[name]
    layer, x, R = samples(case, torch.float64)
    signal = searched(case, layer, x, R)(x, R)[0]
    start = {"input": x, "ones": torch.ones_like(x), "zeros": torch.zeros_like(x)}[case.descent.start]
    moved = float((signal - start).abs().max())
    assert (moved == 0.0) == (name in ("relu", "gelu", "softmax")), moved


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CASES)
def test_search_does_not_depend_on_the_batch(name: str) -> None:
    case = CASES[name]
    layer, x, R = samples(case, torch.float64, batch=8)
    module = searched(case, layer, x, R)
    alone = [module(x[n : n + 1], R[n : n + 1]) for n in range(8)]
    for whole, parts in zip(module(x, R), zip(*alone, strict=True), strict=True):
        assert_close(whole, torch.cat(parts), 1e-12)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", CASES)
def test_search_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    layer, x, R = samples(case, torch.float32)
    module = lowered(searched(case, layer, x, R))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (x, R), dynamic_shapes=({0: batch}, {0: batch}), strict=False)
    path = tmp_path / "search.onnx"
    exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert exported is not None
    exported.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for rows in (slice(0, 1), slice(0, 3)):
        feeds = dict(zip(names, (x[rows].numpy(), R[rows].numpy()), strict=True))
        for found, wanted in zip(session.run(None, feeds), module(x[rows], R[rows]), strict=True):
            assert_close(np.asarray(found), wanted, FLOAT32)
