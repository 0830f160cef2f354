"""Which of an explainer's two files answers what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relcompile.runtime.conditional import Condition
from relcompile.serving.model import Model
from relcompile.serving.protocol import Request, Wanted
from tests.runtime.test_conditional import paired
from tests.runtime.test_runtime import W, X

PREDICTION = (Wanted("output", True),)


@pytest.mark.parametrize(
    ("outputs", "condition", "runs"),
    [
        (None, None, [2]),
        (PREDICTION, None, []),
        ((*PREDICTION, Wanted("relevance", True)), None, [2]),
        (None, Condition(0.9), [1]),
        (None, Condition(1.0), []),
        (PREDICTION, Condition(1.0), []),
        ((*PREDICTION, Wanted("explained", True)), Condition(0.9), []),
        ((Wanted("explained", True), Wanted("relevance", True)), Condition(0.9), [1]),
    ],
)
def test_the_explainer_runs_where_it_must(tmp_path: Path, outputs: Any, condition: Any, runs: list[int]) -> None:
    explainer, counting = paired(tmp_path)
    model = Model.of(explainer, waiting=4, rows=4)
    counting.rows.clear()  # it was warmed up
    request = Request("", {"input": X, "target": np.array([3, 1])}, outputs, True, condition)
    found = asyncio.run(model.answer(request))
    assert counting.rows == runs
    np.testing.assert_allclose(found["output"], X @ W, rtol=1e-6)
    for queue in model.queues:
        queue.close()
    assert not model.is_alive
