"""`relcompile serve` as a process of its own, driven by NVIDIA's client for Triton and by plain HTTP."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from benchmarks.parts.server_process import array_of, end, running
from benchmarks.serving import main as benchmark
from relcompile.cli.commands.serve import named
from relcompile.cli.main import main
from relcompile.errors import InputSpecError
from relcompile.serving.server import Address
from tests.runtime.test_conditional import predicts
from tests.runtime.test_runtime import W, X, write
from tests.serving.slow_explainer import slow

TARGETS = np.array([3, 1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A server of four explainers, of which one has its prediction beside it."""
    folder = tmp_path_factory.mktemp("served")
    files = [write(folder / f"linear.{mode}.onnx", mode) for mode in ("index", "argmax")]
    files.append(write(folder / "pair.onnx"))
    predicts(folder / "pair.predict.onnx")
    with running("--max-body", 1, "--timeout", 1, f"seeds={write(folder / 's.onnx', 'seed')}", *files) as (found, _):
        yield found


@pytest.fixture
def client(address: str) -> Generator[InferenceServerClient]:
    with InferenceServerClient(address) as found:
        yield found


def tensor(name: str, array: np.ndarray, kind: str, binary: bool = True) -> InferInput:
    made = InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def asked(x: np.ndarray = X, targets: np.ndarray = TARGETS, binary: bool = True) -> list[InferInput]:
    return [tensor("input", x, "FP32", binary), tensor("target", targets, "INT64", binary)]


