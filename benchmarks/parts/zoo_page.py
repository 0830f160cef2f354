"""What was measured of one model of the zoo, and the page that shows it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

EQUAL: Final = 1e-8  # of the largest gradient, float64
_CONSERVED: Final = 1e-6  # of the score, float64
_NUMBERS: Final = ("gradient", "unaccounted", "parity")


@dataclass
class Row:
    """One model.

    Attributes:
        parameters: how many the model has.
        compiled: an explainer came out.
        gradient: largest difference from autograd, of the largest gradient; float64.
        unaccounted: what is left of the score once relevance and what was absorbed on the way are taken off, of the
            score, under cp-lrp; float64.
        parity: largest difference between ONNX Runtime and PyTorch, of the largest value of each output; float32.
        seconds: that all of it took.
        failure: the step that failed and the first lines of its error; "" if none did.
        steps: those that passed.
    """

    library: str
    family: str
    model: str
    parameters: int = 0
    compiled: bool = False
    gradient: float | None = None
    unaccounted: float | None = None
    parity: float | None = None
    seconds: float = 0.0
    failure: str = ""
    steps: tuple[str, ...] = ()


Key = tuple[str, str]  # library and model

_INTRODUCTION: Final = """# Which networks compile?

Models that nobody here wrote, with random weights, on small inputs: torchvision's classifiers and its networks for
segmentation and video, one model of each family of timm, classes of transformers from tiny configurations, and networks
of segmentation_models_pytorch and monai.
`python -m benchmarks.zoo` compiles them and writes this page; it goes on where it was interrupted.

compiled
:   An explainer came out, and predicts what the model predicts.

gradient
:   The largest difference between `gradient*input` and autograd, of the largest value, in float64. Zero here says that
    capture, decompositions and every adjoint on the way are exact.

unaccounted
:   What is left of the score once the relevance of `cp-lrp` and what biases absorbed are taken off, of the score, in
    float64.

ONNX Runtime
:   The largest difference between the file for `attnlrp` and PyTorch, of the largest value of each output, in float32.

An empty cell was not measured: the step was not taken, or one before it failed. "No answer" is a model that did not end
within a limit, on one thread of a busy machine: it says nothing of the model. The table [as CSV](zoo.csv).
"""


_REMARKS: Final = """## What to know

- timm `efficientvit_b0`: its attention computes in float32, whatever the precision of the model (`q.float()`), so
  that its gradient is known to seven digits only.
- transformers' norms, softmaxes and scans compute in float32, too, also in a model of float64 (`x.to(torch.float32)`).
  Where that shows (Gemma 2; Mamba and T5 in some runs), gradients agree to seven digits.
- torchvision `squeezenet1_1`: its last operator is a ReLU, behind which these random weights leave scores of 0: nothing
  is there to explain.
- timm `csatv2`: its attention multiplies (batch, N) by (N, batch), and so mixes the samples of a batch: no sample has
  an explanation of its own.
"""


def page(rows: Collection[Row], known: Iterable[Key]) -> str:
    """The page of the documentation: a summary, the failures, what was not run, and one line a model."""
    left = sorted(set(known) - {(row.library, row.model) for row in rows})
    failed = [f"- {row.library} `{row.model}`: {row.failure}" for row in _sorted(rows) if row.failure]
    parts = [
        _INTRODUCTION,
        _summary(rows, left),
        "## What failed, and why\n\n" + ("\n".join(failed) or "Nothing that was run."),
        _REMARKS,
        "## What was not run\n\n" + (", ".join(f"{library} `{model}`" for library, model in left) or "Nothing."),
        "## Every model\n\n" + markdown(rows),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _summary(rows: Collection[Row], left: Sequence[Key]) -> str:
    lines = [
        f"| library | run | compiled | gradient to {EQUAL:.0e} | unaccounted to {_CONSERVED:.0e} | file | not run |",
        "|---|---|---|---|---|---|---|",
    ]
    for library in sorted({row.library for row in rows}):
        own = [row for row in rows if row.library == library]
        counts = [
            _share(own, lambda row: row.gradient, EQUAL),
            _share(own, lambda row: row.unaccounted, _CONSERVED),
            _share(own, lambda row: row.parity, float("inf")),
        ]
        compiled, missing = sum(row.compiled for row in own), sum(key[0] == library for key in left)
        lines.append(f"| {library} | {len(own)} | {compiled} | {' | '.join(counts)} | {missing} |")
    return "\n".join(lines) + "\n"


def _share(rows: Iterable[Row], measured: Callable[[Row], float | None], bound: float) -> str:
    """How many are within a bound, of those that were measured."""
    values = [value for row in rows if (value := measured(row)) is not None]
    return f"{sum(value <= bound for value in values)} of {len(values)}"


def markdown(rows: Iterable[Row]) -> str:
    """One line a model."""
    lines = [
        "| library | family | model | parameters | compiled | gradient | unaccounted | ONNX Runtime |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _sorted(rows):
        numbers = ["" if (x := getattr(row, name)) is None else f"{x:.0e}" for name in _NUMBERS]
        size = f"{row.parameters / 1e6:.3g} M" if row.parameters else ""
        cells = (row.library, row.family, row.model, size, "yes" if row.compiled else "no", *numbers)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """All columns."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows({**asdict(row), "steps": " ".join(row.steps)} for row in _sorted(rows))


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.library, row.family, row.model))
