"""`relcompile MODEL`: read, compile, write, measure, report. What is slow to import is imported when it is used."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relcompile.cli import options, views
from relcompile.cli.confined import Console, Place
from relcompile.errors import ExportError
from relcompile.files.paths import (
    atomic_path,
    beside,
    companion,
    keep_inputs,
    plain_name,
    read_text,
    refuse_links,
    require_utf8,
)

if TYPE_CHECKING:
    import torch

    from relcompile.backend.explainer import Explainer
    from relcompile.backend.onnx_file import Parity
    from relcompile.compiler import CapturedModel
    from relcompile.preprocessing import Preprocessing
    from relcompile.question.options import Keywords, Options

_TIMINGS = 5
_USUAL_PHOTOGRAPH = "1x3x224x224"
_LARGEST_CLASS_NAMES = 2**24  # bytes


def compile_(
    context: typer.Context,
    method: options.Method,
    file: options.ModelFile,
    question: options.Question,
    pixels: options.Pixels,
    inputs: options.Inputs = None,
    class_names: Annotated[Path | None, typer.Option(help="A text file, one class name a line.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="An .onnx or .pt2 file. Default: MODEL.RULE[.LAYER][.TARGET][.AT]....onnx"),
    ] = None,
    pair: Annotated[
        bool, typer.Option("--pair", help="Also write NAME.predict.onnx, the prediction alone, over the same weights.")
    ] = False,
) -> None:
    """Compile a trained model and a rule into one explainer file."""
    place: Place = context.obj
    output = out or default_output(file.model, method, question)
    context.with_resource(views.replacing([output]))
    if isinstance(place, Console) and not file.trust_model_file:
        with atomic_path(output) as temporary:
            return place.run(file.model, temporary)
    from relcompile.question.options import Options

    _check_output(output, pair, (file.model, class_names, *_read_by(method)))
    refuse_links([output] if out is None else [])
    asked: Keywords = {
        **_rules(method, inputs or (_USUAL_PHOTOGRAPH,), pixels.preprocessing()),
        **question.asked(),
        "class_names": _class_names(class_names),
        "name": file.model.stem,
    }
    return compile_file(file.read, tuple(inputs or ()), Options(**asked), output, place, pair=pair)


def _rules(method: options.Method, specs: Sequence[str], pixels: Preprocessing | None) -> Keywords:
    """The fields of `Options` that say which rules there are, and how photographs become what these need."""
    from relcompile.calibration.store import Calibration
    from relcompile.cli import parsing, plugins

    learned = None if method.calibration is None else Calibration.load(method.calibration)
    known = pixels or (None if learned is None else learned.preprocessing)
    return {
        "rule": method.rule,
        "layers": tuple(method.layers or ()),
        "rules": plugins.entries(method.plugin or ()),
        "fallback": parsing.fallback(method.fallback),
        "bounds": parsing.bounds(method.bounds),
        "calibration": learned,
        "reference": parsing.reference(method.reference, method.reference_image, known, specs),
        "preprocessing": pixels,
    }


def compile_file(
    read: Callable[[], torch.nn.Module],
    specs: tuple[str, ...],
    asked: Options,
    output: Path,
    place: Place,
    *,
    pair: bool = False,
) -> None:
    """Compile the model that `read` reads to the explainer file `output` and print what was done.

    Raises:
        RelcompileError, PassError: with a message for the user; no file is left behind.
    """
    from relcompile.backend.doubts import doubts
    from relcompile.backend.onnx_file import save

    _ = asked.composite  # a mistyped rule is known before minutes of work, and so is an unwritable output
    with views.progress("relcompile") as tell, place.result(output) as temporary:
        captured = captured_model(read, specs, tell)
        explainer = captured.compile_as_asked(asked, tell)
        parity = save(explainer, temporary, tell, pair=pair)
        tell("measure")
        timing = _timing(captured.model, explainer, temporary)
        warnings = doubts(explainer, shares=asked.composite.shares_the_score)
        beside = [path for path in temporary.parent.iterdir() if companion(output).fullmatch(path.name)]
        rows = {"file": str(output), "size": f"{temporary.stat().st_size / 1e6:.1f} MB"}
        rows |= {path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in sorted(beside)}
    report(explainer, rows, parity, timing | warnings)


def captured_model(
    read: Callable[[], torch.nn.Module], specs: tuple[str, ...], tell: Callable[[str], None]
) -> CapturedModel:
    """What explainers are compiled from: the model that `read` reads, and examples of its inputs.

    Raises:
        RelcompileError, PassError: with a message for the user.
    """
    from relcompile.cli.input_specs import default_specs, example_inputs
    from relcompile.compiler import capture

    tell("read the model")
    model = read()
    if not specs:
        specs = default_specs(model)
        views.note(f"input: {' '.join(specs)} (assumed; --input changes it)")
    return capture(model, example_inputs(model, specs))


def _read_by(method: options.Method) -> list[Path | None]:
    """The files that rules come from."""
    from relcompile.question.references import reference_file

    picture = None if method.reference_image in (None, "mean", "black", "blur") else Path(method.reference_image)
    composite = Path(method.rule) if method.rule.endswith(".toml") else None
    return [method.calibration, reference_file(method.reference), picture, composite]


def default_output(model: Path, method: options.Method, question: options.Question) -> Path:
    """MODEL.RULE.onnx beside the model; what else makes the explainer another one follows the rule."""
    places = {"plugin": method.plugin, "tap": question.taps, "mask": question.masks, "dynamic": question.dynamic}
    chosen = [
        None if question.target == "index" else question.target,
        question.at,
        question.start and f"start={question.start}",
        method.fallback,
        question.reduce,
        *(name for name in ("absorbed", "roots") if getattr(question, name)),
        *(f"{verb}={name}" for verb, names in places.items() for name in names or ()),
    ]
    names = [method.rule.removesuffix(".toml").rpartition("/")[2], *(method.layers or ()), *filter(None, chosen)]
    return beside(model, ".".join([model.stem, *(plain_name(name.replace("=", "")) for name in names), "onnx"]))


def _check_output(output: Path, pair: bool, read: Sequence[Path | None]) -> None:
    known = (".onnx",) if pair else (".onnx", ".pt2")
    if output.suffix.lower() not in known:
        raise ExportError(f"{output}: the suffix must be {' or '.join(known)}")
    require_utf8(output, ExportError)
    keep_inputs(read, (output, output.with_name(f"{output.stem}.predict.onnx")) if pair else (output,))


def _class_names(path: Path | None) -> list[str] | None:
    return None if path is None else read_text(path, "the class names", _LARGEST_CLASS_NAMES).splitlines()


def _timing(model: torch.nn.Module, explainer: Explainer, path: Path) -> dict[str, str]:
    """Medians of interleaved runs at batch 1, in ONNX Runtime if the file is for it."""
    import torch

    from relcompile.frontend.first_run import run_model

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


def report(explainer: Explainer, rows: dict[str, str], parity: Parity | None, measured: dict[str, str]) -> None:
    """Print what was compiled: `rows` of its files, and what was measured."""
    views.summary(explainer.metadata.layers)
    rows = {"rule": views.rule(explainer.metadata), "explained": explainer.metadata.quantity, **rows}
    if parity is not None:
        errors = ", ".join(f"{name} {error:.1e}" for name, error in parity.errors.items())
        rows["difference from PyTorch (of the maximum)"] = errors
    if explainer.metadata.preprocessing is not None:
        rows["photographs"] = views.photographs(explainer.metadata)
    views.facts("explainer", rows | measured)
