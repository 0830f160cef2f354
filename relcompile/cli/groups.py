"""Options that belong together are one dataclass, and one parameter of every command that takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer reads it: a dataclass among its parameters becomes an option for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    parameters = list(_flattened(command, hints))
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__dict__["__signature__"] = Signature(parameters)
    return run


def _flattened(command: Callable[..., Any], hints: dict[str, Any]) -> Iterator[Parameter]:
    """Parameters, those of dataclasses in the place of these; given by name, so that defaults may stand anywhere."""
    for parameter in signature(command).parameters.values():
        hint: Any = hints[parameter.name]
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _flattened(hint, get_type_hints(hint, include_extras=True))
        else:
            yield parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY)
