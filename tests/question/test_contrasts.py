"""One class against another, or against the mean of the others: equal to the seed that says the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import CompositeError, RelcompileError, TargetError
from tests.compare import FLOAT64, ONNX, assert_close
from tests.question.networks import TARGET, X, residual

CLASSES = torch.tensor([[1, 4, 0], [3, 3, 1], [0, 1, 2]])
EYE = torch.eye(5, dtype=torch.float64)


def others(classes: Tensor) -> Tensor:
    """What sets classes against the mean of the four others."""
    return EYE[classes] * 1.25 - 0.25


def best(output: Tensor) -> Tensor:
    return EYE[output.argmax(1)]


CASES: dict[str, tuple[tuple[Tensor, ...], Callable[[Tensor], Tensor]]] = {
    "3-1": ((), lambda y: (EYE[3] - EYE[1]).expand(3, 5)),
    "3-others": ((), lambda y: others(torch.tensor([3, 3, 3]))),
    "3-argmax": ((), lambda y: EYE[3] - best(y)),
    "index-2": ((TARGET,), lambda y: EYE[TARGET] - EYE[2]),
    "index-others": ((TARGET,), lambda y: others(TARGET)),
    "indices-others": ((CLASSES,), lambda y: others(CLASSES)),
    "topk:2-others": ((), lambda y: others(y.topk(2).indices)),
    "all-0": ((), lambda y: (EYE - EYE[0]).expand(3, 5, 5)),
    "3-1,3-others,2,4-1": (
        (),
        lambda y: torch.stack([EYE[3] - EYE[1], others(torch.tensor(3)), EYE[2], EYE[4] - EYE[1]])[None].expand(
            3, 4, 5
        ),
    ),
}


@cache
def seeded(rule: str, target: str) -> relcompile.Explainer:
    return relcompile.compile(residual(), X, rule=rule, target=target)


@pytest.mark.parametrize(
    ("target", "rule"), [*((target, "z+") for target in CASES), ("3-1", "gradient"), ("indices-others", "gradient")]
)
def test_a_contrast_is_a_seed(target: str, rule: str) -> None:
    """For a rule that is no gradient, a seed is relevance: the multiplier times the output."""
    given, seed_of = CASES[target]
    explainer = relcompile.compile(residual(), X, rule=rule, target=target)
    output, relevance, *_ = explainer(X, *given)
    seed = seed_of(output.detach())
    scores = output[:, None] if seed.dim() == 3 else output
    expected = seeded(rule, "seed" if seed.dim() == 2 else "seeds")(X, seed if rule == "gradient" else seed * scores)[1]
    assert_close(relevance, expected, FLOAT64)


def test_the_difference_of_two_maps() -> None:
    """Linear in the seed: the map of a contrast is that of one class less that of the other."""
    one, two, both = (relcompile.compile(residual(), X, rule="epsilon", target=t)(X)[1] for t in (3, 1, "3-1"))
    assert_close(both, one - two, FLOAT64)


def test_a_list_says_its_classes() -> None:
    explainer = relcompile.compile(residual(), X, rule="z+", target="3-1,3-others,2")
    assert torch.equal(explainer(X)[2], torch.tensor([[3, 3, 2]] * 3))
    record = explainer.metadata.target
    assert (record.mode, record.questions, record.indices, record.against) == ("fixed", 3, (3, 3, 2), (1, "others", ""))


def test_a_file_of_a_contrast(tmp_path: Path) -> None:
    explainer = relcompile.compile(residual().float(), X.float(), rule="epsilon", target="3-others")
    explainer.save(tmp_path / "contrast.onnx")
    found = relcompile.load(tmp_path / "contrast.onnx", device="cpu").explain(X.float().numpy())
    assert_close(found.relevance, explainer(X.float())[1], ONNX)
    y = found.output[1].astype(np.float64)
    assert found.metadata.name[-2:] == ("class 3", "against others")
    expected = {
        "others": ("class 3 against others", y[3] - np.delete(y, 3).mean()),
        1: ("class 3 against class 1", y[3] - y[1]),
        "argmax": (f"class 3 against class {y.argmax()}", y[3] - y.max()),
    }
    for against, (label, score) in expected.items():
        record = replace(found.metadata.target, against=(against,))
        index, named, value = replace(found, metadata=replace(found.metadata, target=record)).chosen(1)
        assert (index, named) == (3, label)
        assert value == pytest.approx(score, rel=1e-4)


WRONG: dict[str, tuple[dict[str, object], type[RelcompileError], str]] = {
    "itself": ({"target": "3-3"}, TargetError, "class 3 against itself"),
    "no such class": ({"target": "3-5"}, TargetError, "target 5 does not exist"),
    "nothing": ({"target": "3-"}, TargetError, "others, argmax or a class number, not against ''"),
    "a word": ({"target": "3-rest"}, TargetError, "not against 'rest'"),
    "a seed": ({"target": "seed-3"}, TargetError, "a seed is set against nothing"),
    "an entry": ({"target": "entry-3"}, TargetError, "nor is an entry"),
    "a list of what the caller chooses": ({"target": "index-2,3"}, TargetError, "each must be a class number"),
    "nobody": ({"target": "-3"}, TargetError, "must be index, argmax"),
    "a rule that contrasts": ({"target": "3-1", "rule": "contrastive-lrp"}, CompositeError, "no other contrast"),
    "from a layer": ({"target": "3-1", "start": "pool"}, TargetError, "chooses from the output"),
}


@pytest.mark.parametrize("name", WRONG)
def test_contrasts_that_do_not_exist(name: str) -> None:
    options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        relcompile.compile(residual(), X, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["0-others", "index-others"])
def test_one_number_has_no_others(target: str) -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(TargetError, match="a contrast needs two classes"):
        relcompile.compile(model, torch.ones(2, 4), target=target)
