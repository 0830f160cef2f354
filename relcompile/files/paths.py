"""Files: what the user names is opened in one way, and written so that nothing ever leaves half a file."""

import contextlib
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Generator, Iterable
from io import BufferedReader
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relcompile.errors import ExportError, InputSpecError, RelcompileError

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_input(
    path: Path | str, what: str, limit: int, error: type[RelcompileError] = InputSpecError
) -> BufferedReader:
    """Open a file that the user named for reading: a regular one, of at most `limit` bytes.

    A pipe would wait for ever and a device never end, so neither is opened, not even for a moment.

    Args:
        path: the file.
        what: what it is to the user, for the message: "the image".
        limit: bytes.
        error: what is raised.

    Raises:
        RelcompileError: as `error`; names the file, and what it is if it is not a regular file, or its size and the
            limit, or why it cannot be opened.
    """
    try:
        _require_readable(os.stat(path), limit)
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  (the caller closes it)
        try:
            _require_readable(os.fstat(file.fileno()), limit)  # another file may have taken the name meanwhile
        except ValueError:
            file.close()
            raise
        return file
    except FileNotFoundError as cause:
        raise error(f"{what} {path} cannot be read: there is no such file") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{what} {path} cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause


def read_input(path: Path | str, what: str, limit: int, error: type[RelcompileError] = InputSpecError) -> bytes:
    """All bytes of a file that the user named; see `open_input`.

    Raises:
        RelcompileError: as `open_input`, or the file grew beyond the limit while it was read.
    """
    with open_input(path, what, limit, error) as file:
        try:
            content = file.read(limit + 1)
        except OSError as cause:
            raise error(f"{what} {path} cannot be read: {cause.strerror}") from cause
    if len(content) > limit:
        raise error(f"{what} {path} cannot be read: {_too_large(len(content), limit)}")
    return content


