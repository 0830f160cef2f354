"""AttnLRP and CP-LRP of language models against LXT's efficient form, which patches classes."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import relcompile
from tests.compare import assert_close
from tests.whole.lxt_efficient import CASES, TARGET, Case, subject

# LXT divides by x + 1e-10, and its norms are in float32, as those of transformers.
FLOAT32_NORMS = 1e-6


@pytest.mark.heavy
@pytest.mark.skipif(find_spec("lxt") is None, reason="needs LXT: `pip install --no-deps lxt==2.1`")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}, {case.rule}")
def test_equals_lxt(case: Case, tmp_path: Path) -> None:
    theirs = tmp_path / "relevance.pt"
    command = [sys.executable, "-m", "tests.whole.lxt_efficient", str(CASES.index(case)), str(theirs)]
    subprocess.run(command, check=True)
    with torch.random.fork_rng():
        _, model, inputs = subject(case.model)
    _, relevance = relcompile.compile(model, inputs, rule=case.rule)(*inputs.values(), TARGET)
    assert_close(relevance, torch.load(theirs), FLOAT32_NORMS)
