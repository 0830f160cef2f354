"""Files are written completely or not at all."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from relcompile.errors import ExportError, TargetError
from relcompile.files.paths import atomic_path, make_folder, save_arrays


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("before", [None, "old"])
def test_the_file_appears_when_the_block_ends(tmp_path: Path, before: str | None) -> None:
    target = tmp_path / "model.onnx"
    if before is not None:
        target.write_text(before)
    with atomic_path(target) as temporary:
        assert (temporary.parent.parent, temporary.name) == (target.parent, target.name)
        assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700  # nobody else can put a link there
        assert not temporary.exists()
        temporary.write_text("new")
        assert (target.read_text() if target.exists() else None) == before
    assert target.read_text() == "new"
    assert names(tmp_path) == ["model.onnx"]


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, TargetError, MemoryError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise interruption

    with pytest.raises(interruption):
        write_half()
    assert (names(tmp_path), target.read_text()) == (["model.onnx"], "old")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_path(tmp_path / "model.onnx") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ExportError, match=r"cannot write .*model\.onnx: No space left on device"):
        fill()
    assert names(tmp_path) == []


def test_two_writers_leave_a_whole_file(tmp_path: Path) -> None:
    target, size = tmp_path / "x.onnx", 100_000

    def write(letter: bytes) -> None:
        for _ in range(20):
            with atomic_path(target) as temporary:
                temporary.write_bytes(letter * size)
            content = target.read_bytes()
            assert content in (b"a" * size, b"b" * size)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (b"a", b"b")))
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file"), atomic_path(tmp_path / "x.npz"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("folder", "message"),
    [("file", "is a file; give another folder"), ("file/below/it", "file is a file"), ("n" * 300, "name")],
)
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=f"cannot make the folder .*{message}"):
        make_folder(tmp_path / folder)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert names(tmp_path) == ["a", "file"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("folder", "it is a folder"),
        ("pipe", "not a regular file"),
        ("missing/file.npz", "there is no folder .*missing; make it"),
        ("plain/file.npz", "Not a directory"),
        ("n" * 300, "name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    os.mkfifo(tmp_path / "pipe")
    started = False
    with pytest.raises(ExportError, match=message) as caught, atomic_path(tmp_path / place):
        started = True
    assert not started
    assert str(tmp_path / place) in str(caught.value)
    assert names(tmp_path) == ["folder", "pipe", "plain"]


def test_a_folder_without_the_right_to_write_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "mkdir", refuse)  # a real read-only folder does not stop root
    with (
        pytest.raises(ExportError, match=r"model\.onnx: Permission denied"),
        atomic_path(tmp_path / "model.onnx"),
    ):
        pytest.fail("the block must not run")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "real" / "model.onnx")
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "model.onnx").read_text() == "new"


def test_arrays_come_back_with_names_dtypes_and_shapes(tmp_path: Path) -> None:
    arrays = {
        "relevance": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "file": np.array(7),
        "none": np.zeros((0, 3), np.int64),
        "half": np.array([1, 2], np.float16),
    }
    for name in ("a", "b.npz"):
        save_arrays(tmp_path / name, **arrays)
        with np.load(tmp_path / name) as read:
            assert set(read) == set(arrays)
            for key, array in arrays.items():
                assert (read[key].dtype, read[key].shape) == (array.dtype, array.shape)
                np.testing.assert_array_equal(read[key], array)
    assert names(tmp_path) == ["a", "b.npz"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the array names holds Python objects"):
        save_arrays(tmp_path / "a.npz", names=np.array([{}], dtype=object))
    assert names(tmp_path) == []
