"""`relcompile export --triton`: the configuration is read by Triton's own protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from torch import nn
from tritonclient.grpc import model_config_pb2 as published

import relcompile
from relcompile.cli.main import main
from relcompile.files.records import InputRecord
from relcompile.runtime.production import load
from relcompile.serving.triton import Deployment, configuration
from tests.runtime.test_runtime import W, X, write

CONFIG: Any = published  # protobuf makes its names when it is imported


def read(text: str) -> Any:
    return text_format.Parse(text, CONFIG.ModelConfig())


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_a_repository(tmp_path: Path) -> None:
    assert run(write(tmp_path / "linear.z+.onnx"), "--triton", tmp_path / "repository", "--rows", 8) == 0
    folder = tmp_path / "repository" / "linear.z_"
    found = read((folder / "config.pbtxt").read_text())
    assert (found.name, found.backend, found.max_batch_size) == ("linear.z_", "onnxruntime", 8)
    assert found.HasField("dynamic_batching")
    assert [(i.kind, i.count) for i in found.instance_group] == [(found.instance_group[0].KIND_CPU, 1)]
    kinds = CONFIG.DataType
    assert [(i.name, kinds.Name(i.data_type), list(i.dims)) for i in found.input] == [
        ("input", "TYPE_FP32", [3]),
        ("target", "TYPE_INT64", [1]),
    ]
    assert found.input[1].HasField("reshape")
    assert not found.input[0].HasField("reshape")
    assert list(found.input[1].reshape.shape) == []
    assert [(o.name, list(o.dims)) for o in found.output] == [("output", [4]), ("relevance", [3])]
    explainer = load(folder / "1" / "model.onnx", device="cpu")
    np.testing.assert_allclose(explainer.explain(X, target=3).relevance, X * W[:, 3], rtol=1e-6)


def test_a_pair_becomes_two_models_each_with_its_weights(tmp_path: Path) -> None:
    explainer = relcompile.compile(nn.Linear(3, 4), torch.from_numpy(X), rule="gradient")
    explainer.save(tmp_path / "m.onnx", pair=True)
    assert run(tmp_path / "m.onnx", "--triton", tmp_path / "repository") == 0
    (weights,) = tmp_path.glob("m.*.weights")
    weights.unlink()
    folders = [tmp_path / "repository" / name for name in ("m", "m.predict")]
    found = [read((folder / "config.pbtxt").read_text()) for folder in folders]
    assert [[i.name for i in each.input] for each in found] == [["input", "target"], ["input"]]
    assert [[o.name for o in each.output] for each in found] == [["output", "relevance"], ["output"]]
    explained = load(folders[0] / "1" / "model.onnx", device="cpu").explain(X, target=3)
    np.testing.assert_allclose(explained.relevance, explainer(torch.from_numpy(X), 3)[1].numpy(), rtol=1e-5)
    predicts: Any = onnxruntime.InferenceSession(folders[1] / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(predicts.run(None, {"input": X})[0], explained.output, rtol=1e-5)


def test_gpus_tensorrt_and_free_sizes() -> None:
    inputs = (InputRecord('a "b" c', ("batch", "length", 3), "float16"), InputRecord("mask", ("batch",), "bool"))
    outputs = (InputRecord("best", ("batch",), "int64"),)
    found = read(configuration("n", inputs, outputs, Deployment(4, 2000, 2, gpu=True, tensorrt=True)))
    assert [list(i.dims) for i in found.input] == [[-1, 3], [1]]
    assert found.input[0].name == 'a "b" c'
    assert found.dynamic_batching.max_queue_delay_microseconds == 2000
    accelerators = found.optimization.execution_accelerators.gpu_execution_accelerator
    assert [each.name for each in accelerators] == ["tensorrt"]
    assert [(i.kind, i.count) for i in found.instance_group] == [(found.instance_group[0].KIND_GPU, 2)]


def test_a_graph_without_a_batch_is_not_batched() -> None:
    found = read(configuration("n", (InputRecord("x", (3, 4), "float32"),), (), Deployment()))
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert list(found.input[0].dims) == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tensorrt"], "add --gpu"),
        (["--name", "../.."], "cannot be the name of a model of Triton"),
        (["--name", ".."], "cannot be the name of a model of Triton"),
        (["--name", "linear.z+"], "cannot be the name of a model of Triton"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_one_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    file = write(tmp_path / "a.onnx")
    assert run(file, "--triton", tmp_path / "repository", *arguments) == 2
    assert told in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == [file]
