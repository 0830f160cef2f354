"""Does the module compute what the file does? Asked of ONNX Runtime, before every compilation of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from relcompile.errors import InputSpecError, ModelFileError, RuntimeUnavailableError
from relcompile.frontend.first_run import run_model
from relcompile.frontend.onnx.model import Declared, OnnxModel

TOLERANCE: Final = 1e-3  # of the largest magnitude: float32 is rounded in another order, layer by layer
PROBABLE: Final = 1e-3  # what probabilities are at least measured by: ONNX Runtime's are off by 1e-7, also from 0
STEPS: Final = 0.02  # the same for quantised networks: rounding decides between steps, of which there are 256
_PROBABILITIES: Final = ("Sigmoid", "Softmax")
Arrays = dict[str, NDArray[Any]]


class Original:
    """The file itself, in ONNX Runtime.

    Args:
        model: read from the file.

    Raises:
        ModelFileError: ONNX Runtime does not load the file.
        RuntimeUnavailableError: ONNX Runtime is not installed.
    """

    def __init__(self, model: OnnxModel) -> None:
        self._graph = model.graph
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailableError(
                "every ONNX file that is compiled is compared with ONNX Runtime, which is missing: pip install "
                "'relcompile[cpu]'"
            ) from error
        options: Any = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        path = str(model.graph.path)
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelFileError(f"ONNX Runtime does not load {path}: {_reason(error)}") from error

    def run(self, samples: Arrays) -> Arrays:
        """Its outputs by identifier, so many samples at a time as the file takes.

        Args:
            samples: by identifier of an input, the batch on axis 0; cast to what the file declares.

        Raises:
            InputSpecError: the file does not take them.
        """
        total = len(next(iter(samples.values())))
        size, parts = self._graph.batch or total, list[list[Any]]()
        for start in range(0, total, size):
            rows = [k % total for k in range(start, start + size)]
            parts.append(self._run({d.name: samples[d.identifier][rows].astype(_dtype(d)) for d in self._graph.inputs}))
        together = (same[0] if len(parts) == 1 else np.concatenate(same) for same in zip(*parts, strict=True))
        names = (declared.identifier for declared in self._graph.outputs)
        return {name: y if size == total else y[:total] for name, y in zip(names, together, strict=True)}

    def _run(self, feeds: Arrays) -> list[Any]:
        try:
            found = self._session.run([declared.name for declared in self._graph.outputs], feeds)
            return [
                self._of_map(d, y) if isinstance(y, list) else y
                for d, y in zip(self._graph.outputs, found, strict=True)
            ]
        except Exception as error:
            shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in feeds.items())
            reason = _reason(error)
            wanted = ", ".join(f"{value.name} {value.shape}" for value in self._session.get_inputs())
            raise InputSpecError(
                f"ONNX Runtime does not run {self._graph.path} on {shapes}: {reason}; the file takes {wanted}"
            ) from error

    def _of_map(self, output: Declared, rows: Sequence[Mapping[Any, float]]) -> NDArray[Any]:
        """The scores that a map names, in the order in which the file lists the names."""
        node = next(node for node in self._graph.nodes if output.name in node.outputs)
        names = node.attributes.get("classlabels_int64s") or node.attributes["classlabels_strings"]
        return np.array([[row[name] for name in names] for row in rows], np.float32)


def check_original(model: OnnxModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Run the file in ONNX Runtime and the module in torch, on the examples and on samples unlike them.

    Args:
        model: read from the file.
        inputs: examples by identifier, the batch on axis 0. A file that fixes its batch is run on so many at once.

    Returns:
        By output, the largest difference, of the largest magnitude.

    Raises:
        InputSpecError: the file does not take these inputs.
        ModelFileError: an output differs by more than rounding, or samples of one batch have a say in each other.
        RuntimeUnavailableError: ONNX Runtime is not installed.
    """
    samples = {name: _two(x) for name, x in inputs.items()}
    with torch.no_grad():
        found = {name: value.numpy() for name, value in run_model(model, samples).items()}
    wanted = Original(model).run({name: x.numpy() for name, x in samples.items()})
    least = {d.identifier: PROBABLE if model.made_by(d.name) in _PROBABILITIES else 0.0 for d in model.graph.outputs}
    errors = {name: difference(found[name], wanted[name], least[name]) for name in found}
    limit = STEPS if model.is_quantised else TOLERANCE
    wrong = [f"{name} by {error:.1e} of its maximum" for name, error in errors.items() if not error <= limit]
    if wrong:
        fixed = " (the file fixes its batch, and its samples may have a say in each other)" if model.graph.batch else ""
        raise ModelFileError(
            f"{model.graph.path}: read as a torch module it does not predict what ONNX Runtime predicts: "
            f"{', '.join(wrong)}{fixed}"
        )
    return errors


def _two(x: torch.Tensor) -> torch.Tensor:
    """The examples, and moved ones: whatever depends on another sample shows."""
    return torch.cat([x, x.roll(1, -1) * 0.9 if x.is_floating_point() else x])


def _dtype(declared: Declared) -> str:
    return str(declared.dtype).removeprefix("torch.")


def _reason(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def difference(found: NDArray[Any], wanted: NDArray[Any], least: float = 0.0) -> float:
    """The largest, over the largest magnitude (or `least`); of integers, the share that differs."""
    if found.shape != wanted.shape:
        return np.inf
    if not np.issubdtype(wanted.dtype, np.floating):
        return float((found != wanted).mean()) if found.size else 0.0
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    error = np.where(same, 0.0, np.abs(found.astype(np.float64) - wanted))
    finite = np.abs(wanted[np.isfinite(wanted)])
    return float(error.max(initial=0.0) / (max(finite.max(initial=0.0), least) or 1.0))
