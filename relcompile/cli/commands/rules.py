"""`relcompile rules [NAME]`: what there is to choose from, and what it does."""

from __future__ import annotations

from typing import Annotated

import typer

from relcompile.cli import views
from relcompile.errors import InputSpecError


def rules(
    name: Annotated[str | None, typer.Argument(help="Show this rule alone, with its parameters.")] = None,
    operators: Annotated[bool, typer.Option("--operators", help="List the supported operators instead.")] = False,
    layer: Annotated[bool, typer.Option("--layer", help="Rules of single layers, for --layer.")] = False,
) -> None:
    """List every rule with its equation, what it conserves and its source."""
    if operators and (layer or name):
        raise InputSpecError("--operators lists all operators: it takes neither a rule nor --layer")
    from relcompile.methods import catalogue

    if operators:
        return views.operators(catalogue.operators())
    if name is not None:
        return views.rules([catalogue.rule(name, of_layer=layer)])
    return views.rules(catalogue.layer_rules() if layer else catalogue.rules())
