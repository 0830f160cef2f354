"""Sessions of ONNX Runtime on the device that was asked for, and not on another one."""

import contextlib
import io
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from relcompile.errors import ExplainerFileError, RuntimeUnavailableError
from relcompile.files.arrays import DTYPES
from relcompile.files.records import InputRecord
from relcompile.runtime.options import CPU, CUDA, TENSORRT, RuntimeOptions

_EXTRAS = (
    "install one of them: pip install 'relcompile[serve-cpu]' or 'relcompile[serve-gpu]', or, with the compiler, "
    "'relcompile[cpu]' or 'relcompile[gpu]'"
)


_DTYPES: Final = {f"tensor({name})": name for name in DTYPES} | {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


_log = logging.getLogger("relcompile.runtime")


_preload_lock = threading.Lock()


def described(values: Iterable[Any]) -> tuple[InputRecord, ...]:
    """Names, shapes and dtypes of what a session reads or computes.

    Raises:
        MetadataError: one of them is no array of numbers.
    """
    return tuple(
        InputRecord(
            value.name,
            tuple(size if isinstance(size, int | str) else f"axis {axis}" for axis, size in enumerate(value.shape)),
            _DTYPES.get(str(value.type), str(value.type)),
        )
        for value in values
    )


def import_onnxruntime() -> Any:
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


def open_session(runtime: Any, path: Path, asked: RuntimeOptions) -> Any:
    """A session on the device, and an error rather than a silent move to another one."""
    wanted, device = TENSORRT if asked.device == "tensorrt" else CUDA, asked.device
    name = "TensorRT" if device == "tensorrt" else "CUDA"
    options = asked.of_session(runtime)
    reason = (
        f"this ONNX Runtime was built without {name}; pip install 'relcompile[gpu]' or 'relcompile[serve-gpu]' (and "
        "nothing with cpu beside it)"
    )
    if device != "cpu" and wanted in runtime.get_available_providers():
        complaints = _preload_cuda(runtime) or "ONNX Runtime's log on stderr says why"
        reason = f"{name} did not start: {complaints}"
        try:
            session = runtime.InferenceSession(str(path), options, providers=asked.providers, enable_fallback=0)
            if wanted in session.get_providers():
                return session
        except Exception as error:  # the file's fault or the GPU's: the CPU will tell
            reason = str(error)
        if device == "auto":
            _log.info("%s runs on the CPU although ONNX Runtime is installed for CUDA: %s", path, reason)
    try:
        session = runtime.InferenceSession(str(path), options, providers=[CPU], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ExplainerFileError(
            f"ONNX Runtime {runtime.__version__} cannot load {path}, which should be what `relcompile MODEL` wrote: "
            f"{error}"
        ) from error
    if device in ("cuda", "tensorrt"):
        raise RuntimeUnavailableError(f'device="{device}" ended on {session.get_providers()}: {reason}')
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
