"""The README says what the code does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from relcompile.methods import catalogue

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content"), [("rules", catalogue.markdown), ("operators", catalogue.operators_markdown)]
)
def test_tables_are_generated(name: str, content: Callable[[], str]) -> None:
    block = re.search(rf"<!-- {name}: [^>]*-->\n(.*?)\n<!-- /{name} -->", README, re.DOTALL)
    assert block is not None
    assert block[1] == content(), f"README's table of {name} is stale: put in what relcompile.methods.catalogue prints"


def test_pictures_and_files_exist() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert linked
    assert not [path for path in linked if not (Path(__file__).parents[2] / path).exists()]


def test_python_blocks_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
