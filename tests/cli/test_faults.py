"""Whose fault it is: exit code 2 for what the user can mend, 1 and a plea for a report for what relcompile broke."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import relcompile
from passes.errors import InvariantError, MiscompilationError, UnsupportedOperatorError
from relcompile.cli import compile_command, main
from relcompile.errors import CaptureError, RelcompileError

OWN = "relcompile failed, and should not have"
FAULTS: dict[type[Exception], int] = {
    InvariantError: 1,
    MiscompilationError: 1,
    KeyError: 1,
    UnsupportedOperatorError: 2,
    CaptureError: 2,
    RelcompileError: 2,
}


@pytest.mark.parametrize(("fault", "code"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_exit_codes(
    fault: type[Exception],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise fault("what went wrong")

    monkeypatch.setattr(compile_command, "compile_file", fails)
    monkeypatch.setattr(sys, "argv", ["relcompile", str(tmp_path / "model.pt")])
    with pytest.raises(SystemExit) as stop:
        main.main()
    told = capsys.readouterr().err
    assert stop.value.code == code
    assert "what went wrong" in told
    assert (OWN in told) == (code == 1)
    assert ("please report" in told) == (code == 1)


def test_own_faults_have_one_root() -> None:
    assert issubclass(InvariantError, relcompile.InternalError)
    assert issubclass(MiscompilationError, relcompile.InternalError)
    assert not issubclass(UnsupportedOperatorError, relcompile.InternalError)
