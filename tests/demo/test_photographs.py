"""The page's own preprocessing, in node: the same pixels as Pillow's, bit by bit."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relcompile.demo.site import PAGE
from relcompile.errors import InputSpecError
from relcompile.pictures.images import preprocess
from relcompile.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's JavaScript")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
const { preprocess } = await import(process.argv[1]);
const folder = process.argv[2];
for (const [k, job] of JSON.parse(readFileSync(folder + "/jobs.json")).entries()) {
  const photograph = { ...job, data: new Uint8Array(readFileSync(`${folder}/${k}.rgb`)) };
  try {
    writeFileSync(`${folder}/${k}.input`, preprocess(photograph, job.about).input);
  } catch (error) {
    writeFileSync(`${folder}/${k}.error`, error.message);
  }
}
"""


def colour(resize: int | None = None, crop: int | None = None, kind: Any = "bilinear", **more: Any) -> Preprocessing:
    return Preprocessing(resize, kind, crop, MEAN, STD, **more)


# name: preprocessing, (height, width) of the photograph, (height, width) of the input
CASES: dict[str, tuple[Preprocessing, tuple[int, int], tuple[int, int]]] = {
    "squashed": (colour(), (37, 61), (24, 16)),
    "stretched": (colour(), (5, 7), (24, 16)),
    "squashed, bicubic": (colour(kind="bicubic"), (37, 61), (24, 16)),
    "stretched, bicubic": (colour(kind="bicubic"), (5, 7), (24, 17)),
    "as it is": (colour(), (24, 16), (24, 16)),
    "one axis": (colour(kind="bicubic"), (24, 61), (24, 16)),
    "resized and cut": (colour(20, 16), (45, 61), (16, 16)),
    "an odd centre": (colour(21, 16, kind="bicubic"), (64, 47), (16, 16)),
    "cut": (colour(None, 16), (31, 33), (16, 16)),
    "BGR": (Preprocessing(None, "bilinear", None, (104.0, 117.0, 123.0), (1.0,) * 3, "BGR", 1.0), (9, 8), (6, 5)),
    "grey": (Preprocessing(None, "bilinear", None, (0.13,), (0.31,)), (29, 28), (14, 14)),
}  # fmt: skip


def test_pixels_are_those_of_pillow(tmp_path: Path) -> None:
    jobs, expected = [], list[np.ndarray]()
    for k, (preprocessing, (height, width), wanted) in enumerate(CASES.values()):
        pixels = np.random.default_rng(k).choice([0, 1, 128, 254, 255], (height, width, 3)).astype(np.uint8)
        (tmp_path / f"{k}.rgb").write_bytes(pixels.tobytes())
        about = {"preprocessing": vars(preprocessing), "height": wanted[0], "width": wanted[1]}
        jobs.append({"height": height, "width": width, "about": about})
        expected.append(preprocess(Image.fromarray(pixels), preprocessing, wanted)[0])
    run_in_node(tmp_path, jobs)
    for k, name in enumerate(CASES):
        found = np.frombuffer((tmp_path / f"{k}.input").read_bytes(), np.float32).reshape(expected[k].shape)
        np.testing.assert_array_equal(found, expected[k], err_msg=name)


def test_photographs_that_are_too_small_are_refused_as_in_python(tmp_path: Path) -> None:
    preprocessing = colour(None, 16)
    (tmp_path / "0.rgb").write_bytes(bytes(3 * 9 * 40))
    about = {"preprocessing": vars(preprocessing), "height": 16, "width": 16}
    run_in_node(tmp_path, [{"height": 9, "width": 40, "about": about}])
    with pytest.raises(InputSpecError, match="too small"):
        preprocess(Image.new("RGB", (40, 9)), preprocessing, (16, 16))
    assert "smaller than 16 x 16" in (tmp_path / "0.error").read_text()


def run_in_node(folder: Path, jobs: list[dict[str, Any]]) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = ["node", "--input-type=module", "-e", SCRIPT, str(PAGE / "photographs.js"), str(folder)]
    subprocess.run(command, check=True, timeout=60)
