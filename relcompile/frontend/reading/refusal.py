"""What is said of a pickled model with names that are not allowed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

SHOWN = 8


def refusal(path: Path, names: Sequence[str], what: str, packages: Sequence[str] = ()) -> str:
    """The names, and the ways on. The names come from the file, so they are shown as `repr`."""
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    allow = " ".join(f"--allow {package}" for package in packages[:SHOWN])
    ways = [
        *([f"`{allow}` if these are nn.Module classes you trust"] if allow else []),
        "`--trust-model-file` if you trust the file: it may then run any code",
        "save `model.state_dict()` and use `--arch package.module:callable`: nothing from the file is run",
    ]
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return f"{path}: a pickled model with names {what}: {shown}{more}. Ways on: {'; '.join(ways)}."


def users_packages(names: Sequence[str]) -> list[str]:
    """For every top-level package that may be the user's, the deepest module that holds all its names."""
    modules: dict[str, list[list[str]]] = {}
    for name in names:
        top, *inner = name.split(".")[:-1]
        if name.replace(".", "_").isidentifier() and top not in (*sys.stdlib_module_names, "__main__", "torch"):
            modules.setdefault(top, []).append([top, *inner])
    return [".".join(_shared_start(parts)) for parts in modules.values()]


def _shared_start(parts: Sequence[Sequence[str]]) -> list[str]:
    return [level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))]
