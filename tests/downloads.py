"""What heavy tests fetch from package registries: once, and kept for the next run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def kept(name: str, fetch: Callable[[Path], object]) -> Path:
    """The folder of this name, filled by `fetch` if it is not there: as a whole or not at all."""
    home = Path(tempfile.gettempdir(), f"relcompile-tests-{os.getuid()}")
    home.mkdir(0o700, exist_ok=True)
    assert home.stat().st_uid == os.getuid(), f"{home} is somebody else's"
    folder = home / name
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=home) as made:
            part = Path(made, name)
            part.mkdir()
            fetch(part)
            part.rename(folder)
    return folder
