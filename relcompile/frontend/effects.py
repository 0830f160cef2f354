"""What a model does beside computing its outputs, which an explainer cannot."""

from __future__ import annotations

import torch
from torch.export.graph_signature import OutputKind

from passes.graphs.graph import source_line
from relcompile.errors import CaptureError
from relcompile.frontend.flat_model import FlatModel

_HARMLESS = (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION)


def refuse_effects(program: torch.export.ExportedProgram, flat: FlatModel) -> None:
    """Nothing, if the program has no effects.

    Raises:
        CaptureError: it changes buffers, or an operator checks its numbers and raises errors as it runs.
    """
    checks = [node for node in program.graph.nodes if node.target is torch.ops.higher_order.with_effects]
    if checks:
        raise CaptureError(
            f"the model checks numbers as it runs: {source_line(checks[0])}; an explainer raises no errors: call the "
            "form without a check (torch.linalg.inv_ex, solve_ex, cholesky_ex)"
        )
    changed = [output for output in program.graph_signature.output_specs if output.kind not in _HARMLESS]
    names = [*sorted(flat.changed), *(flat.tensors[str(output.target)] for output in changed)]
    if names:
        raise CaptureError(
            f"the model changes its own buffers in forward ({', '.join(names)}); an explainer has no state"
        )