def raw(address: str, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, Any]:
    """Status and JSON of a plain request."""
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_the_protocol_tells_what_there_is(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert all(client.is_model_ready(name) for name in ("linear.index", "linear.argmax", "seeds"))
    assert client.get_model_metadata("linear.index", "1") == {
        "name": "linear.index",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "input", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "target", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "output", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "relevance", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("targets", [TARGETS, TARGETS.reshape(2, 1)], ids=["(batch,)", "(batch, 1), as Triton's"])
def test_prediction_and_relevance(client: InferenceServerClient, binary: bool, targets: np.ndarray) -> None:
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("relevance", "output")]
    found = client.infer("linear.index", asked(X, targets, binary), outputs=outputs, request_id="q")
    np.testing.assert_allclose(array_of(found, "relevance"), X * W[:, TARGETS].T, rtol=1e-6)
    np.testing.assert_allclose(array_of(found, "output"), X @ W, rtol=1e-6)
    assert found.get_response()["id"] == "q"


def test_only_the_outputs_that_are_asked_for(client: InferenceServerClient) -> None:
    found = client.infer("linear.argmax", asked()[:1], outputs=[InferRequestedOutput("relevance")])
    np.testing.assert_allclose(array_of(found, "relevance"), X * W[:, (X @ W).argmax(1)].T, rtol=1e-6)
    assert [output["name"] for output in found.get_response()["outputs"]] == ["relevance"]


@pytest.mark.parametrize(
    ("parameters", "targets", "rows"),
    [
        ({"explain_above": 0.9}, None, [0]),  # the best classes have the probabilities 0.997 and 0.806
        ({"explain_above": 0.9, "explain_scores": "sigmoid"}, TARGETS, [0, 1]),
        ({"explain_classes": "1,3"}, None, []),
        ({"explain_above": 0, "explain_classes": "0"}, TARGETS, [0, 1]),
    ],
)
def test_rows_that_pass_a_condition_are_explained(
    client: InferenceServerClient, parameters: dict[str, Any], targets: np.ndarray | None, rows: list[int]
) -> None:
    inputs = asked()[:1] if targets is None else asked(targets=targets)
    found = client.infer("pair", inputs, parameters=parameters)
    assert np.flatnonzero(array_of(found, "explained")).tolist() == rows
    np.testing.assert_allclose(array_of(found, "output"), X @ W, rtol=1e-6)
    classes = (X @ W).argmax(1) if targets is None else targets
    np.testing.assert_allclose(array_of(found, "relevance"), (X * W[:, classes].T)[rows], rtol=1e-6)


def test_a_prediction_beside_needs_no_target(client: InferenceServerClient) -> None:
    found = client.infer("pair", asked()[:1], outputs=[InferRequestedOutput("output")])
    np.testing.assert_allclose(array_of(found, "output"), X @ W, rtol=1e-6)


CONDITIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "without a pair": ("linear.index", {"explain_above": 0.9}, "compile it with --pair"),
    "a percentage": ("pair", {"explain_above": 90}, "probability=90"),
    "a word": ("pair", {"explain_above": "much"}, "probability='much'"),
    "a name that is not known": ("pair", {"explain_abov": 0.9}, "no 'explain_abov'; there are explain_above"),
    "names of classes": ("pair", {"explain_classes": "cat"}, "explain_classes is 'cat'"),
    "no such scores": ("pair", {"explain_scores": "logits"}, "scores='logits'"),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_conditions_that_say_nothing_are_refused(client: InferenceServerClient, case: str) -> None:
    model, parameters, told = CONDITIONS[case]
    with pytest.raises(InferenceServerException, match=f"400.*{told}"):
        client.infer(model, asked(), parameters=parameters)


def test_inputs_by_name_of_every_target_mode(client: InferenceServerClient) -> None:
    seed = np.array([[0.0, 1.0, 0.0, -2.0], [3.0, 0.0, 0.0, 1.0]], np.float32)
    found = client.infer("seeds", [tensor("seed", seed, "FP32"), tensor("input", X, "FP32")])
    np.testing.assert_allclose(array_of(found, "relevance"), X * (seed @ W.T), rtol=1e-6)


REFUSED: dict[str, tuple[str, list[InferInput], list[str], str]] = {
    "no such model": ("other", asked(), [], "404.*there are seeds, linear.index, linear.argmax, pair"),
    "no such class": ("linear.index", asked(targets=np.array([4, 0])), [], "400.*target 4 does not exist"),
    "no target": ("linear.index", asked()[:1], [], "400.*needs target"),
    "a target too many": ("linear.argmax", asked(), [], "400.*target was given, but the file takes input"),
    "no input": ("linear.index", asked()[1:], [], "400.*inputs input are missing"),
    "another shape": ("linear.index", asked(X[:, :2]), [], "400.*axis 1 is not 3"),
    "nothing": ("linear.index", asked(X[:0], TARGETS[:0]), [], "400.*empty array"),
    "too many rows": ("linear.argmax", asked(np.ones((33, 3), np.float32))[:1], [], "400.*33 rows.*at most 32"),
    "too large": ("linear.argmax", asked(np.ones((99999, 3), np.float32))[:1], [], "413.*more than the 1,048,576"),
    "no such output": ("linear.index", asked(), ["map"], "400.*no output map; there are output, relevance"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused(client: InferenceServerClient, case: str) -> None:
    model, inputs, outputs, told = REFUSED[case]
    with pytest.raises(InferenceServerException, match=told):
        client.infer(model, inputs, outputs=[InferRequestedOutput(name) for name in outputs])
    found = client.infer("linear.index", asked())
    np.testing.assert_allclose(array_of(found, "relevance"), X * W[:, TARGETS].T, rtol=1e-6)


INFER = "/v2/models/linear.index/infer"


@pytest.mark.parametrize(
    ("request_line", "body", "headers", "status", "told"),
    [
        (("POST", INFER), b"{", {}, 400, "is not JSON"),
        (("POST", INFER), b"", {"Content_Encoding": "gzip"}, 415, "send it as it is"),
        (("GET", INFER), b"", {}, 405, f"GET does nothing at {INFER}; this server speaks"),
        (("GET", "/v2/models/linear.index/versions/2"), b"", {}, 404, "version 1"),
        (("POST", "/v1/models/linear.index:predict"), b"{}", {}, 404, "POST /v2/models/MODEL/infer explains"),
        (("POST", INFER), (b"0" * 65536 for _ in range(64)), {}, 413, "serve with --max-body"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_not_the_protocol_is_refused(
    address: str, request_line: tuple[str, str], body: Any, headers: dict[str, str], status: int, told: str
) -> None:
    found, answer = raw(address, *request_line, body, **headers)
    assert found == status
    assert told in answer["error"]


@pytest.mark.parametrize(
    ("header", "status"), [("Expect: 100-continue", 413), ("Accept: */*", 413), ("Expect: 100-continue", 100)]
)
def test_a_body_that_is_announced_as_gigantic_is_refused(address: str, header: str, status: int) -> None:
    """At once, if the client asks before it sends it."""
    host, port = address.split(":")
    size = 10**15 if status == 413 else 9
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n{header}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(f"HTTP/1.1 {status}".encode())


def test_a_body_that_never_ends_is_given_up(address: str) -> None:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /v2/models/seeds/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_numbers_that_are_not_finite_are_told_apart(client: InferenceServerClient, address: str) -> None:
    x = np.array([[np.nan, 0, 0]], np.float32)
    found = client.infer("linear.argmax", asked(x)[:1], outputs=[InferRequestedOutput("output")])
    assert np.isnan(array_of(found, "output")).all()
    with pytest.raises(InferenceServerException, match=r"400.*ask for binary_data"):
        client.infer("linear.argmax", asked(x)[:1], outputs=[InferRequestedOutput("output", binary_data=False)])


def test_metrics_count_what_was_asked(client: InferenceServerClient, address: str) -> None:
    def counted() -> dict[str, float]:
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return {key: float(value) for key, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

    client.infer("linear.index", asked())
    before = counted()
    client.infer("linear.index", asked())
    with pytest.raises(InferenceServerException):
        client.infer("linear.index", asked()[:1])
    after = counted()
    for key, more in {
        'relcompile_requests_total{model="linear.index",status="200"}': 1,
        'relcompile_requests_total{model="linear.index",status="400"}': 1,
        'relcompile_rows_total{model="linear.index"}': 2,
        'relcompile_request_seconds_count{model="linear.index"}': 1,
    }.items():
        assert after[key] - before.get(key, 0) == more, key
    assert after["process_resident_memory_bytes"] > 1e6


def status_of(address: str, target: int) -> int:
    """Of a request with one row; the answer must be right if there is one."""
    with InferenceServerClient(address, network_timeout=60) as client:
        try:
            found = client.infer("slow", asked(X[:1], np.array([target])))
        except InferenceServerException as error:
            return int(str(error.status()))
        np.testing.assert_allclose(array_of(found, "relevance"), X[:1] * W[:, target], rtol=1e-5)
        return 200


def test_overload_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """One runs, two wait; SIGTERM then lets all of them be answered."""
    arguments = ("--waiting", 2, "--rows", 1, "--threads", 1, slow(tmp_path / "slow.onnx"))
    with running(*arguments) as (address, process), ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(status_of, address, k % 4) for k in range(12)]
        while sum(answer.done() for answer in answers) < 9:
            time.sleep(0.01)
        code = end(process)
        statuses = Counter(answer.result() for answer in answers)
    assert statuses in ({200: 3, 429: 9}, {200: 2, 429: 10})  # the second may come before the first has begun to run
    assert code == 128 + signal.SIGTERM


def test_an_answer_that_takes_too_long_and_connections_beyond_the_limit_are_told(tmp_path: Path) -> None:
    limits = ("--timeout", 0.1, "--connections", 4, "--threads", 1)
    with running(*limits, slow(tmp_path / "slow.onnx")) as (address, process):
        assert status_of(address, 0) == 504
        host, port = address.split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(4)]
        assert comes_to(address, 503)
        for connection in idle:
            connection.close()
        assert comes_to(address, 200)
        assert end(process, signal.SIGINT) != 0


def test_a_server_that_was_killed_serves_again(tmp_path: Path) -> None:
    file = write(tmp_path / "linear.onnx")
    with running(file) as (address, process), InferenceServerClient(address) as client:
        assert client.is_server_ready()
        process.kill()
        process.wait(60)
        with pytest.raises(OSError, match=r"refused|reset|closed"):
            raw(address, "GET", "/v2")
    with running(file, port=int(address.partition(":")[2])) as (again, _), InferenceServerClient(again) as client:
        assert again == address
        found = client.infer("linear", asked())
        np.testing.assert_allclose(array_of(found, "relevance"), X * W[:, TARGETS].T, rtol=1e-6)


def comes_to(address: str, status: int) -> bool:
    """The server notices connections that come and go when it gets to it."""
    return any(raw_status(address) == status or time.sleep(0.1) for _ in range(100))


def raw_status(address: str) -> int:
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status


def test_answers_are_sent_at_once() -> None:
    with Address(port=0).open() as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


@pytest.mark.parametrize("requests", [800, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_mixed_requests_of_eight_clients(tmp_path: Path, requests: int) -> None:
    found = benchmark([str(write(tmp_path / "e.onnx")), "--requests", "0", "--soak", str(requests)])[1]
    assert found is not None
    assert set(found.answers) == {"200", "400"}
    assert sum(found.answers.values()) == requests
    assert found.wrong == 0
    assert found.growth < 0.05


def test_names_of_models(tmp_path: Path) -> None:
    files = [tmp_path / "a.z+.onnx", tmp_path / "b=c.onnx"]
    for file in files:
        file.touch()
    assert named([*map(str, files), "d=e.onnx"]) == {"a.z+": files[0], "b=c": files[1], "d": Path("e.onnx")}
    for wrong in (["a.onnx", "x/a.onnx"], ["=a.onnx"], ["a/b=a.onnx"]):
        with pytest.raises(InputSpecError, match="NAME="):
            named(wrong)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "0", "missing.onnx"], "no such file"),
        (["--port", "0", "--timeout", "0", "linear.onnx"], "--timeout 0"),
        (["--port", "{taken}", "linear.onnx"], "cannot listen on 127.0.0.1:"),
        (["--port", "0", "--host", "192.0.2.1", "linear.onnx"], "cannot listen on 192.0.2.1:"),
    ],
)
def test_what_cannot_be_served_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    write(tmp_path / "linear.onnx")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as stop:
        main(["serve", *(each.format(taken=taken.getsockname()[1]) for each in arguments)])
    assert stop.value.code == 2
    assert told in capfd.readouterr().err
