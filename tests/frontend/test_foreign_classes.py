"""Classes of other libraries: named, not imported, unless they are allowed."""

import sys
from pathlib import Path

import pytest

from relcompile.errors import ModelFileError
from relcompile.frontend.reading.model_file import read_model
from tests.frontend.pickles import MODULE, NEW, named, write_checkpoint
from tests.frontend.zoo import MODELS_SOURCE, PACKAGE, saved_zoo_model


def test_a_foreign_class_is_named_with_three_ways_on_and_not_imported(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models")
    before = set(sys.modules)
    with pytest.raises(ModelFileError, match=rf"'{PACKAGE}\.models\.Net'") as caught:
        read_model(path)
    assert set(sys.modules) == before
    for way in (f"`--allow {PACKAGE}.models`", "`--trust-model-file`", "`--arch package.module:callable`"):
        assert way in str(caught.value)


ALLOWED = {
    "module": (f"{PACKAGE}.models", True),
    "package": (PACKAGE, True),
    "class": (f"{PACKAGE}.models.Net", True),
    "half a name": (f"{PACKAGE}.mod", False),
    "other class": (f"{PACKAGE}.models.Ne", False),
    "longer name": (f"{PACKAGE}.models.Net.x", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_allow_respects_dots(case: str, zoo: Path) -> None:
    prefix, enough = ALLOWED[case]
    path = saved_zoo_model(zoo, "models")
    if enough:
        assert type(read_model(path, allow=[prefix])).__name__ == "Net"
        assert sys.modules[f"{PACKAGE}.models"].constructed == 0
    else:
        with pytest.raises(ModelFileError, match="does not know to be harmless"):
            read_model(path, allow=[prefix])


def test_allow_stops_at_a_module_whose_name_goes_on(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models_evil")
    with pytest.raises(ModelFileError, match=r"models_evil\.Net"):
        read_model(path, allow=[f"{PACKAGE}.models"])
    assert PACKAGE not in sys.modules


def test_allow_is_for_module_classes(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models", inner="Settings")
    with pytest.raises(ModelFileError, match=r"not plain nn\.Module classes.*models\.Settings"):
        read_model(path, allow=[PACKAGE])
    assert type(read_model(path, trust=True).settings).__name__ == "Settings"


def test_one_allow_is_offered_for_a_package(tmp_path: Path) -> None:
    names = [named(f"{PACKAGE}.{place}", "Net") for place in ("models.a", "models.b", "models.b.c")]
    write_checkpoint(tmp_path / "model", b"".join(names))
    with pytest.raises(ModelFileError, match=rf"`--allow {PACKAGE}\.models` if"):
        read_model(tmp_path / "model")


def test_all_unfit_names_are_listed_and_allowing_them_is_not_offered(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", named(MODULE, "_addindent") + named(MODULE, "_IncompatibleKeys"))
    with pytest.raises(ModelFileError, match=r"'torch\S+\._IncompatibleKeys', '\S+\._addindent'") as caught:
        read_model(tmp_path / "model")
    assert "--allow" not in str(caught.value)


def test_the_inside_of_a_module_is_there_when_its_state_is_set(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models", name="Measured")
    assert read_model(path, allow=[PACKAGE]).width == 3


def test_known_libraries_are_not_taken_from_the_working_directory(zoo: Path) -> None:
    (zoo / "timm").mkdir()
    (zoo / "timm" / "__init__.py").write_text("open('ran', 'w').close()")
    (zoo / "timm" / "models.py").write_text(MODELS_SOURCE)
    write_checkpoint(zoo / "model", named("timm.models", "Net") + NEW)
    with pytest.raises(ModelFileError, match=r"timm\.models\.Net"):
        read_model(zoo / "model", allow=[PACKAGE])
    assert not (zoo / "ran").exists()


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", named("torchvision.models.no_such", "Net") + NEW)
    with pytest.raises(ModelFileError, match=r"needs 'torchvision\.models\.no_such\.Net', .* cannot be imported"):
        read_model(tmp_path / "model")
