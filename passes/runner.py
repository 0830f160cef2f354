"""Runs passes: lint and verify after each, and counts of rewrites that cannot lie."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch.fx import GraphModule

from passes.errors import InvariantError, PassError
from passes.graphs.anchors import anchored
from passes.graphs.facts import row

log = logging.getLogger(__name__)
Verifier = Callable[[GraphModule], None]


class Pass(Protocol):
    """One named change of a graph, in place."""

    name: ClassVar[str]

    def apply(self, module: GraphModule, /) -> int:
        """Rewrite the graph; the number of rewrites made, 0 if it is untouched."""
        ...


@dataclass(frozen=True)
class PassReport:
    """What one pass did."""

    name: str
    rewrites: int
    nodes_before: int
    nodes_after: int


def run_passes(
    module: GraphModule,
    passes: Sequence[Pass],
    *,
    keeps: Verifier,
    ensures: Verifier | None = None,
    on_pass: Callable[[str], None] | None = None,
) -> list[PassReport]:
    """Apply `passes` in order; the module is changed in place.

    Args:
        module: the graph; it is left in eval mode and recompiled.
        passes: what to apply.
        keeps: raises `InvariantError` if the graph leaves its stage; called after every pass.
        ensures: the same for the stage that the last pass must have reached.
        on_pass: told the name of each pass before it runs, for a progress display.

    Raises:
        InvariantError: a pass left a graph that does not lint, does not verify or lost an anchor, or did not count
            honestly.
    """
    reports: list[PassReport] = []
    before = fingerprint(module)
    for step in passes:
        if on_pass:
            on_pass(step.name)
        nodes_before = len(module.graph.nodes)
        rewrites = step.apply(module)
        behind = fingerprint(module)
        _check(module, step, keeps, reports, changed=behind != before, rewrites=rewrites)
        before = behind
        reports.append(PassReport(step.name, rewrites, nodes_before, len(module.graph.nodes)))
        log.debug("%s: %d rewrites, %d nodes", step.name, rewrites, len(module.graph.nodes))
    if ensures:
        ensures(module)
    module.recompile()
    module.train(False)
    return reports


def fingerprint(module: GraphModule) -> tuple[Any, ...]:
    """Changes if and only if the graph, which tensor an attribute names, or a fact about a node changes."""
    # The printed graph leaves out nested arguments' metadata only; tensors are told apart by identity.
    tensors = tuple((name, id(t)) for name, t in (*module.named_parameters(), *module.named_buffers()))
    return str(module.graph), tensors, tuple(map(row, module.graph.nodes))


def _check(
    module: GraphModule,
    step: Pass,
    verify: Verifier,
    reports: Sequence[PassReport],
    *,
    changed: bool,
    rewrites: int,
) -> None:
    history = ", ".join(r.name for r in reports) or "none"
    try:
        module.graph.lint()
        anchored(module)
        verify(module)
    except (RuntimeError, PassError) as error:
        raise InvariantError(f"pass {step.name} (after: {history}) left a graph that is not valid: {error}") from error
    if changed != (rewrites > 0):
        raise InvariantError(
            f"pass {step.name} (after: {history}) reports {rewrites} rewrites, but the graph "
            f"{'changed' if changed else 'did not change'}"
        )
