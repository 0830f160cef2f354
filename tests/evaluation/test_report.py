"""The page of an evaluation, clicked through in a real browser."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relcompile.evaluation import page
from relcompile.evaluation.results import Picture, Results, Row, Shown
from relcompile.files.records import LayerRecord
from tests.browser import opened

LAYERS = ("input", "conv1", "fc")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
RULES = {"z+": (1 - 1e-6, 0.99, 0.1), "<b>root</b> & co": (0.4, 0.3, 0.7)}  # a rule's name is text, not markup


@pytest.fixture(scope="module")
def results() -> Results:
    """Made-up numbers of two rules for every figure."""
    rng, rows = np.random.default_rng(0), [Row("", "singular-ratio", -1, 3.0, layer) for layer in LAYERS[1:]]
    for rule, (csc, ssim, srg) in RULES.items():
        for layer in LAYERS:
            rows.append(Row(rule, "csc-random", -1, 0.5, layer))
            rows += [Row(rule, "csc", k, csc, layer, 0.5) for k in range(3)]
            rows += [Row(rule, "conservation", k, 1.0, layer) for k in range(3)]
            rows += [Row(rule, "absorbed", k, 0.0, layer) for k in range(3)]
        rows += [Row(rule, "cascade-flipped", k, ssim, layer) for layer in ("fc", "conv1") for k in range(3)]
        rows += [Row(rule, "random-logit-flipped", k, ssim + 0.01 * rng.random()) for k in range(3)]
        rows += [Row(rule, "srg", k, srg + 0.01 * rng.random(), "mean") for k in range(3)]
        for metric, values in (("lerf", (0.9, 0.8, 0.1)), ("morf", (0.9, 0.3, 0.1))):
            steps = zip((0.0, 0.5, 1.0), values, strict=True)
            rows += [Row(rule, metric, k, value, "mean", step) for step, value in steps for k in range(3)]
    layer = LayerRecord("fc", operator="linear", kind="affine", rule="AlphaBeta(alpha=1)", parameters=12)
    shown = Shown((layer,), (Picture(0, target=3, limit=0.25, image=PNG, map=PNG),))
    facts = {"rules": list(RULES), "shape": [3, 3, 8, 8], "model": "net.pt", "weights_sha256": "abc"}
    return Results(facts, rows, [], {"z+ roots": "it learns none"}, dict.fromkeys(RULES, shown))


def test_click_through(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(page(results), encoding="utf-8")
    assert file.stat().st_size < 10e6
    with opened(file.as_uri()) as tab:
        tab.page.wait_for_selector("html[data-ready=yes]")
        assert tab.page.locator("#verdict tbody tr >> nth=0").inner_text().startswith("z+")
        assert tab.page.locator(".standing").all_inner_texts() == ["✗ ignores them", "✓ depends on them"]
        assert tab.page.locator(".plot .main-svg").count() >= 6
        assert tab.page.locator("img:not([alt]), [role=img]:not([aria-label])").count() == 0
        assert tab.page.locator("#verdict th b").count() == 0
        _evidence_by_keyboard(tab.page)
        _overlay(tab.page)
        _dark(tab.page)
        assert tab.errors == []


def _evidence_by_keyboard(page: Any) -> None:
    """Tab to the link of the first rule, Enter: its evidence opens, and has the focus."""
    keyboard = page.keyboard
    for _ in range(12):
        keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == "#rule-1":
            break
    keyboard.press("Enter")
    page.wait_for_selector("#rule-1[open]")
    assert "random-logit SSIM" in page.locator("#rule-1").inner_text()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def _overlay(page: Any) -> None:
    page.locator("#overlay").focus()
    page.keyboard.press("Home")
    assert page.locator(".stack .map >> nth=0").evaluate("e => getComputedStyle(e).opacity") == "0"
    assert "0.25" in page.locator(".ticks >> nth=0").inner_text()


def _dark(page: Any) -> None:
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"


def test_dark_where_the_system_is(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(page(results), encoding="utf-8")
    with opened(file.as_uri(), dark=True, width=400) as tab:
        tab.page.wait_for_selector("html[data-theme=dark]")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert tab.errors == []


def test_a_page_of_nothing_but_refusals() -> None:
    text = page(Results({"rules": ["zb"], "shape": [1, 3, 8, 8]}, refused={"zb csc": "it needs bounds"}))
    assert "it needs bounds" in text
    assert "not measured" in text
