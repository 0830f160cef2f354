"""Which requests wait for a thread before and after their run: those that would keep others waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relcompile.runtime.production import load
from relcompile.serving import work
from relcompile.serving.application import Limits, Server
from relcompile.serving.model import Model
from relcompile.serving.protocol import HEADER_LENGTH, NAMES
from tests.runtime.test_runtime import X, write


def body_of(binary: bool, rows: int, told: bool) -> tuple[bytes, int]:
    """A request, and the length of its JSON text; relevance as bytes or, where it is `told`, as numbers."""
    arrays = {"input": np.repeat(X[:1], rows, 0), "target": np.zeros(rows, np.int64)}
    entries = [{"name": name, "shape": a.shape, "datatype": NAMES[a.dtype.name]} for name, a in arrays.items()]
    for entry, array in zip(entries, arrays.values(), strict=True):
        entry |= {"parameters": {"binary_data_size": array.nbytes}} if binary else {"data": array.ravel().tolist()}
    output = {"name": "relevance", "parameters": {"binary_data": not told}}
    text = json.dumps({"inputs": entries, "outputs": [output]}).encode()
    return text + b"".join(array.tobytes() for array in arrays.values()) * binary, len(text)


@pytest.mark.parametrize(
    ("binary", "rows", "told", "handed"),
    [
        (True, 2, False, []),
        (False, 2, True, []),
        (True, 2000, False, []),
        (False, 2000, False, ["read_request"]),
        (True, 2000, True, ["write_answer"]),
        (False, 2000, True, ["read_request", "write_answer"]),
    ],
)
def test_what_is_handed_to_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binary: bool, rows: int, told: bool, handed: list[str]
) -> None:
    seen, to_thread = list[str](), work.run_in_threadpool

    def spy(function: Callable[..., Any], *args: Any) -> Any:
        seen.append(function.__name__)
        return to_thread(function, *args)

    monkeypatch.setattr(work, "run_in_threadpool", spy)
    model = Model.of(load(write(tmp_path / "e.onnx"), device="cpu"), waiting=4, rows=rows)
    server = Server({"e": model}, Limits()).application()
    body, length = body_of(binary, rows, told)
    headers = [(HEADER_LENGTH.lower().encode(), str(length).encode())] if binary else []
    scope = {"type": "http", "method": "POST", "path": "/v2/models/e/infer", "headers": headers, "query_string": b""}
    sent = list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(server(scope, receive, send))
    model.explains.close()
    assert sent[0]["status"] == 200
    assert seen == handed
