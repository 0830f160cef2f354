"""Packages that only some commands need."""

from importlib.util import find_spec

from relcompile.errors import RuntimeUnavailableError


def require(extra: str, *packages: str) -> None:
    """Say how to install what a command needs, before it is imported.

    Raises:
        RuntimeUnavailableError: names what is missing.
    """
    missing = [name.replace("_", "-") for name in packages if find_spec(name) is None]
    if missing:
        raise RuntimeUnavailableError(f"this command needs {' and '.join(missing)}: pip install 'relcompile[{extra}]'")
