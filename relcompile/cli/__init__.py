"""The command line, one command a file."""

from importlib.util import find_spec

_missing = [name for name in ("typer", "rich") if find_spec(name) is None]
if _missing:
    raise SystemExit(f"relcompile: the command line needs {' and '.join(_missing)}: pip install {' '.join(_missing)}")
