"""Running a compiled explainer in production: numpy in, numpy out.

Imports the standard library, numpy and, when a file is loaded, ONNX Runtime: neither torch nor onnx.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relcompile.errors import ExplainerFileError, RuntimeUnavailableError
from relcompile.files.onnx_bounds import check_bounds
from relcompile.files.seal import check_seal
from relcompile.metadata import ABSORBED_OUTPUT, METADATA_KEY, ROOTS_OUTPUT, TARGET_OUTPUT, Metadata
from relcompile.records import MANY, InputRecord
from relcompile.runtime.feeds import (
    Array,
    check_inputs,
    check_masks,
    check_noise,
    check_reference,
    check_target,
    inputs_but_target,
)
from relcompile.runtime.session import Device, import_onnxruntime, open_session, session_options


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one call of `ProductionExplainer.explain` found out.

    Args:
        output: The explained output, usually (batch, classes).
        outputs: All outputs of the model, by name.
        relevance: Relevance of the first explained input, in that input's shape; of a layer, in that of its output; of
            Grad-CAM (batch, 1, height, width).
        relevances: All relevance, by the name of its output ("relevance", or "relevance_<input>").
        taps: Relevance of the layers in `metadata.taps`, by the layer's name.
        absorbed: Relevance that each layer absorbed, (batch, layers), in the order of `metadata.layers`; None
            if the file does not compute it.
        roots: Report on the learned roots, (batch, layers, quantities), named in `metadata.roots`; None if the file
            does not compute it.
        target: The classes that were explained, int64 (batch,), or the seed; with several targets for each row
            (batch, questions), and all relevance has the same axis behind the batch. None if the file explains the
            best class and its output has further axes, (batch, classes, ...), each place with its own best.
    """

    output: Array
    outputs: dict[str, Array]
    relevance: Array
    relevances: dict[str, Array]
    taps: dict[str, Array]
    absorbed: Array | None
    roots: Array | None
    target: Array | None


