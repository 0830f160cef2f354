"""Set-up that failed or took gigabytes: which Python, a clone, PyTorch without CUDA, results that git would add."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PAGES = ("README.md", "docs/index.md", "docs/CONTRIBUTING.md")
CPU_ONLY = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_that_installs_says_which_python(name: str) -> None:
    """The oldest that works is said once in pyproject.toml; pages, linter and type checker say the same."""
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert re.fullmatch(r"3\.\d+", oldest)
    assert re.findall(r"Python (3\.\d+) or newer", page(name)) == [oldest]
    assert PROJECT["tool"]["pyright"]["pythonVersion"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


@pytest.mark.parametrize("name", PAGES)
def test_torch_comes_first_and_then_extras_that_exist(name: str) -> None:
    installs = re.findall(r"pip install ([^&#\n`]*)", page(name))
    asked = [extra for line in installs for extra in re.findall(r"'\.\[([\w,-]+)\]'", line)]
    assert asked
    assert {part for extra in asked for part in extra.split(",")} <= set(PROJECT["project"]["optional-dependencies"])
    assert "torch" in installs[0].split()
    assert "'.[" not in installs[0]


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_a_clone_and_torch_without_cuda(name: str) -> None:
    before, _, after = page(name).partition("pip install torch")
    assert "a clone of this repository" in before
    assert CPU_ONLY in "pip install torch" + after


IGNORED = {"out/maps/cat.png": True, "examples/out/model.onnx": True, "model.pt": True, "README.md": False}


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_git_ignores_results(tmp_path: Path) -> None:
    """As git itself reads .gitignore; and what the examples write goes there."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for path, ignored in IGNORED.items():
        found = subprocess.run(["git", "-C", tmp_path, "check-ignore", "-q", path], check=False)
        assert (found.returncode == 0) is ignored, path
    defaults = [re.findall(r'"--folder".*?Path\("(.*?)"\)', example.read_text()) for example in EXAMPLES]
    assert [folder for folders in defaults for folder in folders] == ["out"] * 2


EXAMPLES = [ROOT / "examples" / f"{name}.py" for name in ("photograph", "custom_rule")]
