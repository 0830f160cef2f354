"""Is the explanation faithful? Measures of explanations, and what they say of a rule on a model.

`evaluate` measures, `verdicts` judges, `page` draws; `quantus_explain` hands an explainer to Quantus.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relcompile.evaluation.quantus import quantus_explain
    from relcompile.evaluation.report import page
    from relcompile.evaluation.results import Results
    from relcompile.evaluation.run import evaluate
    from relcompile.evaluation.subject import Subject
    from relcompile.evaluation.trial import Settings
    from relcompile.evaluation.verdict import verdicts

_HOME = {
    "Results": "relcompile.evaluation.results",
    "Settings": "relcompile.evaluation.trial",
    "Subject": "relcompile.evaluation.subject",
    "evaluate": "relcompile.evaluation.run",
    "page": "relcompile.evaluation.report",
    "quantus_explain": "relcompile.evaluation.quantus",
    "verdicts": "relcompile.evaluation.verdict",
}
__all__ = ["Results", "Settings", "Subject", "evaluate", "page", "quantus_explain", "verdicts"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
