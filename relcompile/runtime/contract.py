"""Graph and metadata of an explainer file fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relcompile.errors import ExplainerFileError
from relcompile.files.records import MANY, InputRecord
from relcompile.metadata import Metadata
from relcompile.runtime.feeds import inputs_but_target


def match_session(metadata: Metadata, session: Any) -> InputRecord | None:
    """The target input, if there is one, after a check that graph and metadata fit each other."""
    values = {value.name: value for value in session.get_inputs()}
    promised = [record.name for record in inputs_but_target(metadata)]
    known = {*values, *(value.name for value in session.get_outputs())}
    missing = [name for name in (*promised, *metadata.output_names) if name not in known]
    extra = [name for name in values if name not in promised]
    target = metadata.target
    if missing or len(extra) != (target.takes_class or target.takes_entry or target.takes_seed):
        raise ExplainerFileError(
            f"graph and metadata disagree: the graph lacks {missing} and has the inputs {extra} beyond the "
            f'model\'s own, for target mode "{target.mode}"'
        )
    if not extra:
        return None
    value = values[extra[0]]
    leading = ("batch",) if target.questions is None else ("batch", MANY)
    if target.takes_class or target.takes_entry:
        return InputRecord(value.name, (*leading, *(value.shape[-1:] if target.takes_entry else ())), "int64")
    dtype = {"tensor(float16)": "float16", "tensor(double)": "float64"}.get(value.type, "float32")
    sizes: Sequence[int | str | None] = value.shape[1:]
    rest = (size if isinstance(size, int) else f"axis {axis}" for axis, size in enumerate(sizes, 1))
    return InputRecord(value.name, ("batch", *rest), dtype)
