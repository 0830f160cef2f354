"""An evaluation, from rules and measures to results; it can be stopped at any time, and goes on where it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final, Protocol

import torch

from passes.errors import InternalError, PassError
from relcompile.errors import EvaluationError, RelcompileError
from relcompile.evaluation.measures import MEASURES, Measure
from relcompile.evaluation.pictures import pictures_of
from relcompile.evaluation.results import Results, Row, Shown, changed
from relcompile.evaluation.subject import Subject
from relcompile.evaluation.trial import USUAL, Bench, Settings, Trial
from relcompile.frontend.canonical import weights_digest
from relcompile.question.options import Options

ALL: Final = "all"
Unit = tuple[str, str]  # rule and measure
_BETWEEN_TICKS: Final = 2.0  # seconds
_LIBRARIES: Final = ("relcompile", "torch", "numpy", "scipy", "scikit-image", "pyarrow")


class Watch(Protocol):
    """What is told how an evaluation proceeds."""

    def __call__(self, done: int, total: int, doing: str, /) -> None: ...


def silent(_done: int, _total: int, _doing: str, /) -> None:
    """Tell nobody."""


def chosen_measures(names: Sequence[str], subject: Subject) -> list[Measure]:
    """The measures that are called so; "all" are those for which the subject has what they need.

    Raises:
        EvaluationError: a measure does not exist, or needs masks that are not there.
    """
    if ALL in names:
        return [measure for measure in MEASURES.values() if subject.masks is not None or not measure.masks]
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise EvaluationError(
            f"no metric called {', '.join(unknown) or '(none)'}; there are: all, {', '.join(MEASURES)}"
        )
    found = [MEASURES[name] for name in dict.fromkeys(names)]
    without = [measure.name for measure in found if measure.masks and subject.masks is None]
    if without:
        raise EvaluationError(f"{', '.join(without)}: it is not known where the objects are; give masks (--masks)")
    return found


def evaluate(
    subject: Subject,
    rules: Mapping[str, Options],
    metrics: Sequence[str] = (ALL,),
    settings: Settings = USUAL,
    *,
    begun: Results | None = None,
    keep: Callable[[Results], None] | None = None,
    watch: Watch = silent,
    about: Mapping[str, Any] | None = None,
) -> Results:
    """Measure explanations of one network.

    Args:
        subject: the network and the pictures that it is shown.
        rules: what is asked of the compiler, by the name of the rule in the results.
        metrics: names in `MEASURES`, or "all".
        settings: how much is measured.
        begun: results of the same evaluation, not yet whole, to go on from.
        keep: called with what there is after every unit.
        watch: told how many units are done, and which is next.
        about: further facts, to be kept with the results.

    Returns:
        Numbers of every sample. A rule for which a measure is not defined is in `refused`, with the reason.

    Raises:
        EvaluationError: a measure does not exist; or `begun` is of another evaluation.
        CompositeError: a rule does not exist.
    """
    measures = chosen_measures(metrics, subject)
    for options in rules.values():
        _ = options.composite  # a mistyped rule is known before minutes of work
    facts = _facts(subject, list(rules), measures, settings) | dict(about or {})
    results = Results(facts) if begun is None else _continued(begun, facts)
    run = _Run(subject, rules, settings, results, keep, watch)
    run.finish(measures)
    return results


class _Run:
    """The units that are left."""

    def __init__(
        self,
        subject: Subject,
        rules: Mapping[str, Options],
        settings: Settings,
        results: Results,
        keep: Callable[[Results], None] | None,
        watch: Watch,
    ) -> None:
        self._results, self._keep, self._watch = results, keep, watch
        self._doing, self._done, self._total, self._ticks = "", 0, 0, 0
        self._told = time.monotonic()
        self._bench = Bench(subject, settings, self._tick)
        self._rules = rules
        self._kept: Trial | None = None

    def finish(self, measures: Sequence[Measure]) -> None:
        """Do what is not done."""
        units = units_of(list(self._rules), measures)
        self._total = len(units)
        for self._done, (rule, name) in enumerate(units):
            if (rule, name) not in self._results.done:
                self._one(rule, MEASURES[name])
        self._watch(self._total, self._total, "done")

    def _one(self, rule: str, measure: Measure) -> None:
        self._doing, self._ticks = f"{rule or 'the model'}: {measure.name}", 0
        self._watch(self._done, self._total, self._doing)
        trial = self._trial(rule)
        try:
            rows = list(measure.run(trial))
            self._results.shown.update(_shown(trial, rule))
        except (RelcompileError, PassError) as error:
            if isinstance(error, InternalError):
                raise
            rows = list[Row]()
            self._results.refused[f"{rule} {measure.name}"] = str(error)
        self._results.add(rows)
        self._results.done.append((rule, measure.name))
        if self._keep is not None:
            self._keep(self._results)

    def _trial(self, rule: str) -> Trial:
        """One at a time: compiled explainers of all rules at once are too much memory."""
        if self._kept is None or self._kept.name != rule:
            self._kept = Trial(self._bench, rule, self._rules[rule or next(iter(self._rules))])
        return self._kept

    def _tick(self) -> None:
        self._ticks += 1
        if time.monotonic() - self._told < _BETWEEN_TICKS:
            return
        self._told = time.monotonic()
        self._watch(self._done, self._total, f"{self._doing} ({self._ticks})")


def units_of(rules: Sequence[str], measures: Sequence[Measure]) -> list[Unit]:
    """Everything that is to be done, rule by rule, so that each is compiled once."""
    shared = [("", measure.name) for measure in measures if measure.of_model]
    return shared + [(rule, measure.name) for rule in rules for measure in measures if not measure.of_model]


def _shown(trial: Trial, rule: str) -> dict[str, Shown]:
    """What a report shows of a rule: the rule of every layer, and some maps."""
    if not rule or rule in trial.bench.shown:
        return {}
    trial.bench.shown.add(rule)
    return {rule: Shown(trial.metadata.layers, tuple(pictures_of(trial)))}


def _continued(begun: Results, facts: dict[str, Any]) -> Results:
    other = sorted(changed(facts, begun.facts))
    if other:
        raise EvaluationError(f"what was begun is another evaluation, with another {', '.join(other)}; start anew")
    return begun


def _facts(subject: Subject, rules: list[str], measures: Sequence[Measure], settings: Settings) -> dict[str, Any]:
    data = hashlib.sha256(subject.images.contiguous().numpy().tobytes())
    for further in (subject.masks, None if subject.labels is None else subject.labels.numpy()):
        data.update(b"" if further is None else further.tobytes())
    return {
        "rules": rules,
        "metrics": [measure.name for measure in measures],
        "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(settings).items()},
        "weights_sha256": weights_digest(subject.network),
        "data_sha256": data.hexdigest(),
        "shape": list(subject.images.shape),
        "versions": {name: version(name) for name in _LIBRARIES},
        "threads": torch.get_num_threads(),
    }
