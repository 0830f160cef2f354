"""Cosine similarity convergence (Sixt et al. 2020): do random relevances at the output become one map at the bottom?"""

from __future__ import annotations

from itertools import combinations

import torch

import relcompile
from benchmarks.parts.networks import Subject
from relcompile.methods.composites import Composite


def csc(subject: Subject, rule: Composite, images: int = 20, vectors: int = 5) -> float:
    """Median |cosine| between maps at the input of `vectors` random relevances at the output (seed 0).

    Over all pairs, images and positions, along channels; inputs of one channel are compared as whole maps. Positions
    without relevance are left out.
    """
    x = subject.images[:images]
    explainer = relcompile.compile(subject.network, x[:2], rule=rule, target="seed")
    with torch.no_grad():
        shape = subject.network(x[:1]).shape[1:]
        seeds = torch.randn(vectors, len(x), *shape, generator=torch.Generator().manual_seed(0))
        maps = [explainer(x, seed)[1] for seed in seeds]
    flat = [m.flatten(1) if m.shape[1] == 1 else m.flatten(2).transpose(1, 2).flatten(0, 1) for m in maps]
    cosines = torch.cat([torch.cosine_similarity(a, b, eps=0.0).abs() for a, b in combinations(flat, 2)])
    return cosines[~cosines.isnan()].median().item()
