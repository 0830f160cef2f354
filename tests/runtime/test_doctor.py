"""`relcompile doctor`, here and in environments that are broken in known ways."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx.parser
import pytest

from relcompile.cli.main import main
from relcompile.runtime.doctor import PROBE

# What stands in the place of onnxruntime: the module, the packages that are installed; what is told, and the exit code.
WHOLE = """
__version__ = "1.99"
def get_available_providers(): return ["CUDAExecutionProvider", "CPUExecutionProvider"]
class InferenceSession:
    def __init__(self, model, providers): self.asked = providers
    def run(self, names, feeds): return [feeds["x"]]
    def get_providers(self): return ["CPUExecutionProvider"]
def preload_dlls():
    import sys
    print("Failed to load x.so: libcublasLt.so.13: cannot open shared object file: No such file", file=sys.stderr)
"""
BROKEN: dict[str, tuple[str, tuple[str, ...], list[str], int]] = {
    "CUDA without its libraries": (
        WHOLE,
        ("onnxruntime-gpu",),
        ["does not start: lacks libcublasLt.so.13; what asks for it runs on CPUExecutionProvider", "serve-gpu"],
        0,
    ),
    "both packages": (
        WHOLE,
        ("onnxruntime", "onnxruntime-gpu"),
        ["they write into one folder", "pip uninstall -y onnxruntime onnxruntime-gpu"],
        0,
    ),
    "half a package": (
        "",
        ("onnxruntime",),
        ["cannot be imported: AttributeError", "pip uninstall -y onnxruntime,"],
        2,
    ),
    "native code that ends the process": (
        WHOLE.replace("print(", "import os; os.abort(); print("),
        ("onnxruntime-gpu",),
        ["does not start: the process ended with -6"],
        0,
    ),
    "a CPU that does not work": (
        WHOLE.replace('return ["CPU', 'raise RuntimeError("no AVX")  # ["CPU'),
        ("onnxruntime",),
        ["does not start: RuntimeError: no AVX", "no explainer can be run here"],
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_told_with_the_way_out(tmp_path: Path, case: str) -> None:
    module, packages, told, code = BROKEN[case]
    (tmp_path / "onnxruntime.py").write_text(module)
    for name in packages:
        folder = tmp_path / f"{name.replace('-', '_')}-1.99.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.99\n")
    code_of_doctor = (
        "import importlib.metadata as m, relcompile.runtime.doctor as d; real = d.distributions\n"
        f"d.distributions = lambda: real(path=[{str(tmp_path)!r}])\n"
        "from relcompile.cli.main import main; main(['doctor'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code_of_doctor],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "COLUMNS": "400"},
    )
    assert found.returncode == code, found.stderr
    for part in told:
        assert part in found.stdout + found.stderr


def test_what_is_here_works(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["doctor"])
    assert "starts" in capsys.readouterr().out


def test_the_probe_is_one_node() -> None:
    text = '<ir_version: 8, opset_import: ["": 13]> one (float[1] x) => (float[1] y) { y = Relu (x) }'
    assert onnx.load_from_string(bytes.fromhex(PROBE)) == onnx.parser.parse_model(text)
