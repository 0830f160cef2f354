"""A model repository for NVIDIA's Triton: the explainer, and the configuration that Triton reads beside it.

Source: https://github.com/triton-inference-server/common, protobuf/model_config.proto.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relcompile.errors import InputSpecError
from relcompile.files.paths import atomic_path, keep_inputs, make_folder
from relcompile.files.records import InputRecord
from relcompile.runtime.graph import Graph
from relcompile.runtime.opening import prediction_beside
from relcompile.runtime.production import ProductionExplainer, load
from relcompile.serving.protocol import NAMES

_BATCH: Final = "batch"
_TENSORRT: Final = """optimization {
  execution_accelerators {
    gpu_execution_accelerator { name: "tensorrt" parameters { key: "trt_engine_cache_enable" value: "1" } }
  }
}
"""


@dataclass(frozen=True)
class Deployment:
    """How Triton is to run an explainer.

    Args:
        rows: Of a batch, at most; 1 or more.
        delay: Microseconds that a request waits for others to join its batch.
        instances: Sessions on each device.
        gpu: On GPUs, else on processors.
        tensorrt: With TensorRT, where it can; only with `gpu`.
    """

    rows: int = 32
    delay: int = 0
    instances: int = 1
    gpu: bool = False
    tensorrt: bool = False

    def __post_init__(self) -> None:
        if self.tensorrt and not self.gpu:
            raise InputSpecError("TensorRT runs on GPUs: leave --tensorrt out, or add --gpu")


def write_repository(explainer: Path, repository: Path, name: str, deployment: Deployment) -> list[Path]:
    """Write NAME/1/model.onnx and NAME/config.pbtxt; the configuration comes last.

    If there is a file of the prediction alone beside the explainer, it becomes the model NAME.predict.

    Returns:
        The folders of the models.

    Raises:
        ExportError: it cannot be written.
        ExplainerFileError: the file is no explainer.
    """
    loaded = load(explainer, device="cpu")
    models: dict[str, tuple[Path, ProductionExplainer | Graph]] = {name: (explainer, loaded)}
    if loaded.is_paired:
        models[f"{name}.predict"] = prediction_beside(explainer), loaded.predictor
    for called, (file, model) in models.items():
        _write_model(file, model, repository / called, configuration(called, model.inputs, model.outputs, deployment))
    return [repository / called for called in models]


def _write_model(file: Path, model: ProductionExplainer | Graph, folder: Path, text: str) -> None:
    copies = {folder / "1" / "model.onnx": file}
    if model.weights is not None:
        copies = {folder / "1" / model.weights.name: model.weights, **copies}
    keep_inputs(copies.values(), copies)
    make_folder(folder / "1")
    for target, source in copies.items():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    with atomic_path(folder / "config.pbtxt") as temporary:
        temporary.write_text(text, encoding="utf-8")


def triton_name(text: str) -> str:
    """A name by which Triton's clients find a model: they quote all else in an address, and Triton does not unquote."""
    return re.sub(r"[^A-Za-z0-9_.~-]", "_", text)


def configuration(
    name: str, inputs: Sequence[InputRecord], outputs: Sequence[InputRecord], deployment: Deployment
) -> str:
    """A ModelConfig in protobuf's text format."""
    batched = all(record.shape[:1] == (_BATCH,) for record in (*inputs, *outputs))
    kind = "KIND_GPU" if deployment.gpu else "KIND_CPU"
    head = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {deployment.rows if batched else 0}",
        f"instance_group {{ count: {deployment.instances} kind: {kind} }}",
    ]
    if batched:
        head.append(f"dynamic_batching {{ max_queue_delay_microseconds: {deployment.delay} }}")
    tensors = [_tensor("input", record, batched) for record in inputs]
    tensors += [_tensor("output", record, batched) for record in outputs]
    return "\n".join([*head, *tensors]) + "\n" + _TENSORRT * deployment.tensorrt


def _tensor(field: str, record: InputRecord, batched: bool) -> str:
    """One input or output; Triton keeps the batch for itself, and wants one axis at least beside it."""
    sizes = [size if isinstance(size, int) else -1 for size in record.shape[batched:]]
    reshape = "" if sizes else " reshape { shape: [ ] }"
    dims = ", ".join(map(str, sizes or [1]))
    kind = f"TYPE_{NAMES[record.dtype]}"
    return f"{field} {{ name: {_quoted(record.name)} data_type: {kind} dims: [ {dims} ]{reshape} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
