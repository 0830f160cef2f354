"""What of ONNX Runtime is installed, which of its providers really start, and what to do about what does not work."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Final

PROBE: Final = (
    "08083a370a0e0a0178120179220452656c753a0012036f6e655a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02"
    "080142040a00100d"
)
"""An ONNX file in hexadecimal: y = Relu(x), float32 (1,)."""
_ASK: Final = "import onnxruntime; print(onnxruntime.__version__, *onnxruntime.get_available_providers())"
_START: Final = """
import sys, numpy, onnxruntime
if sys.argv[1] != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
    onnxruntime.preload_dlls()
session = onnxruntime.InferenceSession(bytes.fromhex(sys.argv[2]), providers=[sys.argv[1]])
session.run(None, {"x": numpy.ones(1, numpy.float32)})
print("used:", *session.get_providers())
"""
_PATIENCE: Final = 120  # seconds
_LIBRARY: Final = re.compile(r"lib[\w+.-]+\.so[\d.]*(?=: cannot open|: no version)|\w+\.dll")
_CPU: Final = "CPUExecutionProvider"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: it is.
        found: what was found.
        way_out: what to do, if that is wrong; "" if all is well.
    """

    what: str
    found: str
    way_out: str = ""


def examine() -> tuple[Finding, ...]:
    """Look at what is installed and start every provider, each in a process of its own."""
    installed = {name: each.version for each in distributions() if (name := each.metadata["Name"])}
    wheels = {name: version for name, version in installed.items() if name.replace("_", "-").startswith("onnxruntime")}
    asked = _run(_ASK)
    first = (_wheels(wheels), _imported(asked, wheels))
    if asked.returncode:
        return first
    return (*first, *(_provider(name, installed) for name in asked.stdout.split()[1:]))


def _wheels(wheels: Mapping[str, str]) -> Finding:
    """The packages share a folder: the one that was installed last has written over the others."""
    listed = ", ".join(f"{name} {version}" for name, version in sorted(wheels.items()))
    if len(wheels) > 1:
        out = f"pip uninstall -y {' '.join(sorted(wheels))}, then install one extra of relcompile"
        return Finding("packages of ONNX Runtime", f"{listed}: they write into one folder", out)
    return Finding("packages of ONNX Runtime", listed or "none", "" if wheels else _install(wheels))


def _imported(asked: subprocess.CompletedProcess[str], wheels: Collection[str]) -> Finding:
    if asked.returncode == 0:
        return Finding("onnxruntime", f"{asked.stdout.split()[0]} can be imported")
    return Finding("onnxruntime", f"cannot be imported: {_last_line(asked)}", _install(wheels))


def _install(wheels: Collection[str]) -> str:
    """How to get one package that is whole."""
    first = f"pip uninstall -y {' '.join(sorted(wheels))}, then " if wheels else ""
    return f"{first}pip install 'relcompile[serve-cpu]' or 'relcompile[serve-gpu]' (with the compiler: cpu, gpu)"


def _provider(name: str, installed: Collection[str]) -> Finding:
    """Whether a provider runs one node; what ONNX Runtime says of itself is not believed."""
    tried = _run(_START, name, PROBE)
    used = re.search(r"^used: (.*)$", tried.stdout, re.MULTILINE)
    if used is not None and name in used[1].split():
        return Finding(name, "starts")
    missing = sorted(set(_LIBRARY.findall(tried.stdout + tried.stderr)))
    why = f"lacks {', '.join(missing)}" if missing else _last_line(tried)
    ends = f"; what asks for it runs on {used[1]}" if used is not None else ""
    return Finding(name, f"does not start: {why}{ends}", "" if name == _CPU else _bring(name, missing, installed))


def _bring(name: str, missing: Sequence[str], installed: Collection[str]) -> str:
    """What a provider that does not start may need."""
    if name == "TensorrtExecutionProvider":
        return "nothing, unless you want TensorRT: install its libraries, of the version that ONNX Runtime names"
    if missing and not any(each.startswith("nvidia-cu") for each in installed):
        return "pip install 'relcompile[serve-gpu]', which brings CUDA's libraries"
    return "a driver for the GPU, as `nvidia-smi` shows it, and CUDA of the version that ONNX Runtime was built for"


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: native code may end it, and says what is missing on its stderr alone."""
    command = [sys.executable, "-c", code, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it did not end within {_PATIENCE} seconds")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with {done.returncode}"
