"""How many steps does a learned root pay for, and does it keep classes apart? A picture of both, on the tuning images.

The images are those that the defaults of `root` were chosen on.

    python -m benchmarks.root_steps --cache nets --output docs/images/root_steps.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.faithfulness import Row, measure
from benchmarks.parts import networks

COLOURS = {"vgg": "tab:blue", "resnet14": "tab:orange"}


def draw_steps(axes: Axes, rows: Sequence[Row], steps: Sequence[int]) -> None:
    """Area over steps, with its 95 % interval."""
    for name, colour in COLOURS.items():
        own = [row for row in rows if row.network == name and row.rule.startswith("root=")]
        axes.plot(steps, [row.area for row in own], "o-", color=colour, label=name)
        axes.fill_between(steps, [row.low for row in own], [row.high for row in own], color=colour, alpha=0.15)
    axes.set(xlabel="steps (0: every input is signal)", ylabel="area between the curves", xticks=list(steps))
    axes.set_ylim(0, 0.8)
    axes.legend(loc="lower right")


def draw_convergence(axes: Axes, rows: Sequence[Row]) -> None:
    """Bars: cosines between the maps of two classes, and of random relevances at the output."""
    own = [row for row in rows if row.csc is not None]
    places = np.arange(len(own))
    axes.bar(places - 0.2, [row.cosine for row in own], 0.38, label="two most probable classes")
    axes.bar(places + 0.2, [row.csc or 0 for row in own], 0.38, label="random relevances (CSC)")
    axes.set_xticks(places, [f"{row.rule}\n{row.network}" for row in own])
    axes.set(ylabel="median cosine between maps", ylim=(-0.1, 1.25))
    axes.legend(loc="upper left")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("nets"), help="folder of the trained nets")
    parser.add_argument("--images", type=int, default=160, help="number of tuning images")
    parser.add_argument("--shares", type=float, nargs="+", default=(0.05, 0.15, 0.3, 0.5, 0.75), help="removed shares")
    parser.add_argument("--steps", type=int, nargs="+", default=(0, 1, 2, 5, 10), help="of the descent")
    parser.add_argument("--output", type=Path, default=Path("root_steps.png"), help="the picture")
    options = parser.parse_args(arguments)
    rows = list[Row]()
    for name in networks.TRAINED:
        subject = networks.trained(name, options.cache).part(0, options.images)
        names = (*(f"root={steps}" for steps in options.steps), "z+")
        compared = ("root=1", "z+")
        rows += [measure(subject, rule, options.shares, converge=rule in compared, base=None) for rule in names]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_steps(left, rows, options.steps)
    draw_convergence(right, rows)
    figure.savefig(options.output, dpi=110)
    for row in rows:
        print(f"{row.network:9} {row.rule:8} {row.area:.3f} ({row.low:.3f}..{row.high:.3f})")
    return rows


if __name__ == "__main__":
    main()
