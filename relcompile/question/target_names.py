"""The names of targets, as they are given on the command line and to `compile`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeGuard

from relcompile.errors import TargetError
from relcompile.question.contrasts import Contrast, contrast_named, several
from relcompile.question.entries import EntryInput, EntryInputs, RegionInput
from relcompile.question.many_targets import BestClasses, ClassInputs, FixedClasses, Seeds
from relcompile.question.targets import BestClass, ClassInput, FixedClass, Seed, Target

_NAMED: Final[Mapping[str, Target]] = {
    "index": ClassInput(),
    "argmax": BestClass(),
    "seed": Seed(),
    "indices": ClassInputs(),
    "seeds": Seeds(),
    "all": FixedClasses(None),
    "entry": EntryInput(),
    "entries": EntryInputs(),
    "region": RegionInput(),
}


def target_named(text: str | int) -> Target:
    """The target called `text`.

    A name, "topk:5", or a class by its number; several classes, "3,17"; any of these that is a class against another
    class, the best one or the mean of the others: "282-281", "index-argmax", "topk:5-others", "282-281,282-others".

    Raises:
        TargetError: it is none of these.
    """
    first, *others = map(_one, str(text).split(","))
    if not others:
        return first
    fixed = [one for one in (first, *others) if _is_fixed(one)]
    if len(fixed) <= len(others):
        raise TargetError(f"target {text!r} lists several, so each must be a class number, alone or as in 282-others")
    return several(fixed)


def _one(text: str) -> Target:
    chosen, dash, against = text.partition("-")
    target = _without_contrast(chosen)
    return contrast_named(target, against) if dash and target is not None else _require(target, text)


def _without_contrast(text: str) -> Target | None:
    kind, colon, count = text.partition(":")
    if colon:
        return BestClasses(int(count)) if kind == "topk" and count.isdecimal() else None
    return FixedClass(int(text)) if text.isdecimal() else _NAMED.get(text)


def _require(target: Target | None, text: str) -> Target:
    if target is None:
        raise TargetError(
            f"target {text!r} must be {', '.join(_NAMED)}, topk:K, a class number, or several (3,17); "
            "or one of these against another class (282-281, 282-others)"
        )
    return target


def _is_fixed(target: Target) -> TypeGuard[FixedClass | Contrast]:
    return isinstance(target, FixedClass) or (isinstance(target, Contrast) and isinstance(target.of, FixedClass))
