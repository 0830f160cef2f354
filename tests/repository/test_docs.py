"""README and the pages of the site say what the code does."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn

import passes.errors
import relcompile.errors
from benchmarks.parts.server_process import running
from relcompile.cli.main import app
from relcompile.methods.presets import PRESETS
from relcompile.methods.spelling import named
from relcompile.question.automatic import AUTO

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
COMMANDS: Any = typer.main.get_command(app)


class Scores(nn.Module):
    """300 classes of an image of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 300)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}(?: [^\n]*)?\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def pages_with(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


def test_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") <= 150


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page: str) -> None:
    folder = ROOT if page == "README.md" else ROOT / "docs"
    made = {"changelog.md", "decisions/index.md"}  # by docs/generated.py
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    linked = re.findall(r"\]\((?!http)([^)#{]+)[^)]*\)", prose)
    assert not [path for path in linked if path not in made and not (folder / path).exists()]


@pytest.mark.parametrize("page", ["architecture.md", "CONTRIBUTING.md"])
def test_named_files_exist(page: str) -> None:
    named = re.findall(r"`((?:passes|relcompile|tests|docs|frontend|backend|question)/[\w./]*)`", PAGES[page])
    assert len(named) > 5
    assert not [path for path in named if not any((root / path).exists() for root in (ROOT, ROOT / "relcompile"))]


def test_readme_and_start_page_name_rules_that_exist() -> None:
    families = PAGES["README.md"].partition("## Rules")[2].partition("\n## ")[0]
    rows = [row for row in families.splitlines() if row.startswith("| ")][1:]
    named = {name for row in rows for name in re.findall(r"`([^`=]+)(?:=[^`]*)?`", row)} - {
        "alphaAbetaB",
        "--rule",
        AUTO,
    }
    linked = set(re.findall(r"\[`([^`]+)`\]\(rules", PAGES["index.md"]))
    assert len(named) > 30
    assert (named | linked) <= set(PRESETS)


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_know_their_options(page: str) -> None:
    lines = [line for block in blocks(page, "bash") for line in re.findall(r"^relcompile (.*)$", block, re.MULTILINE)]
    for line in lines:
        words = line.partition("#")[0].split()
        command = COMMANDS.commands[words[0] if words[0] in COMMANDS.commands else "compile"]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_composite_file_is_read(tmp_path: Path) -> None:
    (text,) = blocks("command-line.md", "toml")
    assert tomllib.loads(text)["base"] == "epsilon"
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert len(named(str(tmp_path / "mine.toml")).entries) == len(named("epsilon").entries) + 2


def test_every_fault_points_to_a_test() -> None:
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)` \|$", PAGES["faults.md"], re.MULTILINE)
    faults = [
        line for line in PAGES["faults.md"].splitlines() if line.startswith("| ") and not line.startswith("| fault")
    ]
    assert len(named) == len(faults) > 30
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file} has no {test}"


def test_every_refusal_has_a_section() -> None:
    classes = [*vars(relcompile.errors).values(), *vars(passes.errors).values()]
    names = {c.__name__ for c in classes if isinstance(c, type)} - {"RelcompileError", "PassError"}
    missing = {name for name in names if not re.search(rf"^## {name}$|`{name}`", PAGES["refusals.md"], re.MULTILINE)}
    assert not missing


def test_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its blocks, one after the other, on a small network with 300 classes."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    names: dict[str, Any] = {
        "model": Scores(),
        "example_inputs": x,
        "x": x,
        "target": torch.tensor([281, 5]),
        "array": x.numpy(),
        "batches": [torch.randn(8, 3, 6, 6)],
        "reference": torch.zeros(2, 3, 6, 6),
        "noise": torch.randn(2, 25, 3, 6, 6),
    }
    for number, block in enumerate(blocks("python.md", "python")):
        exec(compile(block, f"python.md, block {number}", "exec"), names)
    assert np.isfinite(names["explanation"].relevance).all()


def test_questions_page_runs() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {"model": Scores(), "x": torch.randn(2, 3, 6, 6), "target": torch.tensor([281, 5])}
    exec("import torch, relcompile", names)
    for number, block in enumerate(blocks("questions.md", "python")):
        exec(compile(block, f"questions.md, block {number}", "exec"), names)
    assert names["classes"].shape == (2, 5)
    assert names["maps"].shape == (2, 4, 3, 6, 6)


def test_onnx_page_runs_without_relcompile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relcompile.compile(Scores(), torch.randn(1, 3, 4, 4)).save("model.z+.onnx")
    program = "\n".join(blocks("onnx.md", "python"))
    for name in ("relcompile", "torch", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    names: dict[str, Any] = {"image": np.ones((1, 3, 4, 4), np.float32)}
    exec(compile(program, "onnx.md", "exec"), names)
    assert names["relevance"].shape == (1, 3, 4, 4)


def test_serving_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client, a pair, and a client of the pair."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    relcompile.compile(Scores(), torch.randn(1, 3, 4, 4)).save("model.z+.onnx", pair=True)
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    names: dict[str, Any] = {"array": array, "classes": np.array([281, 5]), "images": array}
    with running("model.z+.onnx") as (address, _):
        for number, block in enumerate(blocks("serving.md", "python")[:3]):
            exec(compile(block.replace("127.0.0.1:8000", address), f"serving.md, block {number}", "exec"), names)
            names[f"found {number}"] = names["found"]
    everything, below, none = (names[f"found {number}"] for number in range(3))
    assert everything.as_numpy("relevance").shape == (2, 3, 4, 4)
    assert below.explained.tolist() == none.as_numpy("explained").tolist() == [False, False]
    assert none.as_numpy("relevance").shape == (0, 3, 4, 4)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_compile(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block, page, "exec")


def test_version_is_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'"version": "{version}"' in (ROOT / ".zenodo.json").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in PAGES["README.md"]


def test_the_live_example_is_part_of_the_site_where_it_has_been_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from docs import generated

    monkeypatch.setattr(generated, "DEMO", tmp_path / "demo")
    generated.on_post_build({"site_dir": str(tmp_path / "site")})
    assert "iframe" not in generated.on_page_markdown(PAGES["live.md"])
    assert ".ci/site" in generated.on_page_markdown(PAGES["live.md"])
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("page", encoding="utf-8")
    generated.on_post_build({"site_dir": str(tmp_path / "site")})
    assert 'src="demo/index.html"' in generated.on_page_markdown(PAGES["live.md"])
    assert (tmp_path / "site" / "demo" / "index.html").read_text(encoding="utf-8") == "page"
