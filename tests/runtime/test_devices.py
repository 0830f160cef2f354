"""The same relevance on every device. `pytest -m gpu` runs what needs CUDA; the gate has the processor alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import relcompile
from relcompile.runtime.options import Device
from tests.compare import ONNX, assert_close

RULES = ("z+", "epsilon", "gamma=0.1", "alpha2beta1", "gradient", "zb", "deeplift-rescale")
CASES = [("cpu", "z+"), *(pytest.param("cuda", rule, marks=pytest.mark.gpu) for rule in RULES)]


def written(folder: Path, rule: str) -> tuple[relcompile.Explainer, Path]:
    """A network with strides, pools and a residual sum, and its file."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(64, 10)).eval()
    bounds = (-4.0, 4.0) if rule == "zb" else None
    explainer = relcompile.compile(model, torch.randn(2, 3, 22, 22), rule=rule, bounds=bounds)
    explainer.save(folder / "e.onnx", pair=True)
    return explainer, folder / "e.onnx"


@pytest.mark.parametrize(("device", "rule"), CASES)
def test_arrays_and_tensors_on_every_device(device: Device, rule: str, tmp_path: Path) -> None:
    explainer, path = written(tmp_path, rule)
    loaded = relcompile.load(path, device=device)
    for batch in (1, 64):
        x, target = torch.randn(batch, 3, 22, 22), torch.arange(batch) % 10
        output, relevance = explainer(x, target)
        found = loaded.explain(x.numpy(), target=target.numpy())
        assert_close(found.output, output, ONNX)
        assert_close(found.relevance, relevance, ONNX)
        assert_close(loaded.predict(x.numpy())["output"], output, ONNX)

        bound = loaded.bind({"input": x.to(device), "target": target.to(device)})
        there = torch.from_dlpack(bound.run()["relevance"])
        assert there.device.type == device
        assert_close(there.cpu(), relevance, ONNX)


@pytest.mark.parametrize(("device", "rule"), CASES[:2])
def test_recorded_runs_read_what_is_there_now(device: Device, rule: str, tmp_path: Path) -> None:
    explainer, path = written(tmp_path, rule)
    loaded = relcompile.load(path, device=device, gpu=relcompile.GpuOptions(cuda_graph=device == "cuda"))
    x, target = torch.randn(4, 3, 22, 22), torch.arange(4)
    tensors = {"input": x.clone().to(device), "target": target.to(device)}
    bound = loaded.bind(tensors)
    for factor in (1.0, -2.0, 0.5):
        tensors["input"].copy_(factor * x)
        if device == "cuda":
            torch.cuda.synchronize()
        found = torch.from_dlpack(bound.run()["relevance"]).cpu()
        assert_close(found, explainer(factor * x, target)[1], ONNX)
        assert_close(loaded.explain(x.numpy(), target=target.numpy()).relevance, explainer(x, target)[1], ONNX)
