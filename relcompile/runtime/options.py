"""How ONNX Runtime is to run a file: on which device, with which threads and which memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from relcompile.errors import InputSpecError

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
_DEVICES: Final = ("auto", "cpu", "cuda", "tensorrt")
_FATAL: Final = 4  # ONNX Runtime's log severity
_MOST_THREADS: Final = 1024
_MOST_DEVICES: Final = 1024
_NOT_RECORDED: Final = -1


@dataclass(frozen=True)
class GpuOptions:
    """What only GPUs have; they reach ONNX Runtime as they are, and what they do there is not measured.

    Args:
        number: Which GPU, 0 or more.
        memory: Bytes that one session may take of it; None: all.
        cuda_graph: Record the launches of a run and replay them, for tensors that `ProductionExplainer.bind` holds;
            other runs are as they were.
        engine_cache: With `device="tensorrt"`: the folder where engines are kept, which take minutes to build. They fit
            one GPU and one version of TensorRT.

    Raises:
        InputSpecError: names the option, its value, and what is wanted.
    """

    number: int = 0
    memory: int | None = None
    cuda_graph: bool = False
    engine_cache: Path | str | None = None

    def __post_init__(self) -> None:
        _require_number("gpu.number", self.number, 0, _MOST_DEVICES)
        if self.memory is not None:
            _require_number("gpu.memory", self.memory, 1, 2**63 - 1)
        _require_truth("gpu.cuda_graph", self.cuda_graph)
        _require_folder("gpu.engine_cache", self.engine_cache)


@dataclass(frozen=True)
class RuntimeOptions:
    """What `relcompile.load` takes beside the file; see there.

    Raises:
        InputSpecError: names the option, its value, and what is wanted.
    """

    device: Device = "auto"
    threads: int | None = None
    spinning: bool = False
    gpu: GpuOptions = field(default_factory=GpuOptions)

    def __post_init__(self) -> None:
        if self.device not in _DEVICES:
            raise InputSpecError(f'device={self.device!r}: want "auto", "cpu", "cuda" or "tensorrt"')
        if self.threads is not None:
            _require_number("threads", self.threads, 1, _MOST_THREADS)
        _require_truth("spinning", self.spinning)
        if type(self.gpu) is not GpuOptions:
            raise InputSpecError(f"gpu={self.gpu!r}: want GpuOptions(...)")
        if self.gpu.engine_cache is not None and self.device != "tensorrt":
            raise InputSpecError('gpu.engine_cache is of TensorRT alone: add device="tensorrt", or leave it out')

    def of_session(self, runtime: Any) -> Any:
        """Options of one session. Its errors come as exceptions, so it need not log them as well."""
        options = runtime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = self.threads or 0
        for pool in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(self.spinning)))
        return options

    def of_run(self, runtime: Any) -> Any:
        """Options of every run that is not to be recorded; None where none is."""
        return run_options(runtime, _NOT_RECORDED) if self.gpu.cuda_graph else None

    @property
    def providers(self) -> list[str | tuple[str, dict[str, str]]]:
        """ONNX Runtime's providers with their options, the preferred one first."""
        gpu, number = self.gpu, {"device_id": str(self.gpu.number)}
        limits = {} if gpu.memory is None else {"gpu_mem_limit": str(gpu.memory)}
        cuda = {**number, **limits, **({"enable_cuda_graph": "1"} if gpu.cuda_graph else {})}
        if self.device != "tensorrt":
            return [(CUDA, cuda), CPU]
        place = gpu.engine_cache
        cache = {} if place is None else {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(place)}
        return [(TENSORRT, {**number, **cache, "trt_cuda_graph_enable": str(int(gpu.cuda_graph))}), (CUDA, cuda), CPU]


def run_options(runtime: Any, recording: int) -> Any:
    """Options of a run: under which number its launches are recorded, and replayed the next time."""
    options = runtime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(recording))
    return options


def _require_number(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InputSpecError(f"{name}={value!r}: want a whole number from {least} to {most}")


def _require_truth(name: str, value: object) -> None:
    if type(value) is not bool:
        raise InputSpecError(f"{name}={value!r}: want True or False")


def _require_folder(name: str, value: object) -> None:
    if not isinstance(value, str | os.PathLike | None):
        raise InputSpecError(f"{name}={value!r}: want the path of a folder, or None")
