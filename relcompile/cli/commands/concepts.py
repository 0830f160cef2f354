"""`relcompile concepts`: compile for a layer, stream over photographs, write and draw; resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from relcompile.cli import options, views
from relcompile.cli.commands.compile import captured_model, report
from relcompile.cli.commands.explain import photographs_of
from relcompile.cli.confined import Child, Console, Place
from relcompile.errors import CalibrationError, InputSpecError
from relcompile.files.paths import atomic_path, beside, keep_inputs, plain_name, refuse_links
from relcompile.runtime.production import ProductionExplainer, load

if TYPE_CHECKING:
    from relcompile.calibration.data import ImageFolder
    from relcompile.concepts.figure import Row
    from relcompile.concepts.maximisation import Concepts
    from relcompile.pictures.photographs import Photographs


def concepts(
    context: typer.Context,
    file: options.ModelFile,
    data: Annotated[Path, typer.Argument(help="A folder of photographs.")],
    pixels: options.Pixels,
    layer: Annotated[str, typer.Option("--layer", help="The layer whose channels are looked at.")],
    rule: options.Rule = "epsilon-plus",
    target: Annotated[str, typer.Option("--target", "-t", help="argmax or a class number.")] = "argmax",
    picture: Annotated[Path | None, typer.Option(help="A photograph: its most relevant channels are drawn.")] = None,
    count: Annotated[int, typer.Option(help="Samples that are kept for every channel.", min=1)] = 8,
    rows: Annotated[int, typer.Option(help="Channels that are drawn.", min=1)] = 10,
    batch: Annotated[int, typer.Option(help="Photographs at a time.", min=1)] = 8,
    samples: Annotated[int | None, typer.Option(help="At most so many of them, evenly spaced.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file. Default: MODEL.LAYER.concepts.safetensors")
    ] = None,
    inputs: options.Inputs = None,
) -> None:
    """Find, for every channel of a layer, the photographs in which it is most relevant, and draw them (.png).

    With --picture also what speaks for the class of one photograph: its most relevant channels, the map of what passes
    each of them, and the photographs that tell what the channel stands for (.PICTURE.png). A file of the same model,
    layer, rule, target and photographs is used again.
    """
    if target != "argmax" and not target.isdecimal():
        raise InputSpecError(f"--target {target!r}: concepts are of the best class, argmax, or of a class number")
    asked = _Layer(layer, target, rule, file, pixels, tuple(inputs or ()))
    if isinstance(context.obj, Child):
        return asked.compile(context.obj.file, context.obj)
    output = out or beside(file.model, f"{file.model.stem}.{plain_name(layer)}.concepts.safetensors")
    endings = ["png", *([] if picture is None else [f"{picture.stem}.png"])]
    drawn = [beside(output, f"{output.stem}.{ending}") for ending in endings]
    keep_inputs([file.model, picture], [output, *drawn])
    if picture is not None:
        from relcompile.pictures.images import load_image

        load_image(picture)  # before hours of work
    context.with_resource(views.replacing([output, *drawn]))
    refuse_links([output, *drawn] if out is None else drawn)
    reader, masked = asked.explainers(context.obj)
    photographs = photographs_of(reader)
    folder = _folder(data, photographs, reader, samples)
    found = _found(reader, folder, output, count, batch, resume=resume)
    _report(found, output)
    return _Drawing(masked, photographs, folder, found, rows).all(reader, picture, drawn)


@dataclass(frozen=True)
class _Layer:
    """A layer of a model file, and what its relevance is to be."""

    name: str
    target: str
    rule: str
    file: options.ModelFile
    pixels: options.Pixels
    inputs: tuple[str, ...]

    def explainers(self, place: Place) -> tuple[ProductionExplainer, ProductionExplainer]:
        """One reads the layer, one masks it; their files are gone when they are returned."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{self.file.model.stem}.onnx")
            if isinstance(place, Console) and not self.file.trust_model_file:
                place.run(self.file.model, path)
            else:
                self.compile(path, place)
            return load(path), load(_masked(path))

    def compile(self, path: Path, place: Place) -> None:
        """Write the files of both explainers, from one look at the model."""
        from relcompile.backend.doubts import doubts
        from relcompile.backend.onnx_file import save
        from relcompile.question.options import Options

        asked = partial(Options, rule=self.rule, preprocessing=self.pixels.preprocessing(), name=self.file.model.stem)
        reading = asked(at=self.name, target=self.target)
        with views.progress("relcompile") as tell, place.result(path) as temporary:
            captured = captured_model(self.file.read, self.inputs, tell)
            reader = captured.compile_as_asked(reading, tell)
            parity = save(reader, temporary, tell)
            save(captured.compile_as_asked(asked(masks=[self.name], target="indices"), tell), _masked(path), tell)
            warnings = doubts(reader, shares=reading.composite.shares_the_score)
        report(reader, {}, parity, warnings)


