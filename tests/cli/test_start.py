"""What the command line imports before it is needed, and the page of one rule."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relcompile
from relcompile.cli import commands
from relcompile.cli.main import app, main
from tests.cli.test_cli import small_network

SLOW = ("torch", "onnx", "onnxruntime", "matplotlib", "PIL", "starlette", "uvicorn", "pyarrow")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["compile", "--help"], 0),
        (["calibrate", "--help"], 0),
        (["rules", "--help"], 0),
        (["rules", "--nothing"], 2),
        (["rules", "--operators", "gamma"], 2),
        (["explain"], 2),
        (["batch", "--help"], 0),
        (["demo", "--help"], 0),
        (["serve", "--help"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_help_and_usage_errors_import_nothing_slow(arguments: list[str], code: int) -> None:
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "relcompile", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {
        line.rpartition("|")[2].strip() for line in found.stderr.splitlines() if line.startswith("import time:")
    }
    assert found.returncode == code
    assert "relcompile.cli.main" in imported
    assert not imported.intersection(SLOW)


RULES: dict[str, tuple[list[str], list[str]]] = {
    "a preset": (["gamma"], ["equation", "conserves", "Montavon et al. 2019", "gamma=0.25"]),
    "of a layer": (["gamma", "--layer"], ["gamma=0.25, bias=full, epsilon=1e-06"]),
    "any α and β": (["alpha3beta2"], ["Bach et al. 2015", "bias=none"]),
    "without parameters": (["lrp-0"], ["parameters none"]),
    "needs bounds": (["zb"], ["given bounds", "source"]),
}


@pytest.mark.parametrize("name", RULES)
def test_one_rule(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, told = RULES[name]
    with pytest.raises(SystemExit) as stop:
        main(["rules", *arguments])
    out = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert all(text in out for text in told), out
    assert out.count(" parameters ") == 1  # one rule


def test_an_unknown_rule_has_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["rules", "gama"])
    assert stop.value.code == 2
    assert "nearest: gamma" in capsys.readouterr().err


def test_every_command_is_a_file() -> None:
    modules = {command.callback.__module__ for command in app.registered_commands if command.callback}
    found = Path(commands.__file__).parent.glob("[!_]*.py")
    assert modules == {f"relcompile.cli.commands.{path.stem}" for path in found}


# Before matplotlib 3.11, the first line ran the code in it.
_CODE = "l[0].gi_frame.f_back.f_back.f_back.f_builtins['__import__']('os').system('touch ran')"
SETTINGS = f"""
axes.prop_cycle : cycler(color=[x for l in [[]] for _ in [l.append(({_CODE} for _ in [1]))] for x in l[0]])
foo\x1b[31mbar : 1
"""


def test_settings_in_the_working_directory_are_not_read(tmp_path: Path) -> None:
    relcompile.compile(small_network(), torch.randn(1, 3, 16, 16)).save(tmp_path / "e.onnx")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "g.png")
    (tmp_path / "matplotlibrc").write_text(SETTINGS)
    found = subprocess.run(
        [sys.executable, "-m", "relcompile", "explain", "e.onnx", "g.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, (tmp_path / "g.z+.png").exists()) == (0, True), found.stderr
    assert "matplotlibrc" not in found.stderr
    assert "\x1b[31m" not in found.stderr
    assert not (tmp_path / "ran").exists()
