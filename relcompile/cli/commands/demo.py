"""`relcompile demo`: an explainer as a static page. Needs neither torch nor onnx."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from relcompile.cli import views


def demo(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file that takes a photograph.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("site"),
    runtime: Annotated[
        Path | None,
        typer.Option(help="node_modules/onnxruntime-web/dist, of the pinned version; default: npm fetches it."),
    ] = None,
) -> None:
    """Write a static page that explains photographs in the browser; nothing leaves it.

    Any file server can serve the folder: `python -m http.server --directory site`.
    """
    from relcompile.demo.site import write_site

    write_site(explainer, out, runtime)
    views.note(f"wrote {out}; see it with: python -m http.server --directory {shlex.quote(str(out))}")
