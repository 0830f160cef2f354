"""`relcompile MODEL`: read, compile, write, measure, report."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relcompile.backend.explainer import Explainer
from relcompile.backend.onnx_file import Parity, save
from relcompile.calibration.store import Calibration
from relcompile.cli import views
from relcompile.cli.input_specs import default_spec, example_inputs
from relcompile.cli.parsing import run_model, try_forward
from relcompile.compiler import compile as compile_model
from relcompile.errors import ExportError
from relcompile.files import atomic_path, keep_inputs, read_text
from relcompile.frontend.model_file import read_model
from relcompile.metadata import Preprocessing
from relcompile.methods.composites import Composite
from relcompile.methods.presets import Bounds
from relcompile.methods.spelling import Given, bounds_of, layer_entry, named
from relcompile.question.references import Reference

_TIMINGS = 5
_LARGEST_CLASS_NAMES = 2**24  # bytes


@dataclass(frozen=True)
class CompileRequest:
    """The command line of `relcompile MODEL`, read."""

    model: Path
    rule: str
    layers: tuple[str, ...]
    bounds: Bounds | None
    calibration: Path | None
    output: Path
    inputs: tuple[str, ...]
    target: str
    reference: Reference | None
    arch: str | None
    allow: tuple[str, ...]
    trust: bool
    explain: tuple[str, ...] | None
    explained_output: int
    at: str | None
    absorbed: bool
    roots: bool
    class_names: Path | None
    preprocessing: Preprocessing | None
    reference_file: Path | None = None


def compile_file(request: CompileRequest) -> None:
    """Compile a model file to an explainer file and print what was done.

    Raises:
        RelcompileError, PassError: with a message for the user; no file is left behind.
    """
    _check_output(request)
    calibration = Calibration.load(request.calibration) if request.calibration else None
    composite = _composite(request, calibration)
    # Opening the target first: an unwritable one is known before minutes of work.
    with views.progress("relcompile") as tell, atomic_path(request.output) as temporary:
        tell("read the model")
        model = read_model(request.model, arch=request.arch, allow=request.allow, trust=request.trust)
        specs = request.inputs or (default_spec(model),)
        if not request.inputs:
            views.note(f"input: {specs[0]} (assumed; --input changes it)")
        inputs = example_inputs(model, specs)
        try_forward(model, inputs, specs)
        explainer = compile_model(
            model,
            inputs,
            rule=composite,
            calibration=calibration,
            target=request.target,
            reference=request.reference,
            explain=request.explain,
            output=request.explained_output,
            at=request.at,
            absorbed=request.absorbed,
            roots=request.roots,
            class_names=_class_names(request.class_names),
            preprocessing=request.preprocessing,
            progress=tell,
        )
        parity = save(explainer, temporary, tell)
        tell("measure")
        timing = _timing(model, explainer, temporary)
    _report(explainer, request.output, parity, timing)


def _check_output(request: CompileRequest) -> None:
    if request.output.suffix.lower() not in (".onnx", ".pt2"):
        raise ExportError(f"{request.output}: the suffix must be .onnx or .pt2")
    composite = Path(request.rule) if request.rule.endswith(".toml") else None
    read = (request.model, request.calibration, request.class_names, request.reference_file, composite)
    keep_inputs(read, (request.output,))
    if os.path.exists(request.output):
        views.note(f"output: {request.output} (the file that is there is replaced)")


def _composite(request: CompileRequest, calibration: Calibration | None) -> Composite:
    """The rule of the command line, with the rules of single layers in front."""
    given = Given(request.bounds or bounds_of(request.preprocessing), calibration)
    return named(request.rule, given).with_entries(*(layer_entry(text, given) for text in request.layers))


def _class_names(path: Path | None) -> list[str] | None:
    return None if path is None else read_text(path, "the class names", _LARGEST_CLASS_NAMES).splitlines()


def _timing(model: torch.nn.Module, explainer: Explainer, path: Path) -> dict[str, str]:
    """Medians of interleaved runs at batch 1, in ONNX Runtime if the file is for it."""
    arguments = explainer.example_arguments(1)
    own = {record.name: value for record, value in zip(explainer.metadata.inputs, arguments, strict=False)}
    runs: dict[str, Callable[[], Any]] = {
        "forward in PyTorch": lambda: run_model(model, own),
        "forward + relevance in PyTorch": lambda: explainer(*arguments),
    }
    if path.suffix.lower() == ".onnx":
        from relcompile.runtime.production import load

        production = load(path, device="cpu")
        feeds = dict(zip(explainer.examples, (a.numpy() for a in arguments), strict=True))
        runs["forward + relevance in ONNX Runtime"] = lambda: production.run(feeds)
    with torch.no_grad():
        return {name: f"{1e3 * median:.1f} ms" for name, median in _medians(runs).items()}


def _medians(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_TIMINGS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _report(explainer: Explainer, path: Path, parity: Parity | None, timing: dict[str, str]) -> None:
    views.summary(explainer.metadata.layers)
    rows = {"file": str(path), "size": f"{path.stat().st_size / 1e6:.1f} MB"}
    if parity is not None:
        errors = ", ".join(f"{name} {error:.1e}" for name, error in parity.errors.items())
        rows["difference from PyTorch (of the maximum)"] = errors
    views.facts("explainer", rows | timing)
