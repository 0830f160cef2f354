"""`relcompile calibrate`: read, watch the model on the data, write; resumable."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from relcompile.cli import options, views
from relcompile.cli.confined import Console, Place
from relcompile.errors import CalibrationError
from relcompile.files.paths import atomic_path, keep_inputs, partial_of, refuse_links

if TYPE_CHECKING:
    import torch

    from relcompile.calibration.data import Data
    from relcompile.calibration.observer import Estimator, Observer
    from relcompile.calibration.state import StateFile
    from relcompile.calibration.store import Calibration
    from relcompile.preprocessing import Preprocessing

_DEFAULT_OUTPUT: Final = Path("patterns.safetensors")
_SAVE_EVERY: Final = 60.0  # seconds between two saved states


def calibrate(
    context: typer.Context,
    file: options.ModelFile,
    pixels: options.Pixels,
    data: Annotated[Path, typer.Argument(help="A folder of photographs, or a .npy or .npz file of inputs.")],
    rule: Annotated[str, typer.Option("--rule", "-r", help="The rule that needs it.")] = "patternattribution",
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = _DEFAULT_OUTPUT,
    inputs: options.Inputs = None,
    estimator: Annotated[Literal["relu", "linear"], typer.Option(help="relu has two components.")] = "relu",
    batch: Annotated[int, typer.Option(help="Samples at a time.")] = 32,
    samples: Annotated[int | None, typer.Option(help="At most so many of the samples, evenly spaced.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
) -> None:
    """Learn from data what PatternNet and PatternAttribution need: one pattern per affine layer."""
    place: Place = context.obj
    context.with_resource(views.replacing([out]))
    if isinstance(place, Console) and not file.trust_model_file:
        with atomic_path(out) as temporary:
            return place.run(file.model, temporary, partial_of(out))
    from relcompile.calibration.data import files_read
    from relcompile.calibration.state import StateFile

    preprocessing = pixels.preprocessing()
    _check_rule(rule)
    if batch < 1:
        raise CalibrationError(f"--batch {batch} must be at least 1")
    state = StateFile(out, place.folder)
    keep_inputs((file.model, *files_read(data)), (out, state.path))
    refuse_links([state.path] if out != _DEFAULT_OUTPUT else [out, state.path])
    network = file.read()
    opened = open_data(data, network, tuple(inputs or ()), preprocessing, samples)
    return calibrate_on(network, opened, estimator, batch, state, place, resume=resume)


def calibrate_on(
    model: torch.nn.Module,
    data: Data,
    estimator: Estimator,
    batch: int,
    state: StateFile,
    place: Place,
    *,
    resume: bool,
) -> None:
    """Estimate the patterns of a model on data and write them.

    Raises:
        RelcompileError: with a message for the user; no half file is left behind.
    """
    from relcompile.calibration.observer import Observer
    from relcompile.frontend.first_run import check_runs

    example = data.batch(0, 1)
    with place.result(state.target) as temporary:
        check_runs(model, example)
        observer = Observer(model, example, estimator)
        run = _Run(observer, data, batch, state)
        if resume:
            run.resume()
        run.finish()
        calibration = replace(observer.result(), preprocessing=data.preprocessing)
        calibration.save(temporary)
        size = temporary.stat().st_size
    state.remove()
    _report(calibration, observer.inactive, state.target, size)


class _Run:
    """One pass over the data, with a state on disk."""

    def __init__(self, observer: Observer, data: Data, batch: int, state: StateFile) -> None:
        self._observer, self._data, self._batch, self._state = observer, data, batch, state

    @cached_property
    def _facts(self) -> dict[str, object]:
        """What the state is of; the checksum of the data takes as long as reading all of it."""
        return {
            "weights_sha256": self._observer.weights_sha256,
            "estimator": self._observer.estimator,
            "batch": self._batch,
            "data": self._data.fingerprint,
        }

    def finish(self) -> None:
        """All samples that are left."""
        total, saved = self._data.count, time.monotonic()
        with views.progress_bar("calibrate", total, self._observer.samples) as tell:
            for start in range(self._observer.samples, total, self._batch):
                self._observer.add(self._data.batch(start, start + self._batch))
                tell(self._observer.samples)
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._state.write(self._observer.sums, self._facts, self._observer.samples)
                    saved = time.monotonic()

    def resume(self) -> None:
        """Go on where the state on disk ends.

        Raises:
            CalibrationError: it belongs to other weights, data or options.
        """
        if not self._state.exists:
            views.note(f"nothing to resume: there is no {self._state.path}")
            return
        self._observer.restore(*self._state.read(self._facts, self._data.count))
        views.note(f"resumed after {self._observer.samples} of {self._data.count} samples")


def _check_rule(rule: str) -> None:
    from relcompile.methods.presets import PRESETS

    known = [name for name, preset in PRESETS.items() if "calibration" in preset.needs]
    if rule not in known:
        raise CalibrationError(f"rule {rule!r} needs no calibration; these do: {', '.join(known)}")


def open_data(
    path: Path,
    model: torch.nn.Module,
    specs: tuple[str, ...],
    preprocessing: Preprocessing | None,
    samples: int | None,
) -> Data:
    """The data, in the shapes that `--input` says, or else the arrays have, or else the model suggests."""
    from relcompile.calibration.data import open_arrays, open_folder
    from relcompile.cli.input_specs import default_specs, example_inputs
    from relcompile.frontend.capture import forward_parameters
    from relcompile.preprocessing import assumed

    if preprocessing is not None and not os.path.isdir(path):
        raise CalibrationError(
            f"{path} holds inputs, not photographs: give a folder, or leave the options of preprocessing out"
        )
    if not os.path.isdir(path):
        return open_arrays(path, forward_parameters(model), example_inputs(model, specs), samples)
    examples = example_inputs(model, specs or default_specs(model))
    if preprocessing is None:
        preprocessing, sentence = assumed(next(iter(examples.values())).shape[1])
        views.note(sentence)
    return open_folder(path, examples, preprocessing, samples)


def _report(calibration: Calibration, inactive: tuple[int, int], path: Path, size: int) -> None:
    rows = {
        "file": str(path),
        "size": f"{size / 1e6:.1f} MB",
        "layers": str(len(calibration.patterns)),
        "neurons without a pattern (never active)": "{} of {}".format(*inactive),
        "estimator": calibration.estimator,
        "samples": str(calibration.samples),
    }
    views.facts("calibration", rows)
    views.note(f"use it with: relcompile MODEL --rule patternattribution --calibration {path}")
