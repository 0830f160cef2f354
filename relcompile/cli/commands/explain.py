"""`relcompile explain`: photographs in, heatmaps and arrays out. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import numpy as np
import typer

from relcompile.cli import options, views
from relcompile.cli.asked import Asked, ending, targets_of
from relcompile.cli.explain_others import Wanted, explain_series, explain_texts, is_series
from relcompile.cli.photograph_files import Job, away, jobs_of, prepare
from relcompile.errors import InputSpecError, RelcompileError
from relcompile.files.paths import atomic_path, save_arrays
from relcompile.pictures.tokens import is_token_model, tokenizer_beside
from relcompile.runtime.best import explain_best
from relcompile.runtime.explanation import Explanation
from relcompile.runtime.options import Device
from relcompile.runtime.production import ProductionExplainer, load

if TYPE_CHECKING:
    from relcompile.pictures.heatmap import Style
    from relcompile.pictures.photographs import Photographs, Seen

Array: TypeAlias = np.ndarray[Any, Any]
_MOST_LAYERS = 5  # shown of what layers absorb


@dataclass(frozen=True)
class Request:
    """What is wanted for every photograph.

    Attributes:
        targets: classes, or the indices of an entry; none: the best class.
        folder: where maps go.
        top: how many classes are printed.
        batch: photographs at a time.
        arrays_only: no pictures.
        style: how they are drawn.
        full: the map lies over the photograph's own pixels.
        reference: the picture that differences are taken from, if the explainer asks for one.
    """

    targets: tuple[int, ...]
    folder: Path
    top: int
    batch: int
    arrays_only: bool
    style: Style
    full: bool
    reference: str | None

    @property
    def is_styled(self) -> bool:
        """The user says how one map is drawn."""
        return self.full or self.style != type(self.style)()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of what is written for a photograph."""
        return (".npz",) if self.arrays_only else (".png", ".npz")


def explain(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Photographs, folders of them, or globs; texts, a line each; series in .npy files."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text to explain, for token models; may be repeated.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The tokenizer.json of a token model; default: the one beside EXPLAINER.")
    ] = None,
    target: Annotated[
        list[int] | None,
        typer.Option("--target", "-t", help="Classes, or the indices of an entry; default: the best class."),
    ] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the heatmaps.")] = Path(),
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
    batch: Annotated[int, typer.Option(help="Photographs at a time.", min=1)] = 8,
    reference_image: options.ReferenceImage = None,
    no_png: Annotated[bool, typer.Option("--no-png", help="Write the arrays alone.")] = False,
    overlay_only: Annotated[bool, typer.Option("--overlay-only", help="Draw the overlay alone, without text.")] = False,
    full_resolution: Annotated[
        bool, typer.Option("--full-resolution", help="Draw over the photograph's own pixels.")
    ] = False,
    colormap: Annotated[str, typer.Option(help="Of matplotlib; its middle is no relevance.")] = "RdBu_r",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
) -> None:
    """Explain photographs: a heatmap (PHOTO.EXPLAINER.png) and the arrays (.npz) of each.

    EXPLAINER is model, rule, rules of layers, target and layer. A photograph that cannot be read stops nothing: it is
    listed at the end, and the exit code is 2. Token models explain texts (FILE.EXPLAINER.html), models of one or two
    axes series (a line plot).
    """
    with away():
        from relcompile.pictures.heatmap import Style

    request = Request(
        tuple(target or ()), out, top, batch, no_png, Style(colormap, overlay_only), full_resolution, reference_image
    )
    if no_png and request.is_styled:
        raise InputSpecError("--no-png draws nothing: leave --overlay-only, --full-resolution and --colormap out")
    production, given, texts = load(explainer, device=cast("Device", device)), files or [], text or []
    wanted = Wanted(targets_of(production.metadata, request.targets), out, top, no_png)
    if not given and not texts:
        raise InputSpecError("there is nothing to explain: give files, or --text for a token model")
    if is_token_model(production.metadata):
        explain_texts(production, given, texts, tokenizer or tokenizer_beside(explainer), wanted)
    elif texts or tokenizer:
        raise InputSpecError("--text and --tokenizer are for token models, and this explainer takes numbers")
    elif is_series(production.metadata) and all(path.suffix.lower() == ".npy" for path in given):
        explain_series(production, given, wanted)
    else:
        explain_photographs(production, explainer, given, request)


def explain_photographs(explainer: ProductionExplainer, path: Path, given: Sequence[Path], request: Request) -> None:
    """What `explain_all` does with the photographs in `given`, once it is known that nothing that is read is lost."""
    if explainer.metadata.target.questions is not None and request.is_styled:
        raise InputSpecError(
            "this explainer draws a row of maps: leave --overlay-only, --full-resolution and --colormap out"
        )
    jobs = jobs_of(given, request.folder)
    names = [ending(explainer.metadata, target) for target in targets_of(explainer.metadata, request.targets)]
    written = [job.written(name, suffix) for job in jobs for name in names for suffix in request.suffixes]
    with prepare((path, *(job.path for job in jobs)), written):
        explain_all(explainer, jobs, request)


