"""`relcompile MODEL`: read, compile, write, measure, report. What is slow to import is imported when it is used."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from relcompile.cli import options, views
from relcompile.cli.confined import Console, Place
from relcompile.errors import ExportError
from relcompile.files.paths import atomic_path, companion, keep_inputs, plain_name, read_text, refuse_links

if TYPE_CHECKING:
    import torch

    from relcompile.backend.explainer import Explainer
    from relcompile.backend.onnx_file import Parity
    from relcompile.question.options import Options

_TIMINGS = 5
_USUAL_PHOTOGRAPH = "1x3x224x224"
_LARGEST_CLASS_NAMES = 2**24  # bytes


def compile_(
    context: typer.Context,
    model: options.Model,
    rule: options.Rule = "z+",
    layer: options.Layers = None,
    plugin: options.Plugins = None,
    fallback: options.Fallback = None,
    bounds: options.Bounds = None,
    calibration: options.CalibrationFile = None,
    out: options.Output = None,
    inputs: options.Inputs = None,
    target: options.Target = "index",
    reference: options.Reference = None,
    reference_image: options.ReferenceImage = None,
    arch: options.Arch = None,
    allow: options.Allow = None,
    trust_model_file: options.Trust = False,
    explain: options.Explained = None,
    dynamic: options.Dynamic = None,
    explained_output: options.ExplainedOutput = "0",
    at: options.At = None,
    tap: options.Taps = None,
    start: options.Start = None,
    mask: options.Masks = None,
    exclude_parallel: options.ExcludeParallel = False,
    reduce: options.Reduce = None,
    output_dtype: options.OutputDtype = None,
    pair: options.Pair = False,
    absorbed: options.Absorbed = False,
    roots: options.Roots = False,
    forward_derivative: options.ForwardDerivative = False,
    class_names: options.ClassNames = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    channels: options.Channels = None,
    scale: options.Scale = None,
) -> None:
    """Compile a trained model and a rule into one explainer file."""
    place: Place = context.obj
    verbs = (("plugin", plugin), ("tap", tap), ("mask", mask), ("dynamic", dynamic))
    places = [f"{verb}={name}" for verb, names in verbs for name in names or ()]
    further = [name for name, wanted in (("absorbed", absorbed), ("roots", roots)) if wanted]
    chosen = (None if target == "index" else target, at, start and f"start={start}", fallback, reduce, *further)
    output = out or default_output(model, rule, *(layer or ()), *chosen, *places)
    if isinstance(place, Console) and not trust_model_file:
        with atomic_path(output) as temporary:
            return place.run(model, temporary)
    from relcompile.calibration.store import Calibration
    from relcompile.cli import parsing, plugins
    from relcompile.frontend.model_file import read_model
    from relcompile.question.options import Options
    from relcompile.question.references import reference_file

    composite = Path(rule) if rule.endswith(".toml") else None
    _check_output(
        output, pair, (model, calibration, class_names, reference_file(reference), _picture(reference_image), composite)
    )
    refuse_links([output] if out is None else [])
    preprocessing = parsing.preprocessing(resize, crop, mean, std, interpolation, channels, scale)
    learned = None if calibration is None else Calibration.load(calibration)
    known = preprocessing or (None if learned is None else learned.preprocessing)
    asked = Options(
        rule=rule,
        layers=tuple(layer or ()),
        rules=plugins.entries(plugin or ()),
        fallback=parsing.fallback(fallback),
        bounds=parsing.bounds(bounds),
        calibration=learned,
        target=target,
        reference=parsing.reference(reference, reference_image, known, inputs or (_USUAL_PHOTOGRAPH,)),
        explain=explain or None,
        dynamic=tuple(dynamic or ()),
        output=int(explained_output) if explained_output.isdecimal() else explained_output,
        at=at,
        taps=tuple(tap or ()),
        start=start,
        masks=tuple(mask or ()),
        exclude_parallel=exclude_parallel,
        reduce=reduce,
        output_dtype=output_dtype,
        absorbed=absorbed,
        roots=roots,
        forward_derivative=forward_derivative,
        class_names=_class_names(class_names),
        preprocessing=preprocessing,
        name=model.stem,
    )
    read = partial(read_model, model, arch=arch, allow=tuple(allow or ()), trust=trust_model_file)
    return compile_file(read, tuple(inputs or ()), asked, output, place, pair=pair)


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
    from relcompile.cli.input_specs import default_specs, example_inputs
    from relcompile.compiler import compile_as_asked

    _ = asked.composite  # a mistyped rule is known before minutes of work, and so is an unwritable output
    with views.progress("relcompile") as tell, place.result(output) as temporary:
        tell("read the model")
        model = read()
        if not specs:
            specs = default_specs(model)
            views.note(f"input: {' '.join(specs)} (assumed; --input changes it)")
        inputs = example_inputs(model, specs)
        explainer = compile_as_asked(model, inputs, asked, tell)
        parity = save(explainer, temporary, tell, pair=pair)
        tell("measure")
        timing = _timing(model, explainer, temporary)
        warnings = doubts(explainer, shares=asked.composite.shares_the_score)
        beside = [path for path in temporary.parent.iterdir() if companion(output).fullmatch(path.name)]
        rows = {"file": str(output), "size": f"{temporary.stat().st_size / 1e6:.1f} MB"}
        rows |= {path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in sorted(beside)}
    _report(explainer, rows, parity, timing | warnings)


def _picture(reference_image: str | None) -> Path | None:
    return None if reference_image in (None, "mean", "black", "blur") else Path(reference_image)


def default_output(model: Path, rule: str, *further: str | None) -> Path:
    """MODEL.RULE.onnx beside the model; what else makes the explainer another one follows the rule."""
    names = [rule.removesuffix(".toml").rpartition("/")[2], *filter(None, further)]
    return model.with_name(".".join([model.stem, *(plain_name(name.replace("=", "")) for name in names), "onnx"]))


def _check_output(output: Path, pair: bool, read: Sequence[Path | None]) -> None:
    known = (".onnx",) if pair else (".onnx", ".pt2")
    if output.suffix.lower() not in known:
        raise ExportError(f"{output}: the suffix must be {' or '.join(known)}")
    keep_inputs(read, (output, output.with_name(f"{output.stem}.predict.onnx")) if pair else (output,))
    if os.path.exists(output):
        views.note(f"output: {output} (the file that is there is replaced)")


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


def _report(explainer: Explainer, rows: dict[str, str], parity: Parity | None, timing: dict[str, str]) -> None:
    views.summary(explainer.metadata.layers)
    rows = {"rule": views.rule(explainer.metadata), "explained": explainer.metadata.quantity, **rows}
    if parity is not None:
        errors = ", ".join(f"{name} {error:.1e}" for name, error in parity.errors.items())
        rows["difference from PyTorch (of the maximum)"] = errors
    if explainer.metadata.preprocessing is not None:
        rows["photographs"] = views.photographs(explainer.metadata)
    views.facts("explainer", rows | timing)
