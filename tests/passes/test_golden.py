"""Printed explainer graphs are what a reviewer last read."""

from __future__ import annotations

import pytest

from tests.passes.golden.cases import CASES, FOLDER, path_of
from tests.passes.golden.printing import printed


@pytest.mark.parametrize("name", CASES)
def test_graph_is_the_printed_one(name: str) -> None:
    expected = path_of(name).read_text(encoding="utf-8")
    assert printed(CASES[name].graph()) == expected, (
        "if this is meant: python -m tests.passes.golden, and read the diff"
    )


def test_no_file_is_left_over() -> None:
    assert {path.name for path in FOLDER.glob("*.txt")} == {path_of(name).name for name in CASES}
