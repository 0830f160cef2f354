"""The pipelines, and the reason for their order."""

from __future__ import annotations

from typing import Final

from passes.rewrites.canonical.chain_concatenations import ChainConcatenations
from passes.rewrites.canonical.decompose import Decompose
from passes.rewrites.canonical.merge_batch_norm import MergeBatchNorm
from passes.rewrites.canonical.promote_operands import PromoteOperands
from passes.rewrites.canonical.remove_noops import RemoveNoops
from passes.rewrites.canonical.separate_complex import SeparateComplex
from passes.rewrites.lower_adjoints import LowerAdjoints
from passes.rewrites.optimise.batch_steps import BatchSteps
from passes.rewrites.optimise.fold_constants import FoldConstants
from passes.rewrites.optimise.merge_branches import MergeBranches
from passes.rewrites.optimise.remove_dead_code import RemoveDeadCode
from passes.rewrites.optimise.share_subexpressions import ShareSubexpressions
from passes.rewrites.optimise.simplify import Simplify
from passes.rewrites.optimise.skip_padding import SkipPadding
from passes.runner import Pass

CANONICALIZE: Final[tuple[Pass, ...]] = (
    RemoveNoops(),  # batch norm is merged through nothing but its neighbour: dropout must be gone
    SeparateComplex(),  # what is taken apart next is real
    Decompose(),
    PromoteOperands(),  # no operator knows of several types
    RemoveNoops(),  # decomposing leaves views and slices of whole axes
    MergeBatchNorm(),
    ChainConcatenations(),  # after batch norms were merged through whole concatenations
    FoldConstants(),
    MergeBranches(),  # what batch norm left of itself are a scale and a shift; constants are stored tensors
    RemoveDeadCode(),
)

OPTIMISE: Final[tuple[Pass, ...]] = (
    RemoveDeadCode(),  # rules write more than is read
    ShareSubexpressions(),  # so that a sign is inferred once, and patterns see one node per value
    Simplify(),
    SkipPadding(),
    ShareSubexpressions(),
    BatchSteps(),  # after padding was skipped, and the parts of weights shared
    RemoveDeadCode(),
)

LOWER: Final[tuple[Pass, ...]] = (
    LowerAdjoints(),
    ShareSubexpressions(),
    FoldConstants(),
    RemoveDeadCode(),
)
