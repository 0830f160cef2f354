"""What the rules of a method need to know -> the passes that find it out, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from passes.errors import UnsupportedRuleError
from passes.operators.signs import SIGN
from passes.relevance.annotations.add_contributions import AddContributions
from passes.relevance.annotations.add_reference import AddReference, TakeFromZero
from passes.relevance.annotations.add_spread import AddSpread
from passes.relevance.annotations.infer_signs import InferSigns
from passes.relevance.protocol.reference import CONTRIBUTIONS, REFERENCE
from passes.relevance.protocol.rule import AnyRule, facts_needed
from passes.relevance.protocol.spread import SPREAD
from passes.runner import Pass


def annotating_passes(
    rules: Sequence[AnyRule],
    references: Mapping[str, torch.Tensor | None] | None,
    sources: tuple[str, ...],
    output: int,
) -> tuple[Pass, ...]:
    """The passes between `AssignRules` and `PropagateRelevance`.

    Args:
        rules: those that may have been assigned.
        references: as of `AddReference`; None for a method that takes no differences.
        sources: names of the explained inputs.
        output: position of the explained output.

    Raises:
        UnsupportedRuleError: a rule takes differences from a reference, and the method has none.
    """
    needed = facts_needed(rules)
    signs = (InferSigns(),) if SIGN in needed else ()
    found_out = (*((AddSpread(sources, output),) if SPREAD in needed else ()), *signs)
    if references is not None:
        return (AddReference(references, output), AddContributions(sources, output), *found_out)
    informed = [rule for rule in rules if not facts_needed([rule]).isdisjoint((REFERENCE, CONTRIBUTIONS))]
    if informed:
        listing = "\n".join(f"  {rule}" for rule in dict.fromkeys(informed))
        raise UnsupportedRuleError(
            f"these rules take differences from a reference, and the method has none:\n{listing}\n"
            "Give the composite one, for example Composite(..., reference=0.0)."
        )
    return (TakeFromZero(sources, output), *found_out)
