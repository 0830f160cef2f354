"""What runs an explainer, installed where nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

import relcompile
from relcompile.runtime.extras import way_out
from tests.repository.test_docs import Scores
from tests.runtime.test_runtime import W, write

ROOT = Path(__file__).parents[2]
# Bytes of the environment without pip, what it came with, and bytecode; numpy and ONNX Runtime alone are 133 * 10^6.
MOST = 150 * 10**6


@pytest.mark.parametrize("module", ["torch", "onnx.helper", "PIL.Image", "starlette", "pyarrow", "ray"])
def test_a_missing_package_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = way_out(ModuleNotFoundError("no", name=module))
    assert told is not None
    extra = re.search(r"relcompile\[([\w-]+)\]", told)
    assert extra is not None
    assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()
    assert way_out(ModuleNotFoundError("no", name="my_models")) is None


def test_the_runtime_is_small_and_runs_files_without_torch(tmp_path: Path) -> None:
    image = torch.randn(1, 3, 16, 16)
    explainer = relcompile.compile(Scores().eval(), image, rule="z+")
    explainer.save(tmp_path / "model.z+.onnx")
    np.save(tmp_path / "image.npy", image.numpy())
    python = installed(tmp_path, "serve-cpu")
    own = {"bin", "pip", "setuptools", "_distutils_hack", "pkg_resources"}
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    size = sum(
        file.stat().st_size
        for folder in packages.iterdir()
        if folder.name.partition("-")[0] not in own
        for file in ([folder] if folder.is_file() else folder.rglob("*"))
        if file.is_file()
    )
    assert size < MOST, f"{size / 1e6:.0f} MB"
    assert not {"torch", "onnx", "matplotlib"} & {folder.name for folder in packages.iterdir()}

    lines = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(), re.DOTALL)
    assert lines is not None
    code = f"import numpy; image = numpy.load('image.npy')\n{lines[1]}\nnumpy.save('relevance.npy', relevance)"
    run(python, tmp_path, "-c", code)
    with torch.no_grad():
        expected = explainer(image, 281)[1].numpy()
    found = np.load(tmp_path / "relevance.npy")
    assert abs(found - expected).max() <= 1e-4 * abs(expected).max()

    run(python, tmp_path, "-m", "relcompile", "inspect", "model.z+.onnx")
    refused = subprocess.run(
        [python, "-m", "relcompile", "model.pt"], cwd=tmp_path, env=clean(), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "pip install 'relcompile[cpu]'" in refused.stderr


GPU_SAYS = """
import logging, sys
import numpy as np
import relcompile
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
explainer = relcompile.load("e.onnx")
print(explainer.providers, explainer.explain(np.ones((1, 3), np.float32), target=1).relevance.tolist())
for device in ("cuda", "tensorrt"):
    try:
        relcompile.load("e.onnx", device=device)
    except relcompile.RelcompileError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU here")
def test_the_package_for_gpus_says_that_it_runs_on_the_processor(tmp_path: Path) -> None:
    """onnxruntime-gpu without a GPU and CUDA's libraries: an error or a line in the log, and nothing silent."""
    write(tmp_path / "e.onnx")
    python = installed(tmp_path, "", "onnxruntime-gpu")
    said = run(python, tmp_path, "-c", GPU_SAYS)
    assert f"('CPUExecutionProvider',) {[W[:, 1].tolist()]}" in said
    assert re.search("INFO:relcompile.runtime:e.onnx runs on the CPU although ONNX Runtime is installed for CUDA", said)
    for device in ("cuda", "tensorrt"):
        assert f"RuntimeUnavailableError device=\"{device}\" ended on ['CPUExecutionProvider']" in said
    assert re.search(r"libc\w+\.so", said), "it names a library that is missing"
    doctor = subprocess.run(
        [python, "-m", "relcompile", "doctor"], cwd=tmp_path, env=clean(), capture_output=True, text=True, check=False
    )
    told = " ".join((doctor.stdout + doctor.stderr).split())
    assert re.search("CUDAExecutionProvider.*does not start: lacks libc.*relcompile.serve-gpu", told), told


def installed(folder: Path, extra: str, *further: str) -> Path:
    """The interpreter of a new environment with the wheel, and further packages."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    wheel = f"{next(folder.glob('*.whl'))}" + f"[{extra}]" * bool(extra)
    run(python, folder, "-m", "pip", "install", "--quiet", "--no-compile", wheel, *further)
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run([python, *arguments], cwd=folder, env=clean(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without what tells Python where else to look."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