@dataclass(frozen=True, eq=False)
class ProductionExplainer:
    """A loaded explainer file; `load` makes it. Several threads may use one at the same time.

    Args:
        metadata: What the file says about itself.
    """

    metadata: Metadata
    _session: Any = field(repr=False)
    _target: InputRecord | None = field(repr=False)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that ONNX Runtime really uses, the preferred one first."""
        return tuple(self._session.get_providers())

    def explain(
        self,
        *inputs: Array,
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
            inputs: The model's inputs in the order of `metadata.inputs`.
            target: Only for files compiled to take one. Mode "index": the class to explain, one for all or
                one for each row, 0..classes-1; not needed where a row has one number. Mode "seed": relevance of
                the output, in its shape; of the layer `metadata.start` in that of its output. With several targets
                for each row (`metadata.target.questions`): several classes for all rows, or (batch, questions); seeds
                (batch, questions, ...).
            reference: Only for files compiled to take one: what differences are taken from, in the shape of the
                explained input.
            masks: Only for files that take masks (`metadata.masks`), by name of the layer: factors of what passes it,
                (batch, channels); ones where none is given.
            noise: Only for files that take noise (`metadata.noise`), by input name: standard normal numbers.
            seed: What is not in `noise` is drawn with this seed: equal seeds give equal results.

        Raises:
            InputSpecError: The number, shape or dtype of the inputs or of the reference does not fit, or the batch
                is empty.
            TargetError: The target is missing, not wanted, out of range or of the wrong shape or dtype.
            RuntimeUnavailableError: ONNX Runtime failed while it ran, for want of memory for example.
        """
        metadata = self.metadata
        feeds, batch = check_inputs(metadata.inputs, inputs)
        checked = check_target(metadata.target, self._target, target, batch)
        questions = checked.shape[1] if metadata.target.questions == MANY and checked is not None else 1
        feeds |= check_masks(metadata.masks, masks or {}, batch, questions)
        feeds |= check_noise(metadata.noise, noise or {}, seed, batch)
        if self._target is not None and checked is not None:
            feeds[self._target.name] = checked
        feeds |= check_reference(metadata.reference_input, reference, batch)
        found = self.run(feeds)
        output = found[metadata.explained]
        if metadata.target.is_reported:
            checked = found[TARGET_OUTPUT]
        elif metadata.target.takes_best and output.ndim <= 2:
            checked = output.reshape(batch, -1).argmax(axis=1).astype(np.int64)
        return Explanation(
            output=output,
            outputs={name: found[name] for name in metadata.outputs},
            relevance=found[metadata.relevance[0]],
            relevances={name: found[name] for name in metadata.relevance},
            taps={tap.layer: found[tap.name] for tap in metadata.taps},
            absorbed=found.get(ABSORBED_OUTPUT) if metadata.absorbed else None,
            roots=found.get(ROOTS_OUTPUT) if metadata.roots is not None else None,
            target=checked,
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for the graph's own inputs by name, unchecked.

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        names = self.metadata.output_names
        try:
            values: list[Array] = self._session.run(names, dict(feeds))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise RuntimeUnavailableError(f"ONNX Runtime failed on {self.providers[0]}: {error}") from error
        return dict(zip(names, values, strict=True))


def load(
    path: Path | str, *, device: Device = "auto", threads: int | None = None, spinning: bool = False
) -> ProductionExplainer:
    """Load an explainer file that relcompile wrote.

    Args:
        path: The .onnx file.
        device: "cuda" insists on the GPU; "auto" takes it if it works, else the CPU, which is logged (level
            INFO) if ONNX Runtime was installed for CUDA.
        threads: CPU threads that share one operator, 1 or more; None: as many as there are physical cores.
        spinning: Let idle threads wait actively. A little faster if this is the only session on an idle
            machine, several times slower if sessions share it; therefore off.

    Raises:
        ExplainerFileError: The file is missing, no regular file, damaged (see `relcompile.files.seal`), no ONNX file,
            or not one that relcompile wrote (see `relcompile.files.onnx_bounds`).
        RuntimeUnavailableError: ONNX Runtime is not installed, or `device="cuda"` would end on the CPU.
        ValueError: `device` or `threads` is none of the above.
    """
    if device not in ("auto", "cpu", "cuda") or (threads is not None and threads < 1):
        raise ValueError(f'device={device!r}, threads={threads}: want "auto", "cpu" or "cuda", and 1 thread or more')
    if Path(path).suffix.lower() == ".pt2":
        raise ExplainerFileError(f"{path} is not for ONNX Runtime: in Python, torch.export.load(path).module() runs it")
    runtime = import_onnxruntime()
    check_bounds(Path(path))
    check_seal(Path(path))
    session = open_session(runtime, Path(path), device, session_options(runtime, threads, spinning))
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ExplainerFileError("it is an ONNX file, but not an explainer: relcompile did not write it")
        metadata = Metadata.from_json(text)
        return ProductionExplainer(metadata, session, _match_session(metadata, session))
    except (ExplainerFileError, UnicodeDecodeError) as error:  # ONNX Runtime hands on what is not UTF-8
        raise ExplainerFileError(f"{path}: {error}") from error


def _match_session(metadata: Metadata, session: Any) -> InputRecord | None:
    """The target input, if there is one, after a check that graph and metadata fit each other."""
    values = {value.name: value for value in session.get_inputs()}
    promised = [record.name for record in inputs_but_target(metadata)]
    known = {*values, *(value.name for value in session.get_outputs())}
    missing = [name for name in (*promised, *metadata.output_names) if name not in known]
    extra = [name for name in values if name not in promised]
    target = metadata.target
    if missing or len(extra) != (target.takes_class or target.takes_seed):
        raise ExplainerFileError(
            f"graph and metadata disagree: the graph lacks {missing} and has the inputs {extra} beyond the "
            f'model\'s own, for target mode "{target.mode}"'
        )
    if not extra:
        return None
    value = values[extra[0]]
    if target.takes_class:
        return InputRecord(value.name, ("batch",) if target.questions is None else ("batch", MANY), "int64")
    dtype = {"tensor(float16)": "float16", "tensor(double)": "float64"}.get(value.type, "float32")
    sizes: Sequence[int | str | None] = value.shape[1:]
    rest = (size if isinstance(size, int) else f"axis {axis}" for axis, size in enumerate(sizes, 1))
    return InputRecord(value.name, ("batch", *rest), dtype)
