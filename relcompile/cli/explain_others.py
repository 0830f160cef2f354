"""`relcompile explain` for token models and for series: texts and .npy files in, coloured text and line plots out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from relcompile.cli import views
from relcompile.cli.asked import Asked, ending
from relcompile.cli.photograph_files import Job, prepare
from relcompile.errors import InputSpecError
from relcompile.files.arrays import map_array, native
from relcompile.files.paths import atomic_path, read_text, save_arrays
from relcompile.metadata import Metadata
from relcompile.pictures.text import ColouredText, page
from relcompile.pictures.tokens import Read, Tokenizer
from relcompile.runtime.best import explain_best
from relcompile.runtime.explanation import Explanation
from relcompile.runtime.production import ProductionExplainer

Array: TypeAlias = np.ndarray[Any, Any]
_LARGEST_TEXTS: Final = 2**24  # bytes of a file with texts
_MOST_TEXTS: Final = 64  # at a time


@dataclass(frozen=True)
class Wanted:
    """What is wanted for every file.

    Attributes:
        targets: classes, or entries by their indices; None: the best class.
        folder: where results go.
        top: how many classes are printed.
        arrays_only: nothing is drawn.
    """

    targets: Sequence[Asked]
    folder: Path
    top: int
    arrays_only: bool

    def written(self, job: Job, explainer: ProductionExplainer, target: Asked, drawn: str) -> list[Path]:
        """The files for one class: the arrays, and what is drawn."""
        name = ending(explainer.metadata, target)
        return [job.written(name, suffix) for suffix in ((".npz",) if self.arrays_only else (".npz", drawn))]


def is_series(metadata: Metadata) -> bool:
    """One input of floating point numbers, (batch, steps) or (batch, channels, steps)."""
    (first, *others) = metadata.inputs
    return not others and first.dtype.startswith("float") and len(first.shape) in (2, 3)


def explain_texts(
    explainer: ProductionExplainer, files: Sequence[Path], given: Sequence[str], tokenizer: Path, wanted: Wanted
) -> None:
    """Print coloured text, and write a page of HTML and the arrays of every file; each line of a file is a text.

    Args:
        explainer: of a token model.
        files: with texts.
        given: texts, as a file called "text" would hold them.
        tokenizer: a tokenizer.json.
        wanted: what is wanted for each file.
    """
    reader = Tokenizer(explainer.metadata, tokenizer)
    texts = {Job(path, wanted.folder / path.stem): _lines(path) for path in files}
    texts |= {Job(Path("text"), wanted.folder / "text"): list(given)} if given else {}
    _refuse_questions(explainer.metadata)
    with prepare((tokenizer, *files), _all_written(explainer, texts, wanted, ".html")):
        for (job, lines), target in product(texts.items(), wanted.targets):
            paths = wanted.written(job, explainer, target, ".html")
            _explain_lines(explainer, reader, lines, target, wanted, paths)


def explain_series(explainer: ProductionExplainer, files: Sequence[Path], wanted: Wanted) -> None:
    """Draw the series in every .npy file, (steps), (channels, steps) or a batch of them, over their relevance."""
    _refuse_questions(explainer.metadata)
    jobs = [Job(path, wanted.folder / path.stem) for path in files]
    batches = {job: _series(explainer.metadata, job.path) for job in jobs}
    rows = {row: value for job, batch in batches.items() for row, value in _rows(job, batch)}
    with prepare(files, _all_written(explainer, rows, wanted, ".png")):
        for (job, array), target in product(rows.items(), wanted.targets):
            paths = wanted.written(job, explainer, target, ".png")
            _draw_series(job, array, _explained(explainer, [array[None]], target), wanted, paths)


def _explain_lines(
    explainer: ProductionExplainer,
    reader: Tokenizer,
    lines: Sequence[str],
    target: Asked,
    wanted: Wanted,
    paths: Sequence[Path],
) -> None:
    found = list[tuple[ColouredText, dict[str, Array]]]()
    for start in range(0, len(lines), _MOST_TEXTS):
        inputs, rows = reader.read(lines[start : start + _MOST_TEXTS])
        explanation = _explained(explainer, inputs, target)
        found += [(_coloured(explanation, k, row), _arrays(explanation, k, row)) for k, row in enumerate(rows)]
    for text, _ in found[: max(1, wanted.top)]:
        views.coloured_text(text)
    save_arrays(
        paths[0], **{f"{name}_{k}": value for k, (_, arrays) in enumerate(found) for name, value in arrays.items()}
    )
    for path in paths[1:]:
        with atomic_path(path) as temporary:
            temporary.write_text(page(" · ".join(explainer.metadata.name), [text for text, _ in found]), "utf-8")
    views.note(f"wrote {' and '.join(map(str, paths))}")


def _draw_series(job: Job, series: Array, explanation: Explanation, wanted: Wanted, paths: Sequence[Path]) -> None:
    if not explanation.finite[0]:
        raise InputSpecError(
            f"{job.path}: NaN or infinity in the series, the prediction or the relevance: there is no map"
        )
    scores, relevance = explanation.scores(0), explanation.relevance[0]
    order = np.argsort(-scores)[: wanted.top]
    views.classes(job.stem.name, [(explanation.label(int(k)), float(scores[k])) for k in order])
    save_arrays(paths[0], relevance=relevance, output=explanation.output[0], target=np.array(explanation.chosen(0)[0]))
    for path in paths[1:]:
        from relcompile.pictures.series import series_figure

        with atomic_path(path) as temporary:
            series_figure(series, relevance, explanation.title(0)).savefig(temporary, format="png")
    views.note(f"wrote {' and '.join(map(str, paths))}")


def _coloured(explanation: Explanation, row: int, read: Read) -> ColouredText:
    if not explanation.finite[row]:
        raise InputSpecError(f"{read.text[:40]!r}: NaN or infinity in the prediction or the relevance: there is no map")
    values = explanation.relevance[row, read.first : read.first + len(read.pieces)]
    note = f"{read.cut} tokens did not fit and were cut off." if read.cut else ""
    return ColouredText(explanation.title(row), read.text, read.pieces, tuple(map(float, values)), note)


def _arrays(explanation: Explanation, row: int, read: Read) -> dict[str, Array]:
    place = slice(read.first, read.first + len(read.pieces))
    return {
        "relevance": explanation.relevance[row, place],
        "tokens": np.array([piece.token for piece in read.pieces]),
        "spans": np.array([(piece.start, piece.end) for piece in read.pieces]),
        "output": explanation.output[row],
        "target": np.array(explanation.chosen(row)[0]),
    }


def _explained(explainer: ProductionExplainer, inputs: Sequence[Array], target: Asked) -> Explanation:
    return explain_best(explainer, *inputs) if target is None else explainer.explain(*inputs, target=target)


def _refuse_questions(metadata: Metadata) -> None:
    if metadata.target.questions is not None or metadata.target.takes_seed or metadata.reference_input is not None:
        raise InputSpecError(
            "this explainer takes a seed, a reference or several targets: use relcompile.load in Python"
        )


def _all_written(explainer: ProductionExplainer, jobs: Iterable[Job], wanted: Wanted, drawn: str) -> list[Path]:
    return [path for job in jobs for target in wanted.targets for path in wanted.written(job, explainer, target, drawn)]


def _lines(path: Path) -> list[str]:
    lines = [line for line in read_text(path, "the texts", _LARGEST_TEXTS).splitlines() if line.strip()]
    if not lines:
        raise InputSpecError(f"there is no text in {path}")
    return lines


def _series(metadata: Metadata, path: Path) -> Array:
    """The batch in a file, as the explainer takes it."""
    record, array = metadata.inputs[0], native(map_array(path, "the series"))
    missing = len(record.shape) - array.ndim
    if missing == 1 or (missing == 2 and record.shape[1] == 1):
        array = array.reshape((1,) * missing + array.shape)
    if array.ndim != len(record.shape):
        raise InputSpecError(
            f"{path} holds {array.shape}; the explainer takes {list(record.shape)}, or one sample of that"
        )
    return array.astype(record.dtype)


def _rows(job: Job, batch: Array) -> Iterable[tuple[Job, Array]]:
    """Every sample of a file on its own; numbered if there are several."""
    if len(batch) == 1:
        return [(job, batch[0])]
    return [(Job(job.path, job.stem.with_name(f"{job.stem.name}-{k}")), row) for k, row in enumerate(batch)]
