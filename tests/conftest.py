"""What all tests share: one thread, and torchvision's networks without their trivial statistics."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Generator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn
from torch._export import utils as export_utils
from torch.onnx._internal.exporter import _registration

from relcompile.runtime.options import RuntimeOptions

torch.set_num_threads(1)  # small tensors: threads cost more than they bring

settings.register_profile("gate", max_examples=60, derandomize=True)  # the same every time: nothing fails by chance
settings.register_profile("search", max_examples=3000)  # others every time: --hypothesis-profile search
settings.load_profile("gate")

Build = Callable[..., nn.Module]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a function marked `sampled(k)` every k-th is part of the gate; the others are heavy."""
    seen = Counter[str]()
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark is not None:
            function = item.nodeid.partition("[")[0]
            if seen[function] % mark.args[0]:
                item.add_marker("heavy")
            seen[function] += 1


def pytest_collection_finish() -> None:
    """What was imported stays: garbage is no longer searched for among half a million objects, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators() -> Generator[None]:
    """What torch collects of its own operators for every graph that it captures or exports, here once a session."""
    registry: Any = _registration.ONNXRegistry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "from_torchlib", staticmethod(cache(registry.from_torchlib)))
        patch.setattr(export_utils, "_materialize_cpp_cia_ops", cache(export_utils._materialize_cpp_cia_ops))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread_of_the_runtime() -> Generator[None]:
    """ONNX Runtime, too, starts no thread for each core where a test does not ask for one."""
    original = RuntimeOptions.of_session

    def of_session(self: RuntimeOptions, runtime: Any) -> Any:
        options = original(self, runtime)
        if not isinstance(options, SimpleNamespace):  # which stands for ONNX Runtime's in some tests
            options.intra_op_num_threads = self.threads or 1
        return options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RuntimeOptions, "of_session", of_session)
        yield


@pytest.fixture(scope="session")
def network() -> Build:
    """`network("resnet18", num_classes=10)`: eval mode, float64, random weights, random batch-norm statistics."""
    return random_network


def random_network(name: str, *, seed: int = 0, **settings: Any) -> nn.Module:
    """One of torchvision's models; a fresh one has batch norms that do nothing, these do."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(models, name)(weights=None, **{"num_classes": 10, **settings})
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                randomise(module)
        _shrink_classifier(model)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):  # torch's default shrinks values layer by layer
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model.double().eval()


def randomise(norm: nn.modules.batchnorm._BatchNorm) -> None:
    """Statistics and an affine map far from the identity."""
    nn.init.normal_(norm.get_buffer("running_mean"), std=0.3)
    nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2.0)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, std=0.3)


def _shrink_classifier(model: nn.Module) -> None:
    """The dense layers of VGG and AlexNet hold 9 of 10 weights and 1 of 10 ideas: 64 units will do."""
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Sequential):
        return
    dense = {k: m for k, m in enumerate(classifier) if isinstance(m, nn.Linear)}
    if len(dense) != 3:
        return
    first, _, last = dense.values()
    sizes = [first.in_features, 64, 64, last.out_features]
    for position, inputs, outputs in zip(dense, sizes, sizes[1:], strict=False):
        classifier[position] = nn.Linear(inputs, outputs)
