"""The pictures of the documentation are drawn by the code of the day."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import pictures
from docs.generated import PICTURES as MAPS
from docs.generated import picture_name
from docs.pictures import IMAGES, PICTURES, Picture, note, outdated
from relcompile.methods.presets import PRESETS


def test_no_picture_is_older_than_its_code() -> None:
    late = [picture.name for picture in outdated()]
    assert not late, f"{', '.join(late)}: `python -m docs.pictures` draws them again"


def test_every_picture_is_drawn_by_the_command() -> None:
    assert {path.name for path in IMAGES.glob("*.png")} == {picture.name for picture in PICTURES}
    assert not {path.stem for path in MAPS.glob("*.png")} - {picture_name(rule) for rule in PRESETS}


@pytest.mark.parametrize(
    ("change", "late"),
    [
        ("", False),
        ("# a comment\n", False),
        ("import math\n", False),
        ('"""Another word."""\n', False),
        ("COLOUR = 2\n", True),
    ],
)
def test_what_makes_a_picture_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, late: bool) -> None:
    for name, value in (("ROOT", tmp_path), ("DRAWN", tmp_path / "drawn.json")):
        monkeypatch.setattr(pictures, name, value)
    picture = Picture("toy.png", ("draw.py",), lambda path: None)
    monkeypatch.setattr(pictures, "PICTURES", (picture,))
    code = tmp_path / "draw.py"
    code.write_text("SIZE = 1\n")
    assert outdated() == [picture]
    note(picture)
    assert outdated() == []
    code.write_text(change + code.read_text())
    assert (outdated() == [picture]) is late
