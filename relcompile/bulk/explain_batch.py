"""A batch of photographs in, a batch of rows out: what data engines call."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from relcompile.errors import InputSpecError, RelcompileError
from relcompile.metadata import TARGET_INPUT
from relcompile.pictures.images import decode_image
from relcompile.pictures.photographs import Photographs, Seen
from relcompile.runtime.best import explain_best
from relcompile.runtime.explanation import Explanation
from relcompile.runtime.feeds import Array, check_target
from relcompile.runtime.options import Device
from relcompile.runtime.production import ProductionExplainer, load

Form = Literal["float16", "int8"]
_LARGEST: Final[Mapping[Form, float]] = {"float16": 2.0**15, "int8": 127.0}
_NUMBERS: Final = {"prediction": np.int64, "target": np.int64, "logit": np.float32, "sum": np.float32}
_FAILED: Final = {"prediction": -1, "target": -1, "logit": np.nan, "sum": np.nan}


@dataclass(frozen=True)
class ExplainBatch:
    """Explains photographs, batch by batch; fits `map_batches` of Ray Data, and a plain loop.

    It is pickled as its arguments; whoever calls it first loads the file.

    Args:
        explainer: Path of the .onnx file, which takes one photograph.
        target: The class to explain; None: the best of each photograph, or what the file always explains.
        form: How relevance is stored. "float16": in units of a power of two, so that nothing overflows, with a relative
            error of at most 2^-11 for all but values below 4 * 10^-9 of the largest. "int8": in 127ths of the largest.
        keep_channels: Relevance is (channels, height, width); else it is summed over channels, (height, width).
        rows: Photographs that are run at once. Another number changes the result by float32 rounding.
        device, threads: As in `relcompile.load`.
    """

    explainer: str
    target: int | None = None
    form: Form = "float16"
    keep_channels: bool = False
    rows: int = 8
    device: Device = "cpu"
    threads: int | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Explain a batch.

        Args:
            batch: "path" (texts), and perhaps "bytes": the contents of the files; without, they are read.

        Returns:
            Columns of the same length and order. path, with bytes that are not UTF-8 written as they are in Python;
            prediction, the best class; target, the class that is explained; logit, its score; sum, of all relevance;
            scale and relevance: R = scale * relevance; error: "", or why there is no explanation; then the others are
            those of `failures`.
        """
        paths = [str(path) for path in batch["path"]]
        contents: Sequence[Any] = batch["bytes"] if "bytes" in batch else [None] * len(paths)
        columns = self.failures(paths)
        read = list[tuple[int, Seen]]()
        for row, (path, content) in enumerate(zip(paths, contents, strict=True)):
            try:
                read.append((row, self._photographs.read(_image(path, content))))
            except RelcompileError as error:
                columns["error"][row] = _text(str(error))
        for start in range(0, len(read), self.rows):
            self._explain(read[start : start + self.rows], columns)
        return columns

    def failures(self, paths: Sequence[str], error: str = "") -> dict[str, Array]:
        """The columns without explanations: prediction and target are -1, the numbers NaN, and the relevance 0."""
        count = len(paths)
        columns = {name: np.full(count, _FAILED[name], dtype) for name, dtype in _NUMBERS.items()}
        texts = {"path": np.array([*map(_text, paths)], object), "error": np.full(count, _text(error), object)}
        relevance = np.zeros((count, *self.shape), self.form)
        return {**texts, **columns, "scale": np.full(count, np.nan), "relevance": relevance}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the relevance of one photograph."""
        reduced = self._production.metadata.reduce is not None
        channels = 1 if reduced else len(self._photographs.preprocessing.mean)
        return (*((channels,) if self.keep_channels else ()), self._photographs.height, self._photographs.width)

    @cached_property
    def _production(self) -> ProductionExplainer:
        return load(self.explainer, device=self.device, threads=self.threads)

    @cached_property
    def _photographs(self) -> Photographs:
        metadata = self._production.metadata
        per_row = metadata.target.takes_seed or metadata.target.takes_entry
        if metadata.target.questions is not None or per_row or metadata.at is not None:
            raise InputSpecError("this explainer does not say one thing of the pixels of each photograph; use Python")
        if metadata.reference_input is not None:
            raise InputSpecError("this explainer takes a reference at run time; compile it with a fixed one")
        if self.target is not None:
            entries = {entry.name: entry for entry in self._production.inputs}
            check_target(metadata.target, entries.get(TARGET_INPUT), self.target, batch=1)
        return Photographs.of(metadata)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _explain(self, read: Sequence[tuple[int, Seen]], columns: dict[str, Array]) -> None:
        """Put what is found into the rows of the columns."""
        array = np.concatenate([seen.array for _, seen in read])
        if self.target is None:
            explanation = explain_best(self._production, array)
        else:
            explanation = self._production.explain(array, target=self.target)
        for k, (row, _) in enumerate(read):
            if explanation.finite[k]:
                self._fill(explanation, k, row, columns)
            else:
                columns["error"][row] = "NaN or infinity in the input, the prediction or the relevance"

    def _fill(self, explanation: Explanation, k: int, row: int, columns: dict[str, Array]) -> None:
        relevance = explanation.relevance[k].astype(np.float32, copy=False)
        target, _, logit = explanation.chosen(k)
        stored = relevance if self.keep_channels else relevance.sum(0)
        columns["scale"][row], columns["relevance"][row] = _stored(stored, self.form)
        found = {"prediction": explanation.scores(k).argmax(), "target": target, "logit": logit}
        for name, value in {**found, "sum": relevance.sum(dtype=np.float64)}.items():
            columns[name][row] = value


def _text(text: str) -> str:
    r"""A text that may hold a path: bytes that are not UTF-8, which only file systems know, as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _image(path: str, content: Any) -> Image.Image | Path:
    return Path(path) if content is None else decode_image(io.BytesIO(content), path)


def _stored(relevance: Array, form: Form) -> tuple[float, Array]:
    """Scale and numbers, with relevance = scale * numbers."""
    most = float(abs(relevance).max())
    if most == 0:
        return 1.0, relevance.astype(form)
    if form == "int8":
        scale = most / _LARGEST[form]
        return scale, np.rint(relevance / scale).clip(-127, 127).astype(np.int8)
    scale = float(2.0 ** np.ceil(np.log2(most / _LARGEST[form])))
    return scale, (relevance.astype(np.float64) / scale).astype(np.float16)
