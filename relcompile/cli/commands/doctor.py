"""`relcompile doctor`: what is installed, what of it works, and what to do about the rest."""

from __future__ import annotations

import platform
from importlib.util import find_spec

from relcompile.cli import views
from relcompile.errors import RuntimeUnavailableError
from relcompile.runtime.doctor import examine
from relcompile.runtime.extras import packages


def doctor() -> None:
    """What is installed, which providers of ONNX Runtime really start, and what to do about what does not work.

    Exit code 2 if no explainer can be run.
    """
    found = examine()
    extras = {
        f"extra {extra}": ", ".join(f"{name} {'is there' if find_spec(name) else 'is missing'}" for name in names)
        for extra, names in packages().items()
    }
    rows = {"Python": platform.python_version(), **{each.what: each.found for each in found}, **extras}
    views.facts("what is installed", rows)
    for each in found:
        if each.way_out:
            views.note(f"{each.what}: {each.way_out}")
    if not any((each.what, each.found) == ("CPUExecutionProvider", "starts") for each in found):
        raise RuntimeUnavailableError("no explainer can be run here: ONNX Runtime does not work")