def explain_all(explainer: ProductionExplainer, jobs: Sequence[Job], request: Request) -> None:
    """Write what was asked for, batch by batch.

    Raises:
        InputSpecError: the explainer takes no photographs; or lists those that could not be explained, in the end.
    """
    photographs = photographs_of(explainer)
    check_reference_image(explainer, request.reference)
    failed = dict[Path, str]()
    with views.progress_bar("explain", len(jobs)) as tell:
        for start in range(0, len(jobs), request.batch):
            chunk = jobs[start : start + request.batch]
            _explain_batch(explainer, photographs, chunk, request, failed)
            tell(start + len(chunk))
    if failed:
        listing = "\n".join(f"  {path}: {reason}" for path, reason in failed.items())
        raise InputSpecError(f"{len(failed)} of {len(jobs)} photographs could not be explained:\n{listing}")


def _explain_batch(
    explainer: ProductionExplainer,
    photographs: Photographs,
    jobs: Sequence[Job],
    request: Request,
    failed: dict[Path, str],
) -> None:
    """Explain those that can be read; a reason in `failed` for the others."""
    read: list[tuple[Job, Seen]] = []
    for job in jobs:
        try:
            read.append((job, photographs.read(job.path)))
        except RelcompileError as error:
            failed[job.path] = str(error)
    if not read:
        return
    seen = [one for _, one in read]
    for target in targets_of(explainer.metadata, request.targets):
        explanation = explain_seen(explainer, photographs, seen, target, request.reference)
        for row, (job, one) in enumerate(read):
            try:
                _write(job, one, explanation, row, request, ending(explainer.metadata, target))
            except RelcompileError as error:
                failed[job.path] = str(error)


def photographs_of(explainer: ProductionExplainer) -> Photographs:
    """How photographs become the input of the explainer; what happens to them is printed."""
    from relcompile.pictures.photographs import Photographs

    found = Photographs.of(explainer.metadata)
    if explainer.metadata.target.takes_seed:
        raise InputSpecError("this explainer takes a relevance seed; use relcompile.load in Python")
    if found.assumption is not None:
        views.note(found.assumption)
    views.note(f"photographs: {found.steps}")
    return found


def check_reference_image(explainer: ProductionExplainer, reference: str | None) -> None:
    """A reference goes where one is taken, and only there.

    Raises:
        InputSpecError: it does not.
    """
    taken = explainer.metadata.reference_input is not None
    if taken != (reference is not None):
        raise InputSpecError(
            "this explainer takes a reference: give --reference-image mean, black, blur or a picture's file"
            if taken
            else "--reference-image: this explainer takes no reference at run time; compile it with --reference input"
        )


def explain_seen(
    explainer: ProductionExplainer,
    photographs: Photographs,
    seen: Sequence[Seen],
    target: Asked,
    reference: str | None,
) -> Explanation:
    """Explain `target`, or the best class of each if none is given; a first run then only finds out which that is."""
    array = np.concatenate([one.array for one in seen])
    pictures = None if reference is None else [photographs.reference(reference, one.view) for one in seen]
    differs_from = None if pictures is None else np.concatenate(pictures)
    if target is None:
        return explain_best(explainer, array, reference=differs_from)
    return explainer.explain(array, target=target, reference=differs_from)


def _write(job: Job, seen: Seen, explanation: Explanation, row: int, request: Request, name: Sequence[str]) -> None:
    """Print the classes of one photograph; write its picture and its arrays."""
    from relcompile.pictures.heatmap import save_heatmap

    if not explanation.finite[row]:
        raise InputSpecError("NaN or infinity in the input, the prediction or the relevance: there is no map")
    scores, relevance = explanation.scores(row), explanation.relevance[row]
    order = np.argsort(-scores)[: request.top]
    views.classes(job.path.name, [(explanation.label(int(k)), float(scores[k])) for k in order])
    chosen = np.array([one.chosen(row)[0] for one in explanation.each()])
    several = explanation.metadata.target.questions is not None
    arrays = {"relevance": relevance, "output": explanation.output[row], "target": chosen if several else chosen[0]}
    if explanation.absorbed is not None:
        arrays["absorbed"] = explanation.absorbed[row]
    for one in explanation.each() if explanation.absorbed is not None else ():
        views.facts(f"absorbed by biases and stabilisers, {one.chosen(row)[1]}", _absorbed(one, row))
    paths = [job.written(name, suffix) for suffix in request.suffixes]
    if not request.arrays_only and several:
        _save_row(paths[0], explanation, row, seen, job.path.name)
    elif not request.arrays_only:
        view = seen.whole if request.full else seen.view
        save_heatmap(paths[0], relevance, view, explanation.title(row), request.style)
    save_arrays(paths[-1], **arrays)
    views.note(f"wrote {' and '.join(map(str, paths))}")


def _save_row(path: Path, explanation: Explanation, row: int, seen: Seen, photograph: str) -> None:
    """One map for each of several targets."""
    from relcompile.pictures.comparison import comparison_figure

    title = " · ".join((photograph, *explanation.metadata.name))
    figure = comparison_figure(seen.view, explanation.maps(row), title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _absorbed(explanation: Explanation, row: int) -> dict[str, str]:
    """All of it, and the layers that absorb most."""
    values: Array = np.zeros(0) if explanation.absorbed is None else explanation.absorbed[row]
    records = explanation.metadata.layers
    most = np.argsort(-np.abs(values))[:_MOST_LAYERS]
    layers = {f"{records[k].name} ({records[k].operator})": f"{values[k]:.4g}" for k in most if values[k]}
    return {"in all": f"{values.sum():.4g} of {explanation.chosen(row)[2]:.4g}", **layers}
