"""The face for those who write rules: what they need is in `relcompile.rules`, `relcompile.presets`, `relcompile`."""

from __future__ import annotations

import ast
import importlib
import math
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import relcompile
import relcompile.methods.rules
from relcompile import Composite, Entry, presets, rules
from relcompile.methods.presets import RULES
from relcompile.rules import Adjoint, AffineCall, AnyRule, Call, Form, Messages, PassThrough, Relevance
from tests.compare import FLOAT64, assert_close

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Uniform:
    """Every input of a layer gets the same share of what arrives: the rule of the docstring of `relcompile.rules`."""

    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        total = arriving.relevance.sum(range(1, arriving.at.ndim))
        share = total.reshape([-1] + [1] * (call.x.ndim - 1)) * (1 / math.prod(call.x.shape[1:]))
        return (Relevance(call.x, share.expand_like(call.x)),)


def test_a_rule_from_outside() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    rule: AnyRule = Uniform()
    composite = Composite(
        "uniform", (Entry(rule, kind="affine"), Entry(PassThrough(), kind="activation"), Entry(Adjoint()))
    )
    output, relevance = relcompile.compile(model, x, rule=composite, target=2)(x)
    assert_close(relevance, output[:, 2].reshape(3, 1, 1, 1).expand(3, 2, 6, 6) / 72, FLOAT64)


def test_the_docstring_has_that_rule() -> None:
    text = ast.get_source_segment(source := Path(__file__).read_text(encoding="utf-8"), _class(source, "Uniform")) or ""
    body = [line.strip() for line in text.splitlines()[3:] if line.strip()]
    told = [line.strip() for line in (rules.__doc__ or "").splitlines()]
    assert set(body) <= set(told)


def _class(source: str, name: str) -> ast.ClassDef:
    found = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    return found[0]


def test_every_rule_is_there() -> None:
    package = relcompile.methods.rules
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    public = {
        value.__name__
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and hasattr(value, "propagate") and value.__module__ == module.__name__
    }
    assert "AlphaBeta" in public
    by_name = {type(row.build()).__name__ for row in RULES.values() if not row.needs}
    assert public <= set(rules.__all__) | by_name


@pytest.mark.parametrize("face", [rules, presets], ids=["rules", "presets"])
def test_names_are_sorted_out(face: object) -> None:
    names = vars(face)["__all__"]
    assert len(set(names)) == len(names)
    assert all(hasattr(face, name) for name in names)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_no_example_imports_passes(path: Path) -> None:
    imports = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    inside = [name for name in modules if name.split(".")[0] == "passes" or name.startswith("relcompile.methods")]
    assert not inside
