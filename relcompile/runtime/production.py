"""Running a compiled explainer in production: numpy in, numpy out.

Imports the standard library, numpy and, when a file is loaded, ONNX Runtime: neither torch nor onnx.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from relcompile.errors import ExplainerFileError, InputSpecError, RuntimeUnavailableError
from relcompile.files.paths import told_of
from relcompile.files.records import MANY, InputRecord
from relcompile.files.seal import WEIGHTS_KEY, check_weights_beside
from relcompile.metadata import ABSORBED_OUTPUT, METADATA_KEY, ROOTS_OUTPUT, TARGET_OUTPUT, Metadata
from relcompile.runtime.checks import check_arguments, check_file
from relcompile.runtime.explanation import Explanation, finite_rows
from relcompile.runtime.feeds import (
    Array,
    check_inputs,
    check_masks,
    check_noise,
    check_reference,
    check_target,
    inputs_but_target,
    require_entries,
)
from relcompile.runtime.session import Device, described, import_onnxruntime, open_session, session_options


@dataclass(frozen=True, eq=False)
class ProductionExplainer:
    """A loaded explainer file; `load` makes it. Several threads may use one at the same time.

    It is pickled and copied as the path, or content, and the settings that it was loaded with: whoever gets it loads
    the file again.

    Args:
        metadata: What the file says about itself.
    """

    metadata: Metadata
    _session: Any = field(repr=False)
    _target: InputRecord | None = field(repr=False)
    _loaded_with: dict[str, Any] = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(load, **self._loaded_with), ()

    @property
    def inputs(self) -> tuple[InputRecord, ...]:
        """Everything that the graph reads, the target included."""
        return described(self._session.get_inputs())

    @property
    def outputs(self) -> tuple[InputRecord, ...]:
        """Everything that the graph computes: `metadata.output_names`, with shapes and dtypes."""
        found = {record.name: record for record in described(self._session.get_outputs())}
        return tuple(found[name] for name in self.metadata.output_names)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that ONNX Runtime really uses, the preferred one first."""
        return tuple(self._session.get_providers())

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
        metadata = self.metadata
        arrays, views = _photographed(metadata, inputs)
        feeds, batch, checked = self._check(arrays, target, reference, masks or {}, noise or {}, seed)
        found = self.run(feeds)
        output = found[metadata.explained]
        require_entries(metadata.target, checked, output)
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
            finite=finite_rows(batch, feeds, found),
            metadata=metadata,
            views=views,
        )

    def feeds(self, named: Mapping[str, Array], seed: int = 0) -> dict[str, Array]:
        """What `run` wants, checked, from arrays by the names that inputs have in the file; see `explain`.

        Masks and noise may be left out. A target may have one axis of size 1 too many, (batch, 1), as servers that keep
        the batch for themselves have it.

        Raises:
            InputSpecError, TargetError: as `explain`; or a name is not known, or missing.
        """
        metadata, given = self.metadata, dict(named)
        target = None if self._target is None else given.pop(self._target.name, None)
        missing = [record.name for record in metadata.inputs if record.name not in given]
        if missing:
            raise InputSpecError(
                f"the inputs {', '.join(missing)} are missing; {', '.join(named) or 'none'} were given"
            )
        arrays = [given.pop(record.name) for record in metadata.inputs]
        reference = None if metadata.reference_input is None else given.pop(metadata.reference_input.name, None)
        masks = {m.layer: given.pop(m.input.name) for m in metadata.masks if m.input.name in given}
        noise = {record.name: given.pop(record.name) for record in metadata.noise if record.name in given}
        if given:
            raise InputSpecError(
                f"{', '.join(given)} was given, but the file takes {', '.join(i.name for i in self.inputs)}"
            )
        if (
            target is not None
            and self._target is not None
            and (target.shape[1:], self._target.shape) == ((1,), ("batch",))
        ):
            target = target.reshape(-1)
        return self._check(arrays, target, reference, masks, noise, seed)[0]

    def _check(
        self,
        arrays: Sequence[Any],
        target: object,
        reference: Array | None,
        masks: Mapping[str, Array],
        noise: Mapping[str, Array],
        seed: int,
    ) -> tuple[dict[str, Array], int, Array | None]:
        """What the graph reads, the size of the batch, and the target, where it is known before the run."""
        metadata = self.metadata
        feeds, batch = check_inputs(metadata.inputs, arrays)
        checked = check_target(metadata.target, self._target, target, batch)
        questions = checked.shape[1] if metadata.target.questions == MANY and checked is not None else 1
        feeds |= check_masks(metadata.masks, masks, batch, questions)
        feeds |= check_noise(metadata.noise, noise, seed, batch)
        if self._target is not None and checked is not None:
            feeds[self._target.name] = checked
        return feeds | check_reference(metadata.reference_input, reference, batch), batch, checked

    def warm_up(self) -> bool:
        """Run once on zeros, so that the first request need not wait for what ONNX Runtime prepares.

        Returns:
            Whether there was a run: where sizes beside the batch are free, nobody knows which will come.

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        sizes = {"batch": 1, MANY: 1}
        shapes = [[sizes.get(s, 0) if isinstance(s, str) else s for s in record.shape] for record in self.inputs]
        if any(0 in shape for shape in shapes):
            return False
        self.run({r.name: np.zeros(shape, r.dtype) for r, shape in zip(self.inputs, shapes, strict=True)})
        return True

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
    path: Path | str | bytes, *, device: Device = "auto", threads: int | None = None, spinning: bool = False
) -> ProductionExplainer:
    """Load an explainer file that relcompile wrote.

    Args:
        path: The .onnx file, or its content.
        device: "cuda" insists on the GPU; "auto" takes it if it works, else the CPU, which is logged (level
            INFO) if ONNX Runtime was installed for CUDA.
        threads: CPU threads that share one operator, 1 or more; None: as many as there are physical cores.
        spinning: Let idle threads wait actively. A little faster if this is the only session on an idle
            machine, several times slower if sessions share it; therefore off.

    Raises:
        ExplainerFileError: The file is missing, no regular file, damaged (see `relcompile.files.seal`), no ONNX file,
            or not one that relcompile wrote (see `relcompile.files.onnx_bounds`).
        RuntimeUnavailableError: ONNX Runtime is not installed, or `device="cuda"` would end on the CPU.
        InputSpecError: `path`, `device`, `threads` or `spinning` is none of the above.
    """
    check_arguments(path, device, threads, spinning)
    if isinstance(path, bytes):
        return _load_content(path, {"device": device, "threads": threads, "spinning": spinning})
    runtime = import_onnxruntime()
    check_file(Path(path))
    session = open_session(runtime, Path(path), device, session_options(runtime, threads, spinning))
    try:
        properties = session.get_modelmeta().custom_metadata_map
        text = properties.get(METADATA_KEY)
        check_weights_beside(Path(path), properties.get(WEIGHTS_KEY))
        if text is None:
            raise ExplainerFileError("it is an ONNX file, but not an explainer: relcompile did not write it")
        metadata = Metadata.from_json(text)
        settings = {"path": Path(path).absolute(), "device": device, "threads": threads, "spinning": spinning}
        return ProductionExplainer(metadata, session, _match_session(metadata, session), settings)
    except (ExplainerFileError, UnicodeDecodeError) as error:  # ONNX Runtime hands on what is not UTF-8
        raise ExplainerFileError(f"{path}: {error}") from error


def _load_content(content: bytes, settings: dict[str, Any]) -> ProductionExplainer:
    """By way of a file, which is gone afterwards, so that the same is checked; pickled with the content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "explainer.onnx")
        with told_of(Path("the explainer"), path):
            path.write_bytes(content)
            return replace(load(path, **settings), _loaded_with={"path": content, **settings})


