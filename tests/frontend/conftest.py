"""A package of models that is not installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frontend.zoo import MODELS_SOURCE, PACKAGE, forget_zoo


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the working directory, not imported yet; forgotten afterwards."""
    for name in ("models", "models_evil"):
        (tmp_path / PACKAGE / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / PACKAGE / f"{name}.py").write_text(MODELS_SOURCE)
    (tmp_path / PACKAGE / "__init__.py").write_text(f"import {PACKAGE}.models")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget_zoo()
