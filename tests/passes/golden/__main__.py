"""`python -m tests.passes.golden`: print all graphs anew, and drop those that no case names."""

from __future__ import annotations

from tests.passes.golden.cases import CASES, FOLDER, path_of
from tests.passes.golden.printing import printed

for stale in set(FOLDER.glob("*.txt")) - {path_of(name) for name in CASES}:
    stale.unlink()
for name, case in CASES.items():
    path_of(name).write_text(printed(case.graph()), encoding="utf-8")
