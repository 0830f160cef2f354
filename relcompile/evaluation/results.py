"""What an evaluation found, as one table in one Parquet file, and the same as CSV."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from relcompile.errors import EvaluationError, ExplainerFileError
from relcompile.files.paths import atomic_path, open_input
from relcompile.files.records import LayerRecord, require
from relcompile.files.typed_json import decode_record, parse_json

_KEY: Final = b"relcompile-evaluation"
_LARGEST: Final = 2**30  # bytes
_FORMAT: Final = 1


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        rule: of the explanation; empty for what is the model's alone.
        metric: what it is.
        sample: which of the data.
        layer: where, if that is a layer (or an occluder).
        step: a share, a quantile, a number of pixels: what the value is at; NaN if there is no such thing.
        value: the number; NaN where there is none.
    """

    rule: str
    metric: str
    sample: int
    value: float
    layer: str = ""
    step: float = float("nan")


_SCHEMA: Final = pa.schema(
    [
        ("rule", pa.string()),
        ("metric", pa.string()),
        ("sample", pa.int64()),
        ("value", pa.float64()),
        ("layer", pa.string()),
        ("step", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Picture:
    """One sample and its map, as PNG files.

    Attributes:
        sample: which of the data; `target` is the class that was explained.
        limit: the relevance that full colour stands for.
        image: the sample; `map` is its relevance.
    """

    sample: int
    target: int
    limit: float
    image: bytes
    map: bytes


@dataclass(frozen=True)
class Shown:
    """What a report shows of one rule beside its numbers: the rule of every layer, and some maps."""

    layers: tuple[LayerRecord, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class _Facts:
    """Those facts that are read again."""

    rules: tuple[str, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        require(len(self.shape) > 1, "shape has no channels")


@dataclass(frozen=True)
class _About:
    """What a file says of itself, beside its rows; the fields are those of `Results`."""

    format: int
    facts: dict[str, object]
    done: tuple[tuple[str, ...], ...]
    refused: dict[str, str]
    shown: dict[str, Shown]

    def __post_init__(self) -> None:
        require(all(len(unit) == 2 for unit in self.done), "what is done are pairs of a rule and a measure")


@dataclass
class Results:
    """An evaluation, perhaps not yet whole.

    Attributes:
        facts: of what it is: model, data, settings, versions; "rules" and "shape" (of the data) are always there.
        rows: all numbers; `add` adds to them.
        done: units (rule, measure) that are finished.
        refused: why a unit has no numbers, by "rule measure".
        shown: what a report shows beside, by rule.
    """

    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list[Row])
    done: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    shown: dict[str, Shown] = field(default_factory=dict[str, Shown])
    _index: dict[tuple[str, str], list[Row]] = field(default_factory=dict[tuple[str, str], list[Row]], init=False)

    def of(self, rule: str, metric: str, *, layer: str | None = None, step: float | None = None) -> NDArray[np.float64]:
        """Values of one metric in the order of the samples."""
        every = self.rows_of(rule, metric)
        found = [row for row in every if layer in (None, row.layer) and (step is None or row.step == step)]
        return np.array([row.value for row in sorted(found, key=lambda row: row.sample)])

    def layers(self, rule: str, metric: str) -> list[str]:
        """Where the metric was measured, in the order in which it was."""
        return list(dict.fromkeys(row.layer for row in self.rows_of(rule, metric)))

    def rows_of(self, rule: str, metric: str) -> Sequence[Row]:
        """Rows of one metric, in the order in which they were measured."""
        return self._index.get((rule, metric), [])

    def add(self, rows: Sequence[Row]) -> None:
        """Further numbers."""
        self.rows += rows
        self._file(rows)

    def __post_init__(self) -> None:
        self._file(self.rows)

    def _file(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._index.setdefault((row.rule, row.metric), []).append(row)

    @property
    def rules(self) -> list[str]:
        """Of the explanations."""
        return list(self.facts["rules"])

    def save(self, path: Path) -> None:
        """Write the Parquet file, whole or not at all.

        Raises:
            ExportError: it cannot be written.
        """
        about: dict[str, Any] = {"format": _FORMAT, "facts": self.facts, "done": self.done, "refused": self.refused}
        about["shown"] = {rule: asdict(shown) for rule, shown in self.shown.items()}
        text = json.dumps(about, default=lambda png: base64.b64encode(png).decode()).encode()
        with atomic_path(path) as temporary:
            parquet.write_table(_table(self.rows).replace_schema_metadata({_KEY: text}), temporary)

    def save_csv(self, path: Path) -> None:
        """Write the rows as CSV.

        Raises:
            ExportError: it cannot be written.
        """
        with atomic_path(path) as temporary:
            csv.write_csv(_table(self.rows), temporary)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            EvaluationError: the file cannot be read, or is something else.
        """
        with open_input(path, "the evaluation", _LARGEST, EvaluationError) as file:
            try:
                text = (parquet.read_schema(file).metadata or {})[_KEY].decode()
                table = parquet.read_table(file)
                table.validate(full=True)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise EvaluationError(f"{path} is not a file that `relcompile evaluate` wrote") from error
        about = _about(text, path)
        if about.format != _FORMAT or table.schema.remove_metadata() != _SCHEMA:
            raise EvaluationError(f"{path} is of another version of relcompile; evaluate again")
        if any(column.null_count for column in table.columns):
            raise EvaluationError(f"{path} is damaged: a number is missing")
        rows = [Row(**row) for row in table.to_pylist()]
        done = [(rule, measure) for rule, measure in about.done]
        return cls(about.facts, rows, done, about.refused, about.shown)


def _about(text: str, path: Path) -> _About:
    """What a file says of itself.

    Raises:
        EvaluationError: it is not what `save` writes.
    """
    try:
        about = decode_record(_About, parse_json(text, "its description"), "it")
        decode_record(_Facts, about.facts, "facts")
    except ExplainerFileError as error:
        raise EvaluationError(f"{path} is damaged, or of another version of relcompile: {error}") from error
    return about


def _table(rows: Sequence[Row]) -> Any:
    columns: Mapping[str, list[Any]] = {f.name: [getattr(row, f.name) for row in rows] for f in fields(Row)}
    return pa.table(columns, schema=_SCHEMA)


def changed(facts: Mapping[str, Any], others: Mapping[str, Any]) -> Iterator[str]:
    """Names of the facts that two evaluations do not share."""
    for name in facts.keys() | others.keys():
        if json.dumps(facts.get(name)) != json.dumps(others.get(name)):
            yield name


def exists(path: Path) -> bool:
    """Whether there is something under this name."""
    return os.path.lexists(path)
