"""A row for every doubt that applies, and none for others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import relcompile
from relcompile.backend import doubts
from relcompile.backend.doubts import DOUBTS


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("value", ["above", "at the limit", "None"])
def test_rows(value: str, shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"above": 2.0, "at the limit": 1.0, "None": 0.0}
    made = [replace(d, measure=lambda _: None if value == "None" else limits[value], limit=1.0) for d in DOUBTS]
    monkeypatch.setattr(doubts, "DOUBTS", tuple(made))
    explainer = relcompile.compile(nn.Linear(2, 2), torch.ones(1, 2))
    found = doubts.doubts(explainer, shares=shares)
    assert list(found) == [d.title for d in DOUBTS if value == "above" and (shares or not d.of_shares)]
    assert all("{" not in text for text in found.values())
