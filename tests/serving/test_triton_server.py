"""A repository that `relcompile export --triton` wrote, served by Triton itself and asked by NVIDIA's client.

The package nvidia-pytriton holds Triton with its backend for Python, and no other. So the configuration is read, and
the batches are made, by Triton; what ONNX Runtime's backend would run, a model in Python runs with ONNX Runtime.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from benchmarks.parts.server_process import array_of
from relcompile.cli.main import main
from tests.downloads import kept
from tests.runtime.test_runtime import W, X, write

PORT = 18017
PYTHON = f"3.{sys.version_info.minor}"
RUNS = """
import os, onnxruntime, triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, told):
        path = os.path.join(told["model_repository"], told["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = [output.name for output in self.session.get_outputs()]
        inputs = [value.name for value in self.session.get_inputs()]
        feeds = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in inputs}
        assert feeds["target"].ndim == 1, "Triton took the axis away that it wanted"
        found = self.session.run(names, feeds)
        return triton.InferenceResponse([triton.Tensor(*each) for each in zip(names, found)])
"""


def fetch_server(folder: Path) -> None:
    """Triton out of its wheel, whose programs are not marked as such."""
    pip("download", "--no-deps", "-d", folder, "nvidia-pytriton==0.7.0")
    wheel = next(folder.glob("nvidia_pytriton-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
    server = folder / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    for program in (server / "bin" / "tritonserver", Path(shutil.copy(stub, server / "backends" / "python"))):
        program.chmod(0o755)


def fetch_python(folder: Path) -> None:
    """A Python with what the model imports; Triton's backend was built for numpy 1."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", folder, "install", "--no-deps", "numpy<2", "onnxruntime")


def pip(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, words)], check=True)


@contextmanager
def serving(repository: Path) -> Generator[InferenceServerClient]:
    server = kept(f"triton-0.7.0-{PYTHON}", fetch_server) / "pytriton" / "tritonserver"
    python = kept(f"triton-python-{PYTHON}", fetch_python)
    command = [server / "bin" / "tritonserver", "--model-repository", repository, "--http-port", str(PORT)]
    command += ["--backend-directory", server / "backends", "--allow-grpc", "false", "--allow-metrics", "false"]
    found = {"PATH": f"{python / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(python)}
    with subprocess.Popen(command, env=found, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        client = InferenceServerClient(f"127.0.0.1:{PORT}", concurrency=8)
        try:
            for _ in range(200):
                assert running.poll() is None, "it reads the configuration, and starts"
                time.sleep(0.1)
                if is_ready(client):
                    break
            yield client
        finally:
            client.close()
            running.terminate()


def is_ready(client: InferenceServerClient) -> bool:
    try:
        return bool(client.is_model_ready("linear.z_"))
    except (OSError, InferenceServerException):
        return False


def asked(rows: int, target: int, axes: int = 2) -> list[InferInput]:
    image, entry = np.tile(X[:1], (rows, 1)), np.full((rows, 1)[:axes], target)
    inputs = [InferInput("input", image.shape, "FP32"), InferInput("target", entry.shape, "INT64")]
    for each, array in zip(inputs, (image, entry), strict=True):
        each.set_data_from_numpy(array)
    return inputs


@pytest.mark.heavy
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(platform.system() != "Linux" or platform.machine() != "x86_64", reason="as the package is")
def test_triton_serves_what_was_exported(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    options = ["--triton", str(repository), "--rows", "8", "--delay", "2000"]
    with pytest.raises(SystemExit):
        main(["export", str(write(tmp_path / "linear.z+.onnx")), *options])
    config = repository / "linear.z_" / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "python"'))
    (repository / "linear.z_" / "1" / "model.py").write_text(RUNS)
    with serving(repository) as client:
        told = client.get_model_metadata("linear.z_")
        assert [(each["name"], each["datatype"], each["shape"]) for each in (*told["inputs"], *told["outputs"])] == [
            ("input", "FP32", [-1, 3]),
            ("target", "INT64", [-1, 1]),
            ("output", "FP32", [-1, 4]),
            ("relevance", "FP32", [-1, 3]),
        ]
        wanted = [InferRequestedOutput("relevance")]
        answers = [client.async_infer("linear.z_", asked(2, target), outputs=wanted) for target in range(4)]
        for target, answer in enumerate(answers):
            relevance = array_of(answer.get_result(), "relevance")
            np.testing.assert_allclose(relevance, np.tile(X[:1] * W[:, target], (2, 1)), rtol=1e-6)
        with pytest.raises(InferenceServerException, match="<= 8"):
            client.infer("linear.z_", asked(9, 0))
        with pytest.raises(InferenceServerException, match=r"Expected \[-1,1\]"):
            client.infer("linear.z_", asked(2, 0, axes=1))
