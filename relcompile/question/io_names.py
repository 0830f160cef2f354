"""The names of an explainer's inputs and outputs: files find values by name, so each needs one of its own."""

from __future__ import annotations

from collections import defaultdict

from passes.relevance.annotations.add_reference import REFERENCE_INPUT
from passes.relevance.ledgers import AbsorbedRelevance
from relcompile.errors import InputSpecError
from relcompile.metadata import ABSORBED_OUTPUT, ROOTS_OUTPUT
from relcompile.question.question import Question
from relcompile.question.targets import TARGET_INPUT


def relevance_names(question: Question) -> tuple[str, ...]:
    """`relevance` of one input or layer, `relevance_<input>` of each of several."""
    single = question.places.at is not None or len(question.sources) == 1
    return ("relevance",) if single else tuple(f"relevance_{name}" for name in question.sources)


def check_names(question: Question) -> None:
    """No two inputs or outputs of the explainer share a name.

    Raises:
        InputSpecError: two do; it says which, and what to rename.
    """
    users = defaultdict[str, list[str]](list)
    for role, names in _names(question).items():
        for name in names:
            users[name].append(role)
    shared = [f"{name!r} is {' and '.join(roles)}" for name, roles in users.items() if len(roles) > 1]
    if shared:
        raise InputSpecError(
            f"two values of the explainer have one name: {'; '.join(shared)}. Rename the model's own: the parameter of "
            "its forward, or the key of the output (a module around the model can do it)"
        )


def _names(question: Question) -> dict[str, tuple[str, ...]]:
    """Who gives which names."""
    references = question.references or {}
    reports = (
        ABSORBED_OUTPUT if isinstance(ledger, AbsorbedRelevance) else ROOTS_OUTPUT for ledger in question.ledgers
    )
    return {
        "an input of the model": question.inputs,
        "the input for the target": (TARGET_INPUT,) if question.target.is_input else (),
        "an input for noise": tuple(question.noise.values()),
        "an input for a mask": tuple(question.places.mask_inputs.values()),
        "the input for the reference": (REFERENCE_INPUT,) if None in references.values() else (),
        "an output of the model": question.outputs,
        "an output with relevance": (*relevance_names(question), *question.places.tap_outputs),
        "the output of a report": tuple(reports),
    }