def _masked(path: Path) -> Path:
    """Where the explainer that masks lies, beside the one that reads."""
    return path.with_name(f"masked-{path.name}")


def _folder(path: Path, photographs: Photographs, reader: ProductionExplainer, samples: int | None) -> ImageFolder:
    import torch

    from relcompile.calibration.data import open_folder

    (entry,) = reader.metadata.inputs
    sizes = [size if isinstance(size, int) else 1 for size in entry.shape]
    return open_folder(path, {entry.name: torch.empty(sizes)}, photographs.preprocessing, samples)


def _found(
    reader: ProductionExplainer, data: ImageFolder, output: Path, count: int, batch: int, *, resume: bool
) -> Concepts:
    """The concepts in the file that is there, if it is of the same; else those of a pass over the data."""
    from relcompile.calibration.state import StateFile
    from relcompile.concepts.learn import facts_of, learn, resumed
    from relcompile.concepts.maximisation import STATE, Concepts

    facts = facts_of(reader, data, count, batch)
    if output.exists():
        known = Concepts.load(output)
        if known.facts == facts:
            views.note(f"{output} is of the same, and is used again")
            return known
    state = StateFile(output, kind=STATE)
    start = resumed(state, facts, data) if resume and state.exists else (None, 0)
    if resume:
        views.note(f"resumed after {start[1]} of {data.count} photographs")
    with views.progress_bar("concepts", data.count, start[1]) as tell:
        found = learn(reader, data, facts, state, tell, start)
    found.save(output)
    state.remove()
    return found


@dataclass(frozen=True)
class _Drawing:
    """What is drawn of concepts."""

    masked: ProductionExplainer
    photographs: Photographs
    data: ImageFolder
    found: Concepts
    rows: int

    def all(self, reader: ProductionExplainer, picture: Path | None, paths: Sequence[Path]) -> None:
        """The channels that are most relevant anywhere; and those of the picture."""
        what = f"{self.found.facts['layer']}, {self.found.facts['rule']}"
        best = np.argsort(-self.found.maxima.scores[:, 0], kind="stable")[: self.rows]
        self._draw(self._references([int(channel) for channel in best]), f"channels of {what}", paths[0])
        if picture is not None:
            rows, label = self._picture(reader, picture)
            self._draw(rows, f"{picture.name}: {label}, by channels of {what}", paths[1])

    def _picture(self, reader: ProductionExplainer, picture: Path) -> tuple[list[Row], str]:
        from relcompile.concepts.figure import Row
        from relcompile.concepts.maximisation import channel_relevance
        from relcompile.concepts.references import conditional_maps

        seen = self.photographs.read(picture)
        explanation = reader.explain(seen.array)
        r, (target, label, _) = channel_relevance(explanation.relevance)[0], explanation.chosen()
        best = [int(channel) for channel in np.argsort(-r, kind="stable")[: self.rows] if r[channel] > 0]
        maps = conditional_maps(self.masked, seen.array, target, best, len(r))
        rows = [
            replace(row, title=f"{row.title}\n{r[channel]:.1%}", own=own)
            for row, channel, own in zip(self._references(best), best, maps, strict=True)
        ]
        return [Row("photograph", [seen.view]), *rows], label

    def _references(self, channels: Sequence[int]) -> list[Row]:
        from relcompile.concepts.references import reference_rows

        maxima = self.found.maxima
        total = len({*maxima.samples[list(channels)].flatten().tolist()} - {-1})
        with views.progress_bar("draw", total) as tell:
            return reference_rows(
                self.masked, maxima, channels, lambda n: self.photographs.read(self.data.files[n]), tell
            )

    def _draw(self, rows: Sequence[Row], title: str, path: Path) -> None:
        from relcompile.concepts.figure import concepts_figure

        figure = concepts_figure(rows, title)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
        views.note(f"wrote {path}")


def _report(found: Concepts, path: Path) -> None:
    maxima = found.maxima
    if not maxima.scores.any():
        raise CalibrationError("no channel is relevant in any photograph: is this layer on the way to the output?")
    rows = {
        "file": str(path),
        "layer": str(found.facts["layer"]),
        "channels": str(len(maxima.scores)),
        "never relevant": str(int((maxima.scores[:, 0] == 0).sum())),
        "photographs": str(found.samples),
    }
    views.facts("concepts", rows)
