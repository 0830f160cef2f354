"""Composite files and class names: bounded, and one message for whatever else they hold."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relcompile.errors import CompositeError
from relcompile.files.paths import read_text
from relcompile.methods.spelling import read_composite

DIGITS = "1" * 5000
# text of the file, part of the message
BAD = {
    "lists 5,000 deep": ("base = " + "[" * 5000 + "]" * 5000, "recursion"),
    "tables 5,000 deep": ("base = " + "{a=" * 5000 + "1" + "}" * 5000, "recursion"),
    "a key of 20,000 parts": ("a" + ".a" * 20_000 + " = 1", "more than 1000 dots"),
    "tables of many parts": ("\n".join(f"[a{'.b' * 900}{i}]" for i in range(30)), "'a' is not known"),
    "5,000 digits": (f"base = {DIGITS}", "integer string conversion"),
    "5,000 hexadecimal digits": (f"[[entry]]\nrule = 'z+'\ndepth = [0, 0x{'f' * 5000}, 1]", "integer string"),
    "a number in place of a rule": ("base = 3", "base = 3 should be of type str"),
    "no tables": ("entry = [1, 2]", "every [[entry]] is a table with a rule"),
    "too large": ("#" * 2**16 + "\n", "it has 65,537 bytes, more than the 65,536"),
    "not UTF-8": ("base = '\udcff'", "it is not UTF-8"),
    "null byte": ("base = 'z+'\0", "Expected newline"),
    "no rule": ("[[entry]]\nname = 'a'", "every [[entry]] is a table with a rule"),
    "escape sequence": ("base = '\x1b[31m'", "Found invalid character '\\x1b'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_composite_file_ends_in_one_message(name: str, tmp_path: Path) -> None:
    text, message = BAD[name]
    path = tmp_path / "rules.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    start = time.process_time()
    with pytest.raises(CompositeError) as caught:
        read_composite(path)
    assert time.process_time() - start < 5
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
def test_what_an_editor_writes_is_read(mark: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(f"{mark}base = 'epsilon'\n", encoding="utf-8")
    assert read_composite(tmp_path / "rules.toml").name == "rules"
    (tmp_path / "names.txt").write_text(f"{mark}Katze\n雨\n", encoding="utf-8")
    assert read_text(tmp_path / "names.txt", "the class names", 100).splitlines() == ["Katze", "雨"]
