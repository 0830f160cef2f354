"""Which photographs are read, and what is written for each."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

from relcompile.cli import views
from relcompile.errors import ExportError, InputSpecError
from relcompile.files.paths import keep_inputs, make_folder, plain_name, refuse_links


@dataclass(frozen=True)
class Job:
    """One photograph.

    Attributes:
        path: the file.
        stem: of what is written for it, without the name of the explainer.
    """

    path: Path
    stem: Path

    def written(self, name: Sequence[str], suffix: str) -> Path:
        """The file for an explainer with this name."""
        ending = "".join(f".{plain_name(part.replace('=', ''))}" for part in name)
        return self.stem.with_name(f"{self.stem.name}{ending}{suffix}")


def jobs_of(given: Iterable[Path], folder: Path) -> list[Job]:
    """The photographs that files, folders and globs name; what lies deeper in a folder is written as deep.

    Raises:
        InputSpecError: a folder has no photographs, or a glob matches nothing.
        ExportError: two photographs would have one map.
    """
    jobs = [Job(path, folder / below / path.stem) for each in given for path, below in _found(each)]
    count = Counter(job.stem for job in jobs)
    twins = [str(job.path) for job in jobs if count[job.stem] > 1]
    if twins:
        raise ExportError(
            f"{' and '.join(twins[:4])} would have one heatmap; explain them into different folders with -o"
        )
    return jobs


@contextmanager
def prepare(read: Sequence[Path], written: Sequence[Path]) -> Generator[None]:
    """Make the folders, and replace nothing that is read; say in the end what was replaced.

    Raises:
        ExportError: something that is read would be written over, or a folder cannot be made.
    """
    keep_inputs(read, written)
    refuse_links(written)
    for folder in {path.parent for path in written}:
        make_folder(folder)
    with views.replacing(written):
        yield


def away() -> AbstractContextManager[None]:
    """Away from the working directory, from which matplotlib reads (before 3.11: runs) settings when imported."""
    return chdir(Path(__file__).parent)


def _found(given: Path) -> list[tuple[Path, Path]]:
    """Photographs, and where each lies below the folder that was given."""
    from relcompile.pictures.images import photographs

    if os.path.isdir(given):
        found = [(path, path.parent.relative_to(given)) for path in photographs(given)]
    elif not os.path.lexists(given) and glob.has_magic(str(given)):
        found = [(Path(path), Path()) for path in sorted(glob.glob(str(given), recursive=True))]
    else:
        return [(given, Path())]
    if not found:
        raise InputSpecError(f"there are no photographs in {given}")
    return found
