"""The best class of every sample."""

from __future__ import annotations

import numpy as np

from relcompile.runtime.explanation import Explanation
from relcompile.runtime.feeds import Array
from relcompile.runtime.form import best_class
from relcompile.runtime.production import ProductionExplainer


def explain_best(explainer: ProductionExplainer, *inputs: Array, reference: Array | None = None) -> Explanation:
    """Explain the best class of each row.

    Which that is, a file that takes a class does not know: the prediction beside it says so, or a first run of it.

    Args:
        explainer: A file whose target is a class, or several, for each row.
        inputs: Its inputs, (batch, ...) each.
        reference: What differences are taken from, if the file takes that.
    """
    if not explainer.metadata.target.takes_class:
        return explainer.explain(*inputs, reference=reference)
    if explainer.is_paired:
        found = explainer.explain_if(_every_row, *inputs, reference=reference).explanation
        assert found is not None
        return found
    several = explainer.metadata.target.questions is not None
    first = explainer.explain(*inputs, target=[0] if several else 0, reference=reference)
    best = best_class(first.output, several=several)
    return explainer.explain(*inputs, target=best, reference=reference) if best.any() else first


def _every_row(output: Array) -> Array:
    return np.ones(len(output), bool)
