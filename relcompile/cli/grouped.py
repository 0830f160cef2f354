"""Options that belong together, as one dataclass: the command takes the object, the command line one option a field."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with the fields of its parameters that are dataclasses in the place of these parameters.

    Args:
        command: its annotations are typer's; a dataclass has typer's annotations at its fields, and a default for each
            that is no argument of the command line.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = list[inspect.Parameter]()
    for parameter in inspect.signature(command).parameters.values():
        kind = groups.get(parameter.name)
        own = parameter.replace(annotation=hints[parameter.name])
        parameters += [own] if kind is None else _fields(kind)

    def flat(**given: Any) -> None:
        objects = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**given, **objects)

    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(flat)["__signature__"] = inspect.Signature(sorted(parameters, key=_has_default))
    return flat


def _fields(kind: Any) -> Iterator[inspect.Parameter]:
    """A dataclass -> what its constructor takes."""
    hints = get_type_hints(kind, include_extras=True)
    for name, parameter in inspect.signature(kind).parameters.items():
        yield parameter.replace(annotation=hints[name])


def _has_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not inspect.Parameter.empty
