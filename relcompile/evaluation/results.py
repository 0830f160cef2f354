"""What an evaluation found, as one table in one Parquet file, and the same as CSV."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from relcompile.errors import EvaluationError
from relcompile.files.paths import atomic_path, open_input

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


@dataclass
class Results:
    """An evaluation, perhaps not yet whole.

    Attributes:
        facts: of what it is: model, data, settings, versions.
        rows: all numbers; `add` adds to them.
        done: units (rule, measure) that are finished.
        refused: why a unit has no numbers, by "rule measure".
        extras: what a report shows beside: pictures and rules of layers.
    """

    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list[Row])
    done: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    extras: dict[str, Any] = field(default_factory=dict[str, Any])
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
        about = {"format": _FORMAT, "facts": self.facts, "done": self.done, "refused": self.refused}
        text = json.dumps({**about, "extras": self.extras}).encode()
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
                about = _about((parquet.read_schema(file).metadata or {})[_KEY])
                table = parquet.read_table(file)
            except (pa.ArrowException, OSError, KeyError, ValueError, RecursionError) as error:
                raise EvaluationError(f"{path} is not a file that `relcompile evaluate` wrote") from error
        if about["format"] != _FORMAT or table.schema.remove_metadata() != _SCHEMA:
            raise EvaluationError(f"{path} is of another version of relcompile; evaluate again")
        if any(column.null_count for column in table.columns):
            raise EvaluationError(f"{path} is damaged: a number is missing")
        rows = [Row(**row) for row in table.to_pylist()]
        done = [(rule, measure) for rule, measure in about["done"]]
        return cls(about["facts"], rows, done, about["refused"], about["extras"])


def _about(text: bytes) -> dict[str, Any]:
    """What a file says of itself.

    Raises:
        KeyError, ValueError: it is not what `save` writes.
    """
    about: Any = json.loads(text)
    if not isinstance(about, dict) or not all(isinstance(about[name], dict) for name in ("facts", "refused", "extras")):
        raise ValueError("no records")
    pairs = [about["facts"]["rules"], *about["done"]]
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in pairs):
        raise ValueError("no names")
    if any(len(pair) != 2 for pair in about["done"]):
        raise ValueError("no pairs")
    return {"format": None, **about}


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
