"""Every picture of the documentation: drawn by one command, and known to be out of date where it is.

    python -m docs.pictures [--all] [NAME ...]

draws the pictures that are older than the code that draws them. `docs/images/drawn.json` holds, for every picture, the
fingerprint of that code; a test compares them. It needs the packages that examples/photograph.py names.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Final

from relcompile.files.paths import atomic_path

ROOT: Final = Path(__file__).resolve().parent.parent
IMAGES: Final = ROOT / "docs" / "images"
DRAWN: Final = IMAGES / "drawn.json"
DEMONSTRATION: Final = "root=0"
HEATMAP: Final = ("relcompile/pictures/heatmap.py", "relcompile/pictures/images.py")


@dataclass(frozen=True)
class Picture:
    """A picture, or a folder of them.

    Args:
        name: the file or folder under docs/images.
        code: the files that say how it looks, from the top of the repository.
        draw: writes it.
    """

    name: str
    code: tuple[str, ...]
    draw: Callable[[Path], None]

    @property
    def fingerprint(self) -> str:
        """Of the code, whatever its comments, documentation, imports and errors say."""
        digest = hashlib.sha256()
        for file in self.code:
            digest.update(_essence((ROOT / file).read_text(encoding="utf-8")).encode())
        return digest.hexdigest()


def outdated() -> list[Picture]:
    """The pictures that were drawn by other code than today's, or never."""
    drawn = json.loads(DRAWN.read_text(encoding="utf-8")) if DRAWN.exists() else {}
    return [picture for picture in PICTURES if drawn.get(picture.name) != picture.fingerprint]


def note(picture: Picture) -> None:
    """Write down that `picture` was drawn by the code of today."""
    drawn = json.loads(DRAWN.read_text(encoding="utf-8")) if DRAWN.exists() else {}
    with atomic_path(DRAWN) as temporary:
        text = json.dumps({**drawn, picture.name: picture.fingerprint}, indent=2, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def _essence(source: str) -> str:
    """The syntax tree without documentation, imports and what is said of errors: no picture comes of them."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            node.exc = node.cause = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            node.body = [statement for statement in node.body if not _is_told(statement)] or [ast.Pass()]
    return ast.dump(tree)


def _is_told(statement: ast.stmt) -> bool:
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return text or isinstance(statement, ast.Import | ast.ImportFrom)


def _run(*command: str | Path) -> None:
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True)


def _photograph(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run("examples/photograph.py", "--rule", DEMONSTRATION, "--folder", folder)
        copyfile(next(Path(folder).glob("*/*.png")), path)


def _gallery(path: Path) -> None:
    _run("examples/gallery.py", "--output", path, "--each", IMAGES / "rules")


def _growth(_: Path) -> None:
    """From what `docs/performance.csv` holds; what it lacks is measured."""
    _run("-m", "benchmarks.performance", "--sample", "--write", ROOT / "docs")


PICTURES: Final = (
    Picture("chelsea.png", ("examples/photograph.py", *HEATMAP), _photograph),
    Picture("gallery.png", ("examples/gallery.py", *HEATMAP), _gallery),  # and the folder rules
    Picture("toy_roots.png", ("examples/toy_roots.py",), lambda path: _run("examples/toy_roots.py", "--output", path)),
    Picture(
        "root_steps.png",
        ("benchmarks/root_steps.py",),
        lambda path: _run("-m", "benchmarks.root_steps", "--cache", ROOT / "build" / "nets", "--output", path),
    ),
    Picture("growth.png", ("benchmarks/parts/report.py",), _growth),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [picture.name for picture in PICTURES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)}")
    parser.add_argument("--all", action="store_true", help="those that are not out of date, too")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"there is no picture {', '.join(unknown)}; there are {', '.join(names)}")
    for picture in PICTURES if options.all or options.names else outdated():
        if picture.name in (options.names or names):
            print(f"drawing {picture.name}", flush=True)
            picture.draw(IMAGES / picture.name)
            note(picture)


if __name__ == "__main__":
    main()
