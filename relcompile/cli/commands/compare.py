"""`relcompile compare A.onnx B.onnx PHOTO`: one photograph, several explainers, one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relcompile.cli import options, views
from relcompile.cli.asked import ending, targets_of
from relcompile.cli.commands.explain import check_reference_image, explain_seen, photographs_of
from relcompile.cli.photograph_files import away, prepare
from relcompile.errors import ExportError, InputSpecError
from relcompile.files.paths import atomic_path
from relcompile.runtime.explanation import Explanation
from relcompile.runtime.production import load


def compare(
    files: Annotated[list[Path], typer.Argument(help="Compiled .onnx files, and the photograph last.")],
    target: Annotated[list[int] | None, typer.Option("--target", "-t", help="Classes; default: the best one.")] = None,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="The figure. Default: PHOTO.compared.png")] = None,
    reference_image: options.ReferenceImage = None,
) -> None:
    """Draw what several explainers, or one for several classes, say about one photograph in one figure."""
    with away():
        from relcompile.pictures.comparison import comparison_figure

    *explainers, photograph = files
    if not explainers:
        raise InputSpecError("compare wants one or more explainers, and then one photograph")
    picture = out or Path(f"{photograph.stem}.compared.png")
    if picture.suffix.lower() != ".png":
        raise ExportError(f"{picture}: the suffix must be .png")
    with prepare(files, (picture,)):
        maps, view = dict[str, Any](), None
        for path in explainers:
            for name, explanation in _explained(path, photograph, tuple(target or ()), reference_image):
                maps[name if name not in maps else f"{name} ({path.name})"] = explanation.relevance[0]
                view = view or explanation.views[0]
        if view is None or len(maps) < 2:
            raise InputSpecError("there is one map only: give several explainers, or several --target")
        figure = comparison_figure(view, maps, photograph.name)
        with atomic_path(picture) as temporary:
            figure.savefig(temporary, format="png")
        views.note(f"wrote {picture}")


def _explained(
    path: Path, photograph: Path, targets: tuple[int, ...], reference: str | None
) -> list[tuple[str, Explanation]]:
    """Title and explanation of every class."""
    from dataclasses import replace

    explainer = load(path)
    photographs = photographs_of(explainer)
    wanted = None if explainer.metadata.reference_input is None else reference
    check_reference_image(explainer, wanted)
    seen = photographs.read(photograph)
    found = list[tuple[str, Explanation]]()
    for target in targets_of(explainer.metadata, targets):
        explanation = replace(explain_seen(explainer, photographs, [seen], target, wanted), views=(seen.view,))
        found += [(" · ".join((*ending(explainer.metadata, None), one.chosen()[1])), one) for one in explanation.each()]
    return found
