"""`relcompile inspect EXPLAINER`: what a file says of itself, or how far its learned roots went. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from zipfile import ZipFile

import numpy as np
import typer

from relcompile.cli import views
from relcompile.cli.commands.explain import explain_seen, photographs_of
from relcompile.errors import ExplainerFileError, InputSpecError, RelcompileError
from relcompile.files.arrays import native, read_arrays
from relcompile.files.onnx_bounds import LARGEST_EXPLAINER
from relcompile.files.paths import open_input
from relcompile.files.text import printable
from relcompile.metadata import SOURCE_KEY
from relcompile.runtime.production import Explanation, ProductionExplainer, load

_LONGEST_SOURCE: Final = 2**26  # bytes
Array: TypeAlias = np.ndarray[Any, Any]


def inspect(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    roots: Annotated[
        Path | None, typer.Option(help="A photograph, or an .npz of the inputs: report on its learned roots.")
    ] = None,
    target: Annotated[int | None, typer.Option("--target", "-t", help="A class; default: the best one.")] = None,
    python: Annotated[bool, typer.Option("--python", help="Print the graph of a .pt2 file as Python.")] = False,
) -> None:
    """What an explainer file holds: inputs, outputs, target, and the rule of every layer."""
    if python:
        return typer.echo(python_in(explainer), nl=False)
    if target is not None and roots is None:
        raise InputSpecError("--target is the class of the report on roots: give --roots too, or leave it out")
    production = load(explainer, device="cpu")
    if roots is not None:
        return report_roots(production, roots, target)
    views.metadata(production.metadata)
    return views.layers(production.metadata.layers)


def python_in(path: Path) -> str:
    """The source that was stored in a .pt2 file when it was written; nothing of the file is run.

    Raises:
        ExplainerFileError: there is none, or it is not text that a terminal can be given.
    """
    try:
        with open_input(path, "the explainer", LARGEST_EXPLAINER, ExplainerFileError) as file, ZipFile(file) as archive:
            (member,) = [info for info in archive.infolist() if info.filename.endswith(f"/{SOURCE_KEY}")]
            if member.file_size > _LONGEST_SOURCE:
                raise ValueError(f"it is longer than {_LONGEST_SOURCE:,} bytes")
            source = archive.read(member).decode("ascii")
    except RelcompileError:
        raise
    except Exception as error:  # zipfile also raises EOFError, zlib.error, struct.error and more
        raise ExplainerFileError(
            f"{path} holds no Python source ({error}); .pt2 files do: compile with -o explainer.pt2"
        ) from error
    if printable(source.replace("\n", " ")) != source.replace("\n", " "):
        raise ExplainerFileError(f"{path} holds a source with control characters, which relcompile did not write")
    return source


def report_roots(explainer: ProductionExplainer, path: Path, target: int | None) -> None:
    """Print the report on learned roots, averaged over the samples in `path` (a photograph, or an .npz).

    Raises:
        RelcompileError: the explainer reports no roots, or `path` is no input of it.
    """
    record = explainer.metadata.roots
    if record is None:
        raise InputSpecError(
            "this explainer reports no roots; compile it again with --roots and a rule that learns them"
        )
    if explainer.metadata.target.questions is not None:
        raise InputSpecError(
            "this explainer has several targets, and so as many reports; use relcompile.load in Python"
        )
    explanation = _explanation(explainer, path, target)
    if explanation.roots is None:
        raise InputSpecError("this explainer promises a report on roots and does not compute it")
    views.roots(record, explanation.roots.mean(0).tolist(), f"roots of {path.name}, rule {explainer.metadata.rule}")


def _explanation(explainer: ProductionExplainer, path: Path, target: int | None) -> Explanation:
    if path.suffix.lower() == ".npz":
        return explainer.explain(*_arrays(explainer, path), target=_class(explainer, target))
    photographs = photographs_of(explainer)
    return explain_seen(explainer, photographs, [photographs.read(path)], target, None)


def _arrays(explainer: ProductionExplainer, path: Path) -> list[Array]:
    """The inputs by name."""
    wanted, stored = [record.name for record in explainer.metadata.inputs], read_arrays(path, "the input")
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise InputSpecError(f"{path} lacks the inputs {', '.join(missing)}; it holds {', '.join(stored)}")
    return [native(stored[name]) for name in wanted]


def _class(explainer: ProductionExplainer, target: int | None) -> int | None:
    if explainer.metadata.target.takes_class and target is None:
        raise InputSpecError("say which class to explain with --target")
    return target