def _photographed(metadata: Metadata, inputs: Sequence[Any]) -> tuple[Sequence[Any], tuple[Any, ...]]:
    """The inputs as arrays, and what the model sees of a photograph among them."""
    if len(inputs) != 1 or isinstance(inputs[0], np.ndarray | list | tuple):
        return inputs, ()
    from relcompile.pictures.photographs import Photographs, is_photograph

    if not is_photograph(inputs[0]):
        return inputs, ()
    photographs = Photographs.of(metadata)
    if photographs.assumption is not None:
        raise InputSpecError(
            "the file does not say how a photograph becomes its input: compile it with preprocessing=... (--mean, "
            "--std and so on), or give an array"
        )
    seen = photographs.read(inputs[0])
    return (seen.array,), (seen.view,)


def _match_session(metadata: Metadata, session: Any) -> InputRecord | None:
    """The target input, if there is one, after a check that graph and metadata fit each other."""
    values = {value.name: value for value in session.get_inputs()}
    promised = [record.name for record in inputs_but_target(metadata)]
    known = {*values, *(value.name for value in session.get_outputs())}
    missing = [name for name in (*promised, *metadata.output_names) if name not in known]
    extra = [name for name in values if name not in promised]
    target = metadata.target
    if missing or len(extra) != (target.takes_class or target.takes_entry or target.takes_seed):
        raise ExplainerFileError(
            f"graph and metadata disagree: the graph lacks {missing} and has the inputs {extra} beyond the "
            f'model\'s own, for target mode "{target.mode}"'
        )
    if not extra:
        return None
    value = values[extra[0]]
    leading = ("batch",) if target.questions is None else ("batch", MANY)
    if target.takes_class or target.takes_entry:
        return InputRecord(value.name, (*leading, *(value.shape[-1:] if target.takes_entry else ())), "int64")
    dtype = {"tensor(float16)": "float16", "tensor(double)": "float64"}.get(value.type, "float32")
    sizes: Sequence[int | str | None] = value.shape[1:]
    rest = (size if isinstance(size, int) else f"axis {axis}" for axis, size in enumerate(sizes, 1))
    return InputRecord(value.name, ("batch", *rest), dtype)
