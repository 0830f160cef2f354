"""Running a compiled explainer in production: numpy in, numpy out.

Imports the standard library, numpy and, when a file is loaded, ONNX Runtime: neither torch nor onnx.
"""

import contextlib
import io
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from relcompile.errors import ExplainerFileError, InputSpecError, RuntimeUnavailableError, TargetError
from relcompile.metadata import ABSORBED_OUTPUT, METADATA_KEY, ROOTS_OUTPUT, InputRecord, Metadata, TargetRecord

Array = NDArray[Any]
Device = Literal["auto", "cpu", "cuda"]

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_EXTRAS = "install one of them: pip install 'relcompile[cpu]' or pip install 'relcompile[gpu]'"
_FATAL = 4  # ONNX Runtime's log severity
_log = logging.getLogger(__name__)
_preload_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one call of `ProductionExplainer.explain` found out.

    Args:
        output: The explained output, usually (batch, classes).
        outputs: All outputs of the model, by name.
        relevance: Relevance of the first explained input, in that input's shape; of a layer, in that of its output; of
            Grad-CAM (batch, 1, height, width).
        relevances: All relevance, by the name of its output ("relevance", or "relevance_<input>").
        absorbed: Relevance that each layer absorbed, (batch, layers), in the order of `metadata.layers`; None
            if the file does not compute it.
        roots: Report on the learned roots, (batch, layers, quantities), named in `metadata.roots`; None if the file
            does not compute it.
        target: The classes that were explained, int64 (batch,), or the seed. None if the file explains the
            best class and its output has further axes, (batch, classes, ...), each place with its own best.
    """

    output: Array
    outputs: dict[str, Array]
    relevance: Array
    relevances: dict[str, Array]
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
                the output, in its shape.
            reference: Only for files compiled to take one: what differences are taken from, in the shape of the
                explained input.
            noise: Only for files that take noise (`metadata.noise`), by input name: standard normal numbers.
            seed: What is not in `noise` is drawn with this seed: equal seeds give equal results.

        Raises:
            InputSpecError: The number, shape or dtype of the inputs or of the reference does not fit, or the batch
                is empty.
            TargetError: The target is missing, not wanted, out of range or of the wrong shape or dtype.
            RuntimeUnavailableError: ONNX Runtime failed while it ran, for want of memory for example.
        """
        metadata = self.metadata
        feeds, batch = _check_inputs(metadata.inputs, inputs)
        checked = _check_target(metadata.target, self._target, target, batch)
        feeds |= _check_noise(metadata.noise, noise or {}, seed, batch)
        if self._target is not None and checked is not None:
            feeds[self._target.name] = checked
        feeds |= _check_reference(metadata.reference_input, reference, batch)
        found = self.run(feeds)
        output = found[metadata.explained]
        if metadata.target.mode == "argmax" and output.ndim <= 2:
            checked = output.reshape(batch, -1).argmax(axis=1).astype(np.int64)
        return Explanation(
            output=output,
            outputs={name: found[name] for name in metadata.outputs},
            relevance=found[metadata.relevance[0]],
            relevances={name: found[name] for name in metadata.relevance},
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
        ExplainerFileError: The file is missing, damaged, no ONNX file, or not one that relcompile wrote.
        RuntimeUnavailableError: ONNX Runtime is not installed, or `device="cuda"` would end on the CPU.
        ValueError: `device` or `threads` is none of the above.
    """
    if device not in ("auto", "cpu", "cuda") or (threads is not None and threads < 1):
        raise ValueError(f'device={device!r}, threads={threads}: want "auto", "cpu" or "cuda", and 1 thread or more')
    if Path(path).suffix.lower() == ".pt2":
        raise ExplainerFileError(f"{path} is not for ONNX Runtime: in Python, torch.export.load(path).module() runs it")
    runtime = _import_onnxruntime()
    if not Path(path).is_file():
        raise ExplainerFileError(f"{path} is not a file")
    session = _open_session(runtime, Path(path), device, _session_options(runtime, threads, spinning))
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ExplainerFileError(f"{path} is an ONNX file, but not an explainer: relcompile did not write it")
    try:
        metadata = Metadata.from_json(text)
        return ProductionExplainer(metadata, session, _match_session(metadata, session))
    except ExplainerFileError as error:
        raise ExplainerFileError(f"{path}: {error}") from error


def _import_onnxruntime() -> Any:
    """The onnxruntime module, complete."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(f"ONNX Runtime cannot be imported ({error}); {_EXTRAS}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeUnavailableError(
            "ONNX Runtime is installed in part only: onnxruntime and onnxruntime-gpu share a folder, and "
            f"removing one breaks the other; uninstall both, then {_EXTRAS}"
        )
    return onnxruntime


def _session_options(runtime: Any, threads: int | None, spinning: bool) -> Any:
    """Options of one session. Its errors come as exceptions, so it need not log them as well."""
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or 0
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(spinning)))
    return options


