"""`relcompile report RUN.parquet`: an evaluation as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relcompile.cli import views
from relcompile.cli.photograph_files import away
from relcompile.files.paths import atomic_path, beside, keep_inputs
from relcompile.runtime.extras import require


def report(
    run: Annotated[Path, typer.Argument(help="What `relcompile evaluate` wrote.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="The page. Default: RUN.html")] = None,
) -> None:
    """Draw an evaluation as one HTML page that needs no network: verdict, figures, maps, rules of layers."""
    require("evaluate")
    with away():
        from relcompile.evaluation.report import page
        from relcompile.evaluation.results import Results
    target = out or beside(run, f"{run.stem}.html")
    keep_inputs((run,), (target,))
    text = page(Results.load(run))
    with views.replacing([target]), atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    views.note(f"wrote {target}")
