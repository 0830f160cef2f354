"""What runs an explainer, installed where nothing else is."""

from __future__ import annotations

import os
import re
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

ROOT = Path(__file__).parents[2]
# Bytes of the environment without pip, what it came with, and bytecode; numpy and ONNX Runtime alone are 127 * 2^20.
MOST = 150 * 2**20


@pytest.mark.parametrize("module", ["torch", "onnx.helper", "PIL.Image", "starlette", "pyarrow", "ray"])
def test_a_missing_package_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = way_out(ModuleNotFoundError("no", name=module))
    assert told is not None
    extra = re.search(r"relcompile\[([\w-]+)\]", told)
    assert extra is not None
    assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()
    assert way_out(ModuleNotFoundError("no", name="my_models")) is None


@pytest.mark.heavy
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
    assert size < MOST, f"{size / 2**20:.0f} MiB"
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


def installed(folder: Path, extra: str) -> Path:
    """The interpreter of a new environment with the wheel."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, folder, "-m", "pip", "install", "--quiet", "--no-compile", f"{next(folder.glob('*.whl'))}[{extra}]")
    return python


def run(python: Path, folder: Path, *arguments: str) -> None:
    done = subprocess.run([python, *arguments], cwd=folder, env=clean(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def clean() -> dict[str, str]:
    """The environment without what tells Python where else to look."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
