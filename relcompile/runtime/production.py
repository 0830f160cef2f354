"""Running a compiled explainer in production: numpy in, numpy out.

Imports the standard library, numpy and, when a file is loaded, ONNX Runtime: neither torch nor onnx.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from relcompile.files.paths import told_of
from relcompile.files.records import InputRecord
from relcompile.metadata import Metadata
from relcompile.runtime.binding import Bound
from relcompile.runtime.checks import check_path
from relcompile.runtime.conditional import ConditionalExplanation, Decision, passing
from relcompile.runtime.explanation import Explanation
from relcompile.runtime.feeds import Array, check_inputs, photographed
from relcompile.runtime.form import Asked, Form, Question
from relcompile.runtime.graph import Graph
from relcompile.runtime.opening import open_explainer, open_predictor, prediction_beside
from relcompile.runtime.options import Device, GpuOptions, RuntimeOptions


@dataclass(frozen=True, eq=False)
class ProductionExplainer:
    """A loaded explainer file; `load` makes it. Several threads may use one at the same time.

    It is pickled and copied as the path, or content, and the options that it was loaded with: whoever gets it loads
    the file again.

    Args:
        metadata: What the file says about itself.
    """

    metadata: Metadata
    _graph: Graph = field(repr=False)
    _form: Form = field(repr=False)
    _path: Path | bytes = field(repr=False)
    _options: RuntimeOptions = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._path, self._options)

    @property
    def inputs(self) -> tuple[InputRecord, ...]:
        """Everything that the graph reads, the target included."""
        return self._graph.inputs

    @property
    def outputs(self) -> tuple[InputRecord, ...]:
        """Everything that the graph computes: `metadata.output_names`, with shapes and dtypes."""
        return self._graph.outputs

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that ONNX Runtime really uses, the preferred one first."""
        return self._graph.providers

    def explain(
        self,
        *inputs: Array | Any,
        target: int | Sequence[int] | Array | None = None,
        reference: Array | None = None,
        masks: Mapping[str, Array] | None = None,
        noise: Mapping[str, Array] | None = None,
        seed: int = 0,
    ) -> Explanation:
        """Predict and explain one batch.

        Arrays may have a narrower dtype of the same kind than the file asks for (float16 for float32);
        anything else, float64 for float32 or bytes for floats, is refused rather than cast.

        Args:
            inputs: The model's inputs in the order of `metadata.inputs`; or one photograph, a picture (PIL) or the path
                of a file, which becomes the input by the preprocessing that is stored in the file.
            target: Only for files compiled to take one. Mode "index": the class to explain, one for all or
                one for each row, 0..classes-1; not needed where a row has one number. Mode "seed": relevance of
                the output, in its shape; of the layer `metadata.start` in that of its output. Mode "region": how much
                of each entry is explained, in the shape of the output. Mode "entry": an index for every axis of the
                output, for all or (batch, axes). With several targets for each row (`metadata.target.questions`):
                several classes for all rows, or (batch, questions); entries and seeds (batch, questions, ...).
            reference: Only for files compiled to take one: what differences are taken from, in the shape of the
                explained input.
            masks: Only for files that take masks (`metadata.masks`), by name of the layer: factors of what passes it,
                (batch, channels); ones where none is given.
            noise: Only for files that take noise (`metadata.noise`), by input name: standard normal numbers.
            seed: What is not in `noise` is drawn with this seed: equal seeds give equal results.

        Raises:
            InputSpecError: The number, shape or dtype of the inputs or of the reference does not fit, or the batch
                is empty; or a photograph was given, and the file takes none or stores no preprocessing.
            TargetError: The target is missing, not wanted, out of range or of the wrong shape or dtype.
            RuntimeUnavailableError: ONNX Runtime failed while it ran, for want of memory for example.
        """
        arrays, views = photographed(self.metadata, inputs)
        asked = self._form.check(arrays, target, reference, masks, noise, seed)
        return Explanation.of(self.metadata, replace(asked, views=views), self.run(asked.feeds))

    @property
    def weights(self) -> Path | None:
        """The file beside this one that holds its weights; None if they are in the file itself."""
        return self._graph.weights

    @property
    def is_paired(self) -> bool:
        """There is a file of the prediction alone beside this one."""
        return not isinstance(self._path, bytes) and prediction_beside(self._path).exists()

    @cached_property
    def predictor(self) -> Graph:
        """The prediction alone: the file that was written beside this one with `--pair`, opened at its first use.

        Raises:
            ExplainerFileError: it is not there, damaged, or of another model.
        """
        return open_predictor(self._path, self._options, self.metadata)

    def predict(self, *inputs: Array | Any) -> dict[str, Array]:
        """The outputs of the model by name, at the cost of the model: from the file beside this one; see `predictor`.

        Raises:
            InputSpecError: as `explain`.
            ExplainerFileError: as `predictor`.
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        feeds, _ = check_inputs(self.metadata.inputs, photographed(self.metadata, inputs)[0])
        return self.predictor.run({record.name: feeds[record.name] for record in self.predictor.inputs})

    def explain_if(
        self, condition: Decision, *inputs: Array | Any, **question: Unpack[Question]
    ) -> ConditionalExplanation:
        """Predict all rows, and explain those whose prediction passes a condition; see `predictor`.

        Args:
            condition: `Condition`, or a function of the explained output of all rows -> bool (batch,).
            inputs: As in `explain`.
            question: As in `explain`, for all rows; a target that is left out is the best class of each.

        Raises:
            InputSpecError: as `explain`; or the condition is not about each row.
            TargetError, RuntimeUnavailableError: as `explain`.
            ExplainerFileError: as `predictor`.
        """
        arrays, views = photographed(self.metadata, inputs)
        outputs = self.predict(*arrays)
        output = outputs[self.metadata.explained]
        rows, asked = self._passing(condition, output, arrays, question)
        explanation = None
        if rows.any():
            explanation = Explanation.of(self.metadata, replace(asked, views=views), self.run(asked.feeds))
        return ConditionalExplanation(output, outputs, rows, explanation)

    def bind(self, tensors: Mapping[str, Any]) -> Bound:
        """Tensors that are read, and written, where they are: in torch's memory on the GPU, for example.

        Args:
            tensors: All of `inputs`, by name: whatever speaks DLPack (torch, cupy, numpy, jax), contiguous, of the very
                dtype that the file asks for. Classes are not checked: of one that does not exist, relevance is NaN.

        Raises:
            InputSpecError: a tensor is missing, unknown, or does not fit.
            RuntimeUnavailableError: ONNX Runtime failed while it ran, or is too old for DLPack.
        """
        return Bound(self._graph, tensors, self._options.gpu)

    def feeds(self, named: Mapping[str, Array], seed: int = 0) -> dict[str, Array]:
        """What `run` wants, checked, from arrays by the names that inputs have in the file; see `explain`.

        Masks and noise may be left out. A target may have one axis of size 1 too many, (batch, 1), as servers that keep
        the batch for themselves have it.

        Raises:
            InputSpecError, TargetError: as `explain`; or a name is not known, or missing.
        """
        arrays, question = self._form.named(named, seed)
        return self._form.check(arrays, **question).feeds

    def passing_feeds(
        self, condition: Decision, output: Array, named: Mapping[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Which rows pass, bool (batch,), and what `run` wants for these alone; see `explain_if` and `feeds`.

        Args:
            condition: See `explain_if`.
            output: The explained output of all rows.
            named: As in `feeds`; a target that is left out is the best class of each row.

        Raises:
            InputSpecError, TargetError: as `feeds`; or the condition is not about each row.
        """
        rows, asked = self._passing(condition, output, *self._form.named(named))
        return rows, asked.feeds

    def prediction_feeds(self, named: Mapping[str, Array]) -> dict[str, Array]:
        """What `predictor` runs, checked, of the same arrays; a target is not looked at.

        Raises:
            InputSpecError, ExplainerFileError: as `feeds`, and `predictor`.
        """
        feeds, _ = check_inputs(self.metadata.inputs, self._form.own(named))
        return {record.name: feeds[record.name] for record in self.predictor.inputs}

    def _passing(
        self, condition: Decision, output: Array, arrays: Sequence[Array], question: Question
    ) -> tuple[Array, Asked]:
        """Which rows pass, bool (batch,), and what is asked of these alone."""
        rows = passing(condition, output)
        asked = self._form.check(arrays, **self._form.completed(question, output))
        return rows, asked.of(rows, self._graph.batched)

    def warm_up(self) -> bool:
        """Run once on zeros, so that the first request need not wait for what ONNX Runtime prepares.

        Returns:
            Whether there was a run: where sizes beside the batch are free, nobody knows which will come.

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        return self._graph.warm_up()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for the graph's own inputs by name, unchecked.

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        return self._graph.run(feeds)


def load(
    path: Path | str | bytes,
    *,
    device: Device = "auto",
    threads: int | None = None,
    spinning: bool = False,
    gpu: GpuOptions | None = None,
) -> ProductionExplainer:
    """Load an explainer file that relcompile wrote.

    Args:
        path: The .onnx file, or its content.
        device: "cuda" and "tensorrt" insist on the GPU; "auto" takes CUDA if it works, else the CPU, which is logged
            (level INFO) if ONNX Runtime was installed for CUDA.
        threads: CPU threads that share one operator, 1 or more; None: as many as there are physical cores.
        spinning: Let idle threads wait actively. A little faster if this is the only session on an idle
            machine, several times slower if sessions share it; therefore off.
        gpu: What only GPUs have.

    Raises:
        ExplainerFileError: The file is missing, no regular file, damaged (see `relcompile.files.seal`), no ONNX file,
            or not one that relcompile wrote (see `relcompile.files.onnx_bounds`).
        RuntimeUnavailableError: ONNX Runtime is not installed, or would end on another device than the one asked for.
        InputSpecError: `path`, or an option, is none of the above.
    """
    check_path(path)
    return _load(path, RuntimeOptions(device, threads, spinning, gpu or GpuOptions()))


def _load(path: Path | str | bytes, options: RuntimeOptions) -> ProductionExplainer:
    if isinstance(path, bytes):
        return _load_content(path, options)
    metadata, graph, target = open_explainer(Path(path), options)
    return ProductionExplainer(metadata, graph, Form(metadata, target), Path(path).absolute(), options)


def _load_content(content: bytes, options: RuntimeOptions) -> ProductionExplainer:
    """By way of a file, which is gone afterwards, so that the same is checked; pickled with the content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "explainer.onnx")
        with told_of(Path("the explainer"), path):
            path.write_bytes(content)
            return replace(_load(path, options), _path=content)
