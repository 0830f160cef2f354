"""`relcompile evaluate`: measure explanations of a model on data; resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from relcompile.cli import options, views
from relcompile.cli.confined import Console, Place
from relcompile.errors import EvaluationError
from relcompile.files.paths import atomic_path, keep_inputs, partial_of, refuse_links
from relcompile.runtime.extras import require

if TYPE_CHECKING:
    from relcompile.evaluation.results import Results
    from relcompile.evaluation.subject import Subject
    from relcompile.preprocessing import Preprocessing
    from relcompile.question.options import Options

_DEFAULT_OUTPUT: Final = Path("evaluation.parquet")
_LARGEST_MASKS: Final = 2**33


@dataclass(frozen=True)
class _Asked:
    """What is measured, of which samples."""

    rules: Annotated[str, typer.Option("--rules", "-r", help="Rules, with commas between them.")] = "z+,epsilon,root"
    metrics: Annotated[str, typer.Option("--metrics", "-m", help="Measures, with commas between them; or all.")] = "all"
    samples: Annotated[int | None, typer.Option(help="At most so many of the samples, evenly spaced.")] = None
    masks: Annotated[Path | None, typer.Option(help="A .npy file of booleans (samples, H, W): the objects.")] = None
    bounds: options.Bounds = None
    calibration: options.CalibrationFile = None


@dataclass(frozen=True)
class _Settings:
    """How it is measured: fields of `relcompile.evaluation.Settings`."""

    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0
    patch: Annotated[int, typer.Option(help="Side of what is removed at once; 0: a fourteenth of the side.")] = 0
    superpixels: Annotated[int, typer.Option(help="Remove so many superpixels instead (SLIC), for SRG.")] = 0
    parity: Annotated[bool, typer.Option("--parity", help="SSIM and IoU as the papers' released code has them.")] = (
        False
    )


def evaluate(
    context: typer.Context,
    file: options.ModelFile,
    data: Annotated[Path, typer.Argument(help="A folder of photographs, or a .npy or .npz file of inputs.")],
    asked: _Asked,
    settings: _Settings,
    pixels: options.Pixels,
    inputs: options.Inputs = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="The .parquet file to write; a .csv file follows.")] = (
        _DEFAULT_OUTPUT
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
) -> None:
    """Measure whether explanations depend on later layers, are faithful, localised, stable and conserved."""
    place: Place = context.obj
    require("evaluate")
    if out.suffix != ".parquet":
        raise EvaluationError(f"{out}: the suffix must be .parquet")
    context.with_resource(views.replacing([out, out.with_suffix(".csv")]))
    if isinstance(place, Console) and not file.trust_model_file:
        with atomic_path(out) as temporary:
            place.run(file.model, temporary, partial_of(out))
        return _write_csv(out)
    from relcompile.calibration.data import files_read
    from relcompile.evaluation.trial import Settings

    state = partial_of(out)
    keep_inputs((file.model, asked.masks, asked.calibration, *files_read(data)), (out, out.with_suffix(".csv"), state))
    refuse_links([state] if out != _DEFAULT_OUTPUT else [out, state])
    prepared = _prepared(file, data, asked, tuple(inputs or ()), pixels.preprocessing())
    run = _Run(*prepared, Settings(**asdict(settings)), out, place)
    return run.finish({"model": file.model.name, "data": data.name}, resume=resume)


def _prepared(
    file: options.ModelFile, data: Path, asked: _Asked, specs: tuple[str, ...], preprocessing: Preprocessing | None
) -> tuple[Subject, dict[str, Options], list[str]]:
    """Network and samples; what is asked of the compiler for each rule; names of the measures."""
    from relcompile.cli import parsing
    from relcompile.cli.commands.calibrate import open_data
    from relcompile.evaluation.run import chosen_measures

    rules = _options(rule_names(asked.rules), parsing.bounds(asked.bounds), asked.calibration, preprocessing)
    network = file.read()
    subject = _subject(network, open_data(data, network, specs, preprocessing, asked.samples), asked.masks)
    return subject, rules, [measure.name for measure in chosen_measures(asked.metrics.split(","), subject)]


class _Run:
    """One evaluation, with a state on disk."""

    def __init__(
        self,
        subject: Subject,
        asked: dict[str, Options],
        metrics: Sequence[str],
        settings: Any,
        out: Path,
        place: Place,
    ) -> None:
        self._subject, self._asked, self._metrics, self._settings = subject, asked, metrics, settings
        self._out, self._place = out, place
        folder = place.folder
        self._state = partial_of(out)
        self._written = self._state if folder is None else folder / self._state.name

    def finish(self, about: dict[str, str], *, resume: bool) -> None:
        """Measure what is left, write, print."""
        from relcompile.evaluation.run import evaluate as measured
        from relcompile.evaluation.verdict import verdicts

        begun = self._begun(resume=resume)
        with self._place.result(self._out) as temporary, views.progress("evaluate") as tell:
            results = measured(
                self._subject,
                self._asked,
                self._metrics,
                self._settings,
                begun=begun,
                keep=lambda partly: partly.save(self._written),
                watch=lambda done, total, doing: tell(f"{done} of {total}: {doing}"),
                about=about,
            )
            results.save(temporary)
        if self._place.folder is None:
            self._state.unlink(missing_ok=True)
            _write_csv(self._out)
        views.verdicts(verdicts(results), results.refused)
        views.note(f"wrote {self._out} and {self._out.with_suffix('.csv')}; relcompile report {self._out} draws it")

    def _begun(self, *, resume: bool) -> Results | None:
        from relcompile.evaluation.results import Results, exists

        if not exists(self._state):
            if resume:
                views.note(f"nothing to resume: there is no {self._state}")
            return None
        found = Results.load(self._state)  # nothing but a state is replaced
        if resume:
            views.note(f"resumed after {len(found.done)} units")
        return found if resume else None


def rule_names(text: str) -> list[str]:
    """The rules in "z+,gamma=0.5,bias=plain,root": a part KEY=VALUE whose key is no rule belongs to the rule before it.

    Raises:
        EvaluationError: there is none, or one twice.
    """
    from relcompile.methods.presets import PRESETS

    names = list[str]()
    for part in filter(None, (part.strip() for part in text.split(","))):
        is_parameter = "=" in part and part.partition("=")[0] not in PRESETS
        if is_parameter and names:
            names[-1] += f",{part}"
        else:
            names.append(part)
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"--rules {text!r}: want one or more rules, each of them once")
    return names


def _options(names: Sequence[str], bounds: Any, calibration: Path | None, preprocessing: Any) -> dict[str, Options]:
    """What is asked of the compiler for each rule: bounds and calibration are for the rules that take them."""
    from dataclasses import replace

    from relcompile.calibration.store import Calibration
    from relcompile.question.options import Options

    learned = None if calibration is None else Calibration.load(calibration)
    found = dict[str, Options]()
    for name in names:
        one = Options(rule=name, bounds=bounds, calibration=learned, preprocessing=preprocessing)
        _ = one.composite
        unused = {need: None for need in ("bounds", "calibration") if not one.takes(need)}
        found[name] = replace(one, **unused)
    return found


def _subject(network: Any, data: Any, masks: Path | None) -> Subject:
    import torch

    from relcompile.evaluation.subject import Subject
    from relcompile.files.arrays import map_array

    batch: dict[str, torch.Tensor] = data.batch(0, data.count)
    if len(batch) != 1:
        raise EvaluationError(f"the model takes {', '.join(batch)}: evaluate explains models of one input, pictures")
    found = None
    if masks is not None:
        found = map_array(masks, "the masks", error=EvaluationError)
        if found.dtype != bool:
            raise EvaluationError(f"the masks {masks} are {found.dtype}; want bool")
    return Subject(network, next(iter(batch.values())), found)


def _write_csv(out: Path) -> None:
    from relcompile.evaluation.results import Results

    Results.load(out).save_csv(out.with_suffix(".csv"))