def read_text(path: Path | str, what: str, limit: int, error: type[RelcompileError] = InputSpecError) -> str:
    """The text of a UTF-8 file that the user named, without the mark that some editors put in front.

    Raises:
        RelcompileError: as `read_input`, or it is not UTF-8.
    """
    try:
        return read_input(path, what, limit, error).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(f"{what} {path} cannot be read: it is not UTF-8 ({cause})") from cause


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a pipe waits for whoever writes to it, unless told not to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_readable(status: os.stat_result, limit: int) -> None:
    """Raise ValueError, with the reason, unless this is a regular file of at most `limit` bytes."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a regular file")
    if status.st_size > limit:
        raise ValueError(_too_large(status.st_size, limit))


def _too_large(size: int, limit: int) -> str:
    return f"it has {size:,} bytes, more than the {limit:,} that are read"


@contextlib.contextmanager
def atomic_path(target: Path) -> Generator[Path]:
    """A temporary path to write to; it becomes `target` if the block ends well and is removed if it does not.

    The temporary file has the name of the target, in a new folder beside it that nobody else may write into. What
    `target` was before stays readable until the new file is complete. A target that is a symbolic link stays one. Files
    that the block writes beside the temporary one under one of the names of `companion` come first.

    Raises:
        ExportError: The folder is missing or not writable, the disk is full, or `target` is something other
            than a regular file; raised before the block runs where this can be known.
    """
    final = Path(os.path.realpath(target))
    with told_of(target, final):
        if not _is_file_or_free(final):
            kind = "a folder" if final.is_dir() else "not a regular file"
            raise ExportError(f"cannot write {target}: it is {kind}; give the path of a file")
        with _folder_beside(final) as folder, told_of(target, folder / final.name) as temporary:
            yield temporary
            beside = [path for path in temporary.parent.iterdir() if companion(final).fullmatch(path.name)]
            for path in (*beside, temporary):
                with path.open("rb+") as written:
                    os.fsync(written.fileno())
            for path in beside:
                path.replace(final.with_name(path.name))
            temporary.replace(final)


@contextlib.contextmanager
def _folder_beside(target: Path) -> Generator[Path]:
    """A new folder that only its owner may enter; it goes away, also if a signal breaks off making or removing it."""
    folder = target.with_name(f".relcompile-{secrets.token_hex(8)}")
    with contextlib.ExitStack() as stack:
        for _ in range(2):  # the second time if the first one is broken off
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        yield folder


def companion(target: Path) -> re.Pattern[str]:
    """Names of files that belong to `target`: its weights, if they are apart, and the prediction alone."""
    return re.compile(re.escape(target.stem) + r"\.([0-9a-f]{12}\.weights|predict\.onnx)")


@contextlib.contextmanager
def told_of(target: Path, temporary: Path) -> Generator[Path]:
    """Yields `temporary`; what an error says of it, it says of `target` in the end.

    Raises:
        ExportError: the block raised an OSError.
    """
    try:
        yield temporary
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and not target.parent.is_dir()
        reason = f"there is no folder {target.parent}; make it" if missing else error.strerror or error
        raise ExportError(f"cannot write {target}: {reason}") from error
    except RelcompileError as error:
        error.args = tuple(str(part).replace(str(temporary), str(target)) for part in error.args)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        ExportError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        file = next(filter(os.path.isfile, (folder, *folder.parents)), None)
        reason = error.strerror if file is None else f"{file} is a file; give another folder"
        raise ExportError(f"cannot make the folder {folder}: {reason}") from error


def _is_file_or_free(path: Path) -> bool:
    """Whether a file can take this name; raises OSError if none ever can, for its length or folder."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def save_arrays(path: Path, /, **arrays: NDArray[np.generic]) -> None:
    """Write the arrays to an uncompressed .npz file that `numpy.load` reads; equal arrays give equal bytes.

    Unlike `numpy.savez` this writes to exactly `path`, takes every name (also "file") and never pickles.

    Raises:
        ExportError: `path` cannot be written, or an array holds Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ExportError(f"cannot write {path}: the array {name} holds Python objects, not numbers")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def keep_inputs(read: Iterable[Path | None], written: Iterable[Path]) -> None:
    """Refuse to write over a file that is read, whatever it is called there; None stands for no file.

    Raises:
        ExportError: names it.
    """
    sources = {identity(path): path for path in read if path is not None and identity(path)}
    for path in written:
        if (found := identity(path)) in sources:
            raise ExportError(f"writing {path} would destroy the input {sources[found]}; give another -o")


def refuse_links(derived: Iterable[Path]) -> None:
    """Refuse names that relcompile made up and that are links: whoever put one there chooses what is written over.

    Raises:
        ExportError: names the link, and where it leads.
    """
    for path in derived:
        if os.path.islink(path):
            raise ExportError(f"{path} is a link to {os.readlink(path)}, which would be written over; give another -o")


def require_utf8(path: Path, error: type[RelcompileError]) -> None:
    """Refuse a name that only Python knows how to hand on: what opens ONNX files is written in C++.

    Raises:
        RelcompileError: as `error`; it names the path.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as cause:
        raise error(f"{path}: the path is not UTF-8, which ONNX Runtime asks for; rename it") from cause


def identity(path: Path) -> tuple[int, int] | None:
    """What a file is, under all its names; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def beside(path: Path, name: str, error: type[RelcompileError] = InputSpecError) -> Path:
    """The file of this name in the folder of another file.

    Raises:
        RelcompileError: as `error`; `path` is a folder, or `name` the name of no file.
    """
    try:
        return path.with_name(name)
    except ValueError as cause:
        wrong = f"{path} is a folder, not a file" if not path.name else f"{name!r} is not the name of a file"
        raise error(wrong) from cause


def partial_of(output: Path) -> Path:
    """Where an interrupted run leaves what the next one goes on from.

    Raises:
        ExportError: `output` is a folder.
    """
    return beside(output, output.name + ".relcompile-partial", ExportError)


def plain_name(text: str) -> str:
    """`text` as a part of file names, without the characters that shells and file systems keep for themselves."""
    return re.sub(r"[^\w.+,-]", "", text.replace("*", "x").replace("/", "-"))
