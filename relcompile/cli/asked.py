"""What `--target` of `relcompile explain` asks, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from relcompile.metadata import Metadata

Asked: TypeAlias = int | tuple[int, ...] | None


def targets_of(metadata: Metadata, given: Sequence[int]) -> Sequence[Asked]:
    """The targets to explain; None stands for the best class, or for what the file always explains.

    Args:
        metadata: of the explainer.
        given: classes: a run each, or of an explainer with several targets one for all; or the indices of an entry.
    """
    classes = tuple(dict.fromkeys(given))
    if metadata.target.takes_entry:
        return (tuple(given) or None,)
    if metadata.target.questions is not None:
        return (classes or None,)
    return classes or (None,)


def ending(metadata: Metadata, target: Asked) -> tuple[str, ...]:
    """What the name of a map ends in."""
    numbers = target if isinstance(target, tuple) else () if target is None else (target,)
    return (*metadata.name, *((",".join(map(str, numbers)),) if numbers else ()))
