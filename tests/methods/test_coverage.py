"""What becomes of torch's own pointwise, reduction and view operators: every one of them has one fate."""

from __future__ import annotations

from collections import Counter

import pytest

from relcompile.methods.coverage import FATES, Fate, coverage

KNOWN: dict[Fate, tuple[str, ...]] = {
    "passed": ("relu", "tanh", "add", "mul", "sum", "amax", "cosh", "acosh", "permute", "view", "squeeze"),
    "split": (
        "clip",
        "true_divide",
        "movedim",
        "narrow",
        "logsumexp",
        "unfold",
        "diagonal",
        "log2",
        "split",
        "prod",
        "t",
        "atan2",
        "fmax",
        "sinc",
        "angle",
        "view_as_complex",
    ),
    "no gradient": ("gt", "isnan", "floor", "round", "sign", "logical_and", "bitwise_or", "argmax", "any", "detach"),
    "refused": ("digamma", "lgamma", "special_ndtri", "erfinv", "copysign"),
}


@pytest.mark.parametrize("fate", KNOWN)
def test_fates(fate: Fate) -> None:
    assert set(KNOWN[fate]) - set(coverage()[fate]) == set()


def test_every_operator_has_one() -> None:
    found = coverage()
    names = Counter(name for group in found.values() for name in group)
    assert set(found) == set(FATES)
    assert max(names.values()) == 1
    assert len(names) > 200
