"""What builds releases, containers and the site names options, extras and files that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from relcompile.cli.main import app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "examples" / "serving" / "Dockerfile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_container_installs_and_starts_what_there_is() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    assert arguments["VERSION"] == PROJECT["version"]
    assert {arguments["EXTRA"], *re.findall(r"EXTRA=([\w-]+)", DOCKERFILE)} <= PROJECT["optional-dependencies"].keys()
    entry = re.search(r'^ENTRYPOINT \["relcompile", "(\w+)", (.*)\]$', DOCKERFILE, re.MULTILINE)
    assert entry is not None
    commands: Any = typer.main.get_command(app)
    known = {name for parameter in commands.commands[entry[1]].params for name in parameter.opts}
    assert set(re.findall(r'"(--[\w-]+)"', entry[2])) <= known


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_there_is(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    scripts = [line for line in lines if line.startswith(".ci/")]
    assert scripts
    assert all((ROOT / script).stat().st_mode & 0o100 for script in scripts)
    extras = {extra for line in lines for found in re.findall(r"\.\[([\w,-]+)\]", line) for extra in found.split(",")}
    assert extras <= PROJECT["optional-dependencies"].keys()
    assert all(0 < job["timeout-minutes"] <= 60 for job in jobs.values())
