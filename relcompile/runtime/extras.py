"""Packages that only some of relcompile needs, and the extras that bring them."""

from importlib.util import find_spec
from typing import Final

_BRINGS: Final = {
    "cpu": ("torch", "onnx", "onnxscript", "onnx_ir", "safetensors"),
    "pictures": ("matplotlib", "PIL"),
    "serve-cpu": ("starlette", "uvicorn", "prometheus_client"),
    "batch": ("pyarrow", "zarr"),
    "evaluate": ("scipy", "skimage", "plotly", "jinja2", "pyarrow"),
    "text": ("tokenizers",),
    "ray": ("ray",),
}


def packages() -> dict[str, tuple[str, ...]]:
    """The modules that each extra brings, beside ONNX Runtime."""
    return dict(_BRINGS)


def require(extra: str) -> None:
    """Know before minutes of work that what an extra brings is there.

    Raises:
        ModuleNotFoundError: names the first that is missing; `way_out` says what to do.
    """
    for name in _BRINGS[extra]:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def way_out(error: ModuleNotFoundError) -> str | None:
    """What to install, if the module that is missing is one of those."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in _BRINGS.items():
        if package in packages:
            gpu = f" (with CUDA: {extra.replace('cpu', 'gpu')})" if "cpu" in extra else ""
            return f"this needs the package {package}, which is not installed: pip install 'relcompile[{extra}]'{gpu}"
    return None
