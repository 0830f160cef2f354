"""`--plugin module:object`: rules from the user's own package."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, cast

from relcompile.cli import views
from relcompile.errors import CompositeError
from relcompile.frontend.reading.safe_pickle import reason, working_directory_importable
from relcompile.methods.composites import Composite, Entry


def entries(specs: Sequence[str]) -> tuple[Entry, ...]:
    """What `specs` name, as entries: an `Entry`, several, a `Composite`, or what is called for one.

    The modules are imported, which runs them, with all the rights of the process: that is said first.

    Raises:
        CompositeError: nothing is there, or something else.
    """
    return tuple(entry for spec in specs for entry in _entries(spec))


def _entries(spec: str) -> Iterable[Entry]:
    module, _, name = spec.partition(":")
    if not (module and name):
        raise CompositeError(f"--plugin {spec}: write package.module:object, like `--plugin my_rules:ENTRIES`")
    views.note(f"plugin: {module} is imported, and so run")
    try:
        with working_directory_importable():
            found: Any = attrgetter(name)(importlib.import_module(module))
            made = found() if callable(found) else found
    except (Exception, SystemExit) as error:  # a script that ends itself
        raise CompositeError(
            f"--plugin {spec}: {reason(error)}. It has to be importable from the working directory"
        ) from error
    given = made.entries if isinstance(made, Composite) else [made] if isinstance(made, Entry) else made
    if not isinstance(given, list | tuple) or not all(isinstance(entry, Entry) for entry in cast("list[Any]", given)):
        raise CompositeError(f"--plugin {spec}: is {type(made).__name__}, no Entry, list of them or Composite")
    return cast("list[Entry]", given)
