"""Whole networks in float32: one ONNX file, run by ONNX Runtime at several batch sizes, against PyTorch."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import ONNX, assert_close

pytestmark = [pytest.mark.sampled(6), pytest.mark.slow]

SIZE = 64
BATCHES = (1, 2, 5)
CASES = [
    ("resnet18", "z+"),
    ("resnet18", "epsilon"),
    ("resnet18", "gradient"),
    ("vgg11_bn", "z+"),
    ("mobilenet_v2", "z+"),
    ("googlenet", "z+"),
    ("squeezenet1_1", "z+"),
]
MOST_NODES = {("resnet18", "z+"): 350}
# The file holds every weight once; the rest is nodes, shapes and metadata.
WEIGHTS, REST = 1.05, 2 * 2**20


def build(name: str, network) -> nn.Module:
    # torchvision's googlenet warns about its own default initialisation unless told; `network` replaces it anyway
    settings = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return network(name, **settings).float()


def sample(batch: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(batch))
    return x, torch.arange(batch) % 10


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_one_file_for_every_batch(name: str, rule: str, network, tmp_path: Path) -> None:
    model, path = build(name, network), tmp_path / "explainer.onnx"
    explainer = relcompile.compile(model, sample(2)[0], rule=rule)
    explainer.save(path)
    production = relcompile.load(path, device="cpu")
    for batch in BATCHES:
        x, target = sample(batch)
        output, relevance = explainer(x, target)
        found = production.explain(x.numpy(), target=target.tolist())
        assert_close(found.output, output, ONNX)
        assert_close(found.relevance, relevance, ONNX)

    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert path.stat().st_size <= WEIGHTS * weights + REST
    file = onnx.load(path)
    assert len(file.graph.node) <= MOST_NODES.get((name, rule), 10**6)
    assert {node.domain for node in file.graph.node} == {""}
    assert not file.functions
    assert {value.name for value in file.graph.output} == {"output", "relevance"}
    for value in (*file.graph.input, *file.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch", value.name
