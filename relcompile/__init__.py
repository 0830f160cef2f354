"""relcompile: a compiler for explanations.

`compile` turns a PyTorch model and a relevance rule into one static graph; `load` runs a compiled explainer with
numpy and ONNX Runtime only. Importing this package imports neither torch nor onnx. What rules and methods of one's own
are written with is in `relcompile.rules` and `relcompile.presets`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relcompile.runtime.extras import way_out

if TYPE_CHECKING:
    from passes.errors import (
        InternalError,
        PassError,
        UnknownLayerError,
        UnsupportedOperatorError,
        UnsupportedRuleError,
    )
    from relcompile.backend.explainer import Explainer
    from relcompile.calibration.observer import calibrate
    from relcompile.calibration.store import Calibration
    from relcompile.compiler import CapturedModel, capture, compile
    from relcompile.errors import RelcompileError
    from relcompile.frontend.reading.model_file import read_model
    from relcompile.methods.composites import Composite, Entry
    from relcompile.preprocessing import Preprocessing
    from relcompile.question.options import Options
    from relcompile.question.targets import Target
    from relcompile.runtime.conditional import Condition
    from relcompile.runtime.options import GpuOptions
    from relcompile.runtime.production import Explanation, ProductionExplainer, load

_HOME = {
    "Calibration": "relcompile.calibration.store",
    "CapturedModel": "relcompile.compiler",
    "Composite": "relcompile.methods.composites",
    "Condition": "relcompile.runtime.conditional",
    "Entry": "relcompile.methods.composites",
    "Explainer": "relcompile.backend.explainer",
    "Explanation": "relcompile.runtime.production",
    "GpuOptions": "relcompile.runtime.options",
    "InternalError": "passes.errors",
    "Options": "relcompile.question.options",
    "PassError": "passes.errors",
    "Preprocessing": "relcompile.preprocessing",
    "ProductionExplainer": "relcompile.runtime.production",
    "RelcompileError": "relcompile.errors",
    "Target": "relcompile.question.targets",
    "UnknownLayerError": "passes.errors",
    "UnsupportedOperatorError": "passes.errors",
    "UnsupportedRuleError": "passes.errors",
    "calibrate": "relcompile.calibration.observer",
    "capture": "relcompile.compiler",
    "compile": "relcompile.compiler",
    "load": "relcompile.runtime.production",
    "read_model": "relcompile.frontend.reading.model_file",
}
__all__ = [  # noqa: RUF022  (the same names as `_HOME`, spelt out for type checkers)
    "calibrate",
    "capture",
    "compile",
    "load",
    "read_model",
    "Calibration",
    "CapturedModel",
    "Composite",
    "Condition",
    "Entry",
    "Explainer",
    "Explanation",
    "GpuOptions",
    "InternalError",
    "Options",
    "PassError",
    "Preprocessing",
    "ProductionExplainer",
    "RelcompileError",
    "Target",
    "UnknownLayerError",
    "UnsupportedOperatorError",
    "UnsupportedRuleError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        reason = way_out(error)
        if reason is None:
            raise
        raise ModuleNotFoundError(f"relcompile.{name}: {reason}", name=error.name) from error


def __dir__() -> list[str]:
    return sorted(_HOME)


def _check_sibling() -> None:
    """`passes` is a common name: make sure that Python finds the one that belongs to this package."""
    spec = find_spec("passes")
    expected = Path(__file__).resolve().parent.parent / "passes"
    found = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
    if found != expected:
        raise ImportError(
            f"relcompile needs its own package 'passes' ({expected}), but Python finds {found}; "
            "rename that file or folder, or run `python -P`"
        )


_check_sibling()