def _open_session(runtime: Any, path: Path, device: Device, options: Any) -> Any:
    """A session on the device, and an error rather than a silent move to another one."""
    reason = "this ONNX Runtime was built without CUDA; pip install 'relcompile[gpu]' (and not [cpu] beside it)"
    if device != "cpu" and _CUDA in runtime.get_available_providers():
        complaints = _preload_cuda(runtime) or "ONNX Runtime's log on stderr says why"
        reason = f"CUDA did not start: {complaints}"
        try:
            session = runtime.InferenceSession(str(path), options, providers=[_CUDA, _CPU], enable_fallback=0)
            if _CUDA in session.get_providers():
                return session
        except Exception as error:  # the file's fault or the GPU's: the CPU will tell
            reason = str(error)
        if device == "auto":
            _log.info("%s runs on the CPU although ONNX Runtime is installed for CUDA: %s", path, reason)
    try:
        session = runtime.InferenceSession(str(path), options, providers=[_CPU], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ExplainerFileError(f"ONNX Runtime {runtime.__version__} cannot load {path}: {error}") from error
    if device == "cuda":
        raise RuntimeUnavailableError(f'device="cuda" ended on {session.get_providers()}: {reason}')
    return session


def _preload_cuda(runtime: Any) -> str:
    """Load the CUDA libraries of the nvidia packages, which ONNX Runtime does not find by itself.

    Returns:
        What ONNX Runtime printed about missing libraries, on one line.
    """
    # The lock keeps two loads from restoring each other's standard output.
    with _preload_lock, contextlib.redirect_stdout(io.StringIO()) as printed:
        runtime.preload_dlls()
    return "; ".join(printed.getvalue().splitlines())


def _match_session(metadata: Metadata, session: Any) -> InputRecord | None:
    """The target input, if there is one, after a check that graph and metadata fit each other."""
    values = {value.name: value for value in session.get_inputs()}
    promised = [record.name for record in _inputs_but_target(metadata)]
    known = {*values, *(value.name for value in session.get_outputs())}
    missing = [name for name in (*promised, *metadata.output_names) if name not in known]
    extra = [name for name in values if name not in promised]
    mode = metadata.target.mode
    if missing or len(extra) != (mode in ("index", "seed")):
        raise ExplainerFileError(
            f"graph and metadata disagree: the graph lacks {missing} and has the inputs {extra} beyond the "
            f'model\'s own, for target mode "{mode}"'
        )
    if not extra:
        return None
    value = values[extra[0]]
    if mode == "index":
        return InputRecord(value.name, ("batch",), "int64")
    dtype = {"tensor(float16)": "float16", "tensor(double)": "float64"}.get(value.type, "float32")
    sizes: Sequence[int | str | None] = value.shape[1:]
    rest = (size if isinstance(size, int) else f"axis {axis}" for axis, size in enumerate(sizes, 1))
    return InputRecord(value.name, ("batch", *rest), dtype)


def _inputs_but_target(metadata: Metadata) -> tuple[InputRecord, ...]:
    """Everything that the graph reads beside the target."""
    of_reference = () if metadata.reference_input is None else (metadata.reference_input,)
    return (*metadata.inputs, *metadata.noise, *of_reference)


def _check_inputs(records: Sequence[InputRecord], arrays: Sequence[Array]) -> tuple[dict[str, Array], int]:
    """The arrays by input name, and the batch size."""
    if len(arrays) != len(records):
        wanted = ", ".join(f"{record.name} {list(record.shape)}" for record in records)
        raise InputSpecError(f"{len(arrays)} inputs were given, but the file takes {len(records)}: {wanted}")
    sizes: dict[str, int] = {}
    feeds = {record.name: _fit(record, array, sizes) for record, array in zip(records, arrays, strict=True)}
    return feeds, sizes.get("batch", (*arrays[0].shape, 1)[0])


def _check_target(record: TargetRecord, entry: InputRecord | None, target: object, batch: int) -> Array | None:
    """The target as the graph takes it, or the class that the file always explains."""
    if entry is None and target is not None:
        always = "the best class" if record.mode == "argmax" else f"class {record.index}"
        raise TargetError(f"target={target!r} was given, but the file always explains {always}; leave it out")
    if entry is None:
        return None if record.mode == "argmax" else np.full(batch, record.index, np.int64)
    if target is None and (record.mode == "seed" or record.classes is not None):
        raise TargetError("this file needs target=..., or compile the model with --target argmax")
    if record.mode == "seed":
        try:
            return _fit(entry, target, {"batch": batch})
        except InputSpecError as error:
            raise TargetError(f"the target is a seed: {error}") from error
    return _check_classes(record, 0 if target is None else target, batch)


def _check_classes(record: TargetRecord, target: object, batch: int) -> Array:
    """One class for each row; class 0 is all that an output of one number a row has."""
    try:
        classes = np.asarray(target)
    except ValueError as error:
        raise TargetError(f"target={target!r} is not one class, or one for each row: {error}") from error
    if classes.dtype.kind not in "iu" or classes.shape not in ((), (batch,)):
        raise TargetError(
            f"target has dtype {classes.dtype} and shape {classes.shape}; give one integer, or one for each "
            f"of the {batch} rows"
        )
    limit = record.classes or 1
    for value in classes.flat:
        if not 0 <= value < limit:
            known = (
                f"classes run from 0 to {limit - 1}" if record.classes else "the output has no classes, leave it out"
            )
            raise TargetError(f"target {value} does not exist: {known}")
    return np.full(batch, classes, np.int64)


def _check_noise(records: Sequence[InputRecord], given: Mapping[str, Array], seed: int, batch: int) -> dict[str, Array]:
    """Noise as the graph takes it, drawn where it was not given."""
    names = [record.name for record in records]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputSpecError(f"noise {', '.join(unknown)} was given, but the file takes {', '.join(names) or 'none'}")
    generator = np.random.default_rng(seed)
    noise = dict[str, Array]()
    for record in records:
        sizes = [size if isinstance(size, int) else batch for size in record.shape]
        drawn = generator.standard_normal(sizes, np.float64 if record.dtype == "float64" else np.float32)
        array = given.get(record.name, drawn.astype(record.dtype, copy=False))
        noise[record.name] = _fit(record, array, {"batch": batch})
    return noise


def _check_reference(entry: InputRecord | None, reference: Array | None, batch: int) -> dict[str, Array]:
    """The reference by its name, if the graph takes one."""
    if (entry is None) != (reference is None):
        raise InputSpecError(
            "reference=... was given, but the file takes none: its reference is fixed"
            if entry is None
            else f"this file needs reference=..., {entry.dtype} {list(entry.shape)}: what differences are taken from"
        )
    return {} if entry is None else {entry.name: _fit(entry, reference, {"batch": batch})}


def _fit(record: InputRecord, array: object, sizes: dict[str, int]) -> Array:
    """The array as the graph takes it; `sizes` learns the size of each symbol."""
    wanted = f"input {record.name} wants {record.dtype} {list(record.shape)}"
    if not isinstance(array, np.ndarray):
        raise InputSpecError(f"{wanted}, but a {type(array).__name__} was given; make it a numpy array")
    found: Array = array
    if found.ndim != len(record.shape):
        raise InputSpecError(f"{wanted}, but the shape {found.shape} was given")
    if 0 in found.shape:
        raise InputSpecError(f"{wanted}, but an empty array of shape {found.shape} was given")
    for axis, (expected, size) in enumerate(zip(record.shape, found.shape, strict=True)):
        bound = expected if isinstance(expected, int) else sizes.setdefault(expected, size)
        if bound != size:
            raise InputSpecError(f"{wanted}, but the shape {found.shape} was given; axis {axis} is not {bound}")
    dtype = np.dtype(record.dtype)
    same_kind = found.dtype.kind == dtype.kind or {found.dtype.kind, dtype.kind} == {"i", "u"}
    if not (same_kind and np.can_cast(found.dtype, dtype, casting="safe")):
        raise InputSpecError(f"{wanted}, but {found.dtype} was given; convert it with .astype('{dtype}')")
    return np.asarray(found, dtype=dtype, order="C")
