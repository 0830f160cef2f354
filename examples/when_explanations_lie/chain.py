"""Appendix B: random relevance through random matrices; 1 - mean |cos| after every product, median of all runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from relcompile.evaluation.metrics.spectra import CHAINS, VGG16_SHAPES, chain_convergence, drawn

_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16)


def simulate(names: Sequence[str], runs: int, *, diagonal: bool) -> dict[str, np.ndarray]:
    """(runs, products + 1) for every case; every run draws matrices and vectors of its own, the same for all cases."""
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for seed in range(runs):
        vectors, weights = drawn(np.random.default_rng(seed))
        for name, kept in found.items():
            kept.append(list(chain_convergence(CHAINS[name], vectors, weights, diagonal=diagonal)))
    return {name: np.array(kept) for name, kept in found.items()}


def main(arguments: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CHAINS), default=list(CHAINS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--without-diagonal", action="store_true", help="not even a vector's cosine with itself")
    options = parser.parse_args(arguments)
    steps = [step for step in _STEPS if step <= len(VGG16_SHAPES)]
    table = Table("case", *(str(step) for step in steps), title="1 - mean |cos| after so many products")
    runs = simulate(options.cases, options.runs, diagonal=not options.without_diagonal)
    found = {name: np.median(values, axis=0) for name, values in runs.items()}
    for name in options.cases:
        table.add_row(name, *(f"{found[name][step]:.2g}" for step in steps))
    Console(width=140).print(table)
    return found


if __name__ == "__main__":
    main()
