"""How much longer than ONNX Runtime alone does `relcompile explain` take for a folder of photographs?

CPU time of the whole command (imports, decoding, arrays, and a first run that finds the best class), over that of
ONNX Runtime for one run of the same explainer on the same batches. The aim is less than 3.

    python -m benchmarks.photographs EXPLAINER photographs --count 100
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from relcompile.pictures.images import photographs
from relcompile.pictures.photographs import Photographs
from relcompile.runtime.production import load

BATCH = 8


def seconds_of_command(explainer: Path, folder: Path, output: Path, options: Sequence[str]) -> float:
    """CPU time of the command, of all its threads."""
    before = os.times()
    command = [sys.executable, "-m", "relcompile", "explain", explainer, folder, "-o", output, "--batch", str(BATCH)]
    subprocess.run([*command, *options], check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def seconds_of_runtime(explainer: Path, folder: Path) -> float:
    """CPU time of one run for every photograph; the first batch, which warms up, is run twice and counted once."""
    production = load(explainer)
    reader = Photographs.of(production.metadata)
    arrays = [reader.read(path).array for path in photographs(folder)]
    batches = [np.concatenate(arrays[start : start + BATCH]) for start in range(0, len(arrays), BATCH)]
    target = 0 if production.metadata.target.takes_class else None
    feeds = [production.feeds(_named(production.metadata.inputs[0].name, batch, target)) for batch in batches]
    production.run(feeds[0])
    start = time.process_time()
    for feed in feeds:
        production.run(feed)
    return time.process_time() - start


def _named(name: str, batch: np.ndarray, target: int | None) -> dict[str, np.ndarray]:
    return {name: batch} | ({} if target is None else {"target": np.full(len(batch), target)})


def main(arguments: Sequence[str] | None = None) -> float:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("explainer", type=Path, help="of photographs")
    parser.add_argument("photographs", type=Path, help="a folder; they are copied until there are enough")
    parser.add_argument("--count", type=int, default=100, help="how many are explained")
    parser.add_argument("--target", type=int, help="the class, so that no first run has to find the best")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "photographs")
        folder.mkdir()
        for number, path in enumerate(islice(cycle(photographs(options.photographs)), options.count)):
            shutil.copy(path, folder / f"{number}{path.suffix}")
        asked = [] if options.target is None else ["--target", str(options.target)]
        command = seconds_of_command(options.explainer, folder, Path(place, "maps"), ["--no-png", *asked])
        alone = seconds_of_runtime(options.explainer, folder)
    print(f"{options.count} photographs: {command:.1f} s, ONNX Runtime {alone:.1f} s, ratio {command / alone:.2f}")
    return command / alone


if __name__ == "__main__":
    main()
