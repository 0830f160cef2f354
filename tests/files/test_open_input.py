"""What the user names is a regular file of bounded size, or one message says what else it is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from relcompile.errors import CalibrationError, InputSpecError, RelcompileError
from relcompile.files.paths import open_input, read_input

LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that a name can stand for."""
    (tmp_path / "file").write_bytes(b"x" * LIMIT)
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * (LIMIT + 1))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "link to a pipe").symlink_to("pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "endless").symlink_to("endless")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    return tmp_path


# name: part of the message
REFUSED = {
    "large": "it has 1,001 bytes, more than the 1,000 that are read",
    "folder": "it is a folder, not a regular file",
    "pipe": "it is a named pipe, not a regular file",
    "link to a pipe": "it is a named pipe, not a regular file",
    "socket": "it is a socket, not a regular file",
    "/dev/zero": "it is a device, not a regular file",
    "/dev/tty": "it is a device, not a regular file",
    "nowhere": "there is no such file",
    "dangling": "there is no such file",
    "endless": "Too many levels of symbolic links",
    "file/below": "Not a directory",
    "n" * 300: "File name too long",
    "null\0byte": "null byte",
}


@pytest.mark.parametrize("read", [open_input, read_input])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name: str, read: Callable[..., object], folder: Path) -> None:
    for error in (InputSpecError, CalibrationError):
        with pytest.raises(error) as caught:
            read(Path(name), "the image", LIMIT, error)
        assert str(caught.value) == f"the image {name} cannot be read: {str(caught.value).split('read: ', 1)[1]}"
        assert REFUSED[name] in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("file", LIMIT), ("link", LIMIT), ("empty", 0)])
def test_regular_files_are_read(name: str, size: int, folder: Path) -> None:
    assert read_input(name, "the image", LIMIT) == b"x" * size
    with open_input(folder / name, "the image", LIMIT) as file:
        assert file.read() == b"x" * size


def test_a_file_that_grows_is_not_read_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relcompile.files.paths._require_readable", lambda status, limit: None)
    with pytest.raises(RelcompileError, match="it has 1,001 bytes"):
        read_input("large", "the image", LIMIT)


def test_a_pipe_that_takes_the_name_of_a_file_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.stat("file")
    monkeypatch.setattr(os, "stat", lambda path: status)
    with pytest.raises(InputSpecError, match="it is a named pipe"):
        open_input("pipe", "the image", LIMIT)
