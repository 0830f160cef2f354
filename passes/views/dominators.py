"""Which value every way from the explained inputs to an operator leads through, and what lies behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch.fx import Node

from passes.operators.call import Call


def nearest_dominators(described: Mapping[Node, Call], sources: Collection[Node]) -> dict[Node, Node | None]:
    """For every operator the last value before it that all ways lead through; None if there is none."""
    above: dict[Node | None, Node | None] = dict.fromkeys(sources)
    depth: dict[Node | None, int] = {None: 0, **dict.fromkeys(sources, 1)}
    found = dict[Node, Node | None]()
    for node, call in described.items():
        operands = [operand for operand in call.operands if operand in depth]
        meeting: Node | None = operands[0] if operands else None
        for operand in operands[1:]:
            meeting = _meet(meeting, operand, above, depth)
        found[node] = above[node] = meeting
        depth[node] = depth[meeting] + 1
    return found


def operators_behind(source: Node, node: Node, described: Mapping[Node, Call]) -> set[Node]:
    """All operators on the ways from `source`, which is left out, to `node`, which all lead through `source`."""
    behind, queue = {node} - {source}, [node]
    while queue:
        current = queue.pop()
        before = [n for n in described[current].operands if n in described and n is not source and n not in behind]
        behind.update(before)
        queue += before
    return behind


def _meet(
    a: Node | None, b: Node | None, above: Mapping[Node | None, Node | None], depth: Mapping[Node | None, int]
) -> Node | None:
    while a is not b:
        if depth[a] >= depth[b]:
            a = above[a]
        else:
            b = above[b]
    return a
