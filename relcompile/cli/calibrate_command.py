"""`relcompile calibrate`: read, watch the model on the data, write; resumable."""

from __future__ import annotations

import inspect
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch

from relcompile.calibration.data import Data, files_read, open_arrays, open_folder
from relcompile.calibration.observer import Estimator, Observer
from relcompile.calibration.state import StateFile
from relcompile.calibration.store import Calibration
from relcompile.cli import views
from relcompile.cli.explain_command import ASSUMED
from relcompile.cli.input_specs import default_spec, example_inputs
from relcompile.cli.parsing import try_forward
from relcompile.errors import CalibrationError
from relcompile.files import atomic_path, keep_inputs
from relcompile.frontend.capture import forward_parameters
from relcompile.frontend.model_file import read_model
from relcompile.metadata import Preprocessing
from relcompile.methods.presets import PRESETS

_SAVE_EVERY: Final = 60.0  # seconds between two saved states


@dataclass(frozen=True)
class CalibrateRequest:
    """The command line of `relcompile calibrate`, read."""

    model: Path
    data: Path
    rule: str
    output: Path
    inputs: tuple[str, ...]
    estimator: Estimator
    batch: int
    samples: int | None
    resume: bool
    arch: str | None
    allow: tuple[str, ...]
    trust: bool
    preprocessing: Preprocessing | None


def calibrate_file(request: CalibrateRequest) -> None:
    """Estimate the patterns of a model file on data and write them.

    Raises:
        RelcompileError: with a message for the user; no half file is left behind.
    """
    _check_rule(request.rule)
    if request.batch < 1:
        raise CalibrationError(f"--batch {request.batch} must be at least 1")
    state = StateFile(request.output)
    keep_inputs((request.model, *files_read(request.data)), (request.output, state.path))
    model = read_model(request.model, arch=request.arch, allow=request.allow, trust=request.trust)
    data = _open(request, model)
    example = data.batch(0, 1)
    try_forward(model, example, tuple(f"{name} {list(tensor.shape)}" for name, tensor in example.items()))
    with atomic_path(request.output) as temporary:
        observer = Observer(model, example, request.estimator)
        run = _Run(observer, data, request.batch, state)
        if request.resume:
            run.resume()
        run.finish()
        calibration = observer.result()
        calibration.save(temporary)
    state.remove()
    _report(calibration, observer.inactive, request.output)


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
    known = [name for name, factory in PRESETS.items() if "calibration" in inspect.signature(factory).parameters]
    if rule not in known:
        raise CalibrationError(f"rule {rule!r} needs no calibration; these do: {', '.join(known)}")


def _open(request: CalibrateRequest, model: torch.nn.Module) -> Data:
    """The data, in the shapes that `--input` says, or else the arrays have, or else the model suggests."""
    if not os.path.isdir(request.data):
        examples = example_inputs(model, request.inputs)
        return open_arrays(request.data, forward_parameters(model), examples, request.samples)
    preprocessing = request.preprocessing
    if preprocessing is None:
        views.note("no preprocessing given: assuming ImageNet's mean and standard deviation")
        preprocessing = ASSUMED
    examples = example_inputs(model, request.inputs or (default_spec(model),))
    return open_folder(request.data, examples, preprocessing, request.samples)


def _report(calibration: Calibration, inactive: tuple[int, int], path: Path) -> None:
    rows = {
        "file": str(path),
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
        "layers": str(len(calibration.patterns)),
        "neurons without a pattern (never active)": "{} of {}".format(*inactive),
        "estimator": calibration.estimator,
        "samples": str(calibration.samples),
    }
    views.facts("calibration", rows)
    views.note(f"use it with: relcompile MODEL --rule patternattribution --calibration {path}")
