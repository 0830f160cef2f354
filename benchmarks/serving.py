"""How fast does `relcompile serve` answer, and does it go on answering?

One server process on loopback and NVIDIA's client for Triton, on one machine. First one client, one request at a time;
then 8 clients, each as fast as it can (throughput); then requests at half that rate, on a schedule, timed from when
they were due; in turns with the same requests to a server that only repeats the answers, which tells what part of the
time is the clients' and the machine's. With --soak, 8 clients send so many requests of 1 to 4 rows, as JSON or binary,
1 % of them malformed; every answer is compared with ONNX Runtime in this process, and the server's memory is read
before and after.

    python -m benchmarks.serving model.z+.onnx --requests 500 --soak 10000
"""

from __future__ import annotations

import argparse
import json
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from benchmarks.parts.repeating_server import repeating
from benchmarks.parts.server_process import array_of, running
from relcompile.runtime.production import ProductionExplainer, load

_CLIENTS = 8
_TURNS = 5
_KINDS = {"float32": "FP32", "int64": "INT64"}
_TOLERANCE = 1e-3  # of the largest relevance: batches of another size are summed up in another order


@dataclass(frozen=True)
class Load:
    """Milliseconds of requests with one row, and how many were answered in a second.

    `repeated` is the half load again, at a server that has nothing to compute.
    """

    single_p50: float
    single_p99: float
    throughput: float
    half_load_p50: float
    half_load_p99: float
    repeated_p50: float
    repeated_p99: float


@dataclass(frozen=True)
class Soak:
    """What became of the requests, and the growth of the server's memory after the first fifth of them."""

    answers: dict[str, int]
    wrong: int
    growth: float


class Asker:
    """One client with a question that it asks again and again.

    Args:
        address: of the server.
        explainer: the same file in this process, which says what the answers are.
        seed: of the inputs.
    """

    def __init__(self, address: str, explainer: ProductionExplainer, seed: int) -> None:
        self._address = address
        generator = np.random.default_rng(seed)
        self._feeds = dict[str, np.ndarray]()
        for record in explainer.inputs:
            shape = [4, *(size for size in record.shape[1:] if isinstance(size, int))]
            number = record.dtype == "float32"
            classes = explainer.metadata.target.classes or 1
            drawn = generator.standard_normal(shape) if number else generator.integers(0, classes, shape)
            self._feeds[record.name] = drawn.astype(record.dtype)
        self._truth = [explainer.run({name: array[: k + 1] for name, array in self._feeds.items()}) for k in range(4)]
        self._relevance = explainer.metadata.relevance[0]

    def elsewhere(self, address: str) -> Asker:
        """The same client of another server."""
        other = copy(self)
        other._address = address
        return other

    @contextmanager
    def connected(self) -> Generator[Asker]:
        """The client belongs to the thread that opens it."""
        with InferenceServerClient(self._address, network_timeout=600, connection_timeout=600) as self._client:
            yield self

    def ask(self, rows: int = 1, binary: bool = True) -> bool:
        """Whether the answer is right."""
        found = self._client.infer("explainer", self._inputs(rows, binary), outputs=[self._output(binary)])
        relevance, truth = array_of(found, self._relevance), self._truth[rows - 1][self._relevance]
        return relevance.shape == truth.shape and bool(abs(relevance - truth).max() <= _TOLERANCE * abs(truth).max())

    def ask_wrongly(self, way: int) -> str:
        """The status of a request that is malformed in some way."""
        inputs = self._inputs(1, binary=True)
        body, length = InferenceServerClient.generate_request_body(inputs if way % 2 else inputs[1:] + inputs[1:])
        headers = {"Inference-Header-Content-Length": str(length)}
        damaged = body[: len(body) // 2] if way % 2 else body
        response = self._client._post("v2/models/explainer/infer", damaged, headers, None)
        return str(response.status_code)

    def _inputs(self, rows: int, binary: bool) -> list[InferInput]:
        inputs = list[InferInput]()
        for name, array in self._feeds.items():
            tensor = InferInput(name, [rows, *array.shape[1:]], _KINDS[array.dtype.name])
            tensor.set_data_from_numpy(array[:rows], binary_data=binary)
            inputs.append(tensor)
        return inputs

    def _output(self, binary: bool) -> InferRequestedOutput:
        return InferRequestedOutput(self._relevance, binary_data=binary)


def measure(askers: Sequence[Asker], repeated: Sequence[Asker], requests: int) -> Load:
    """Latency of one client, throughput of all, and latency at half that throughput, of both servers in turns."""
    single, (_, seconds) = _scheduled(askers[:1], requests, 0)[0], _scheduled(askers, requests, 0)
    waits: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        for each, found in zip((askers, repeated), waits, strict=True):
            found += _scheduled(each, requests // _TURNS, 2 * seconds / requests)[0]
    half, alone = (np.quantile(each, (0.5, 0.99)) for each in waits)
    told = (*np.quantile(single, (0.5, 0.99)), requests / seconds / 1e3, *half, *alone)
    return Load(*(1e3 * float(value) for value in told))


def _scheduled(askers: Sequence[Asker], requests: int, interval: float) -> tuple[list[float], float]:
    """Seconds of each request from when it was due to its answer, and of all; whoever is free takes the next.

    With an interval of 0 the next is due when somebody is free. Everybody is connected before the first.
    """
    numbers, lock, waits, began = iter(range(requests)), threading.Lock(), list[float](), list[float]()
    ready = threading.Barrier(len(askers), lambda: began.append(time.monotonic()))

    def work(asker: Asker) -> None:
        with asker.connected():
            assert asker.ask()
            ready.wait()
            while (number := _taken(numbers, lock)) is not None:
                due = began[0] + number * interval if interval else time.monotonic()
                time.sleep(max(0.0, due - time.monotonic()))
                assert asker.ask(), "a wrong answer"
                waits.append(time.monotonic() - due)

    with ThreadPoolExecutor(len(askers)) as pool:
        list(pool.map(work, askers))
    return waits, time.monotonic() - began[0]


def _taken(numbers: Iterator[int], lock: threading.Lock) -> int | None:
    with lock:
        return next(numbers, None)


def soak(address: str, askers: Sequence[Asker], requests: int) -> Soak:
    """Mixed requests of all clients, a hundredth of them malformed."""
    answers, wrong = Counter[str](), list[int]()

    def work(share: tuple[int, int]) -> None:
        choose = random.Random(share[0])
        with askers[share[0]].connected() as asker:
            for _ in range(share[1]):
                status, right = _asked_somehow(asker, choose)
                answers[status] += 1
                wrong.extend([share[0]] * (not right))

    def all_of(count: int) -> None:
        with ThreadPoolExecutor(len(askers)) as pool:
            list(pool.map(work, [(k, count // len(askers)) for k in range(len(askers))]))

    all_of(requests // 5)
    before = _memory(address)
    all_of(requests - requests // 5)
    return Soak(dict(answers), len(wrong), _memory(address) / before - 1)


def _asked_somehow(asker: Asker, choose: random.Random) -> tuple[str, bool]:
    """Status, and whether the answer was right if there was one."""
    if choose.random() < 0.01:
        return asker.ask_wrongly(choose.randrange(2)), True
    try:
        return "200", asker.ask(choose.randint(1, 4), choose.random() < 0.5)
    except InferenceServerException as error:
        return str(error.status()), True


def _memory(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics") as page:
        found = re.search(r"^process_resident_memory_bytes (\S+)$", page.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def main(arguments: Sequence[str] | None = None) -> tuple[Load | None, Soak | None]:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("explainer", type=Path)
    parser.add_argument("--requests", type=int, default=200, help="of each load; 0: none")
    parser.add_argument("--soak", type=int, default=0, help="mixed requests")
    parser.add_argument("--threads", type=int, default=1, help="of the server's explainer")
    chosen = parser.parse_args(arguments)
    explainer = load(chosen.explainer, device="cpu", threads=1)
    server = running("--threads", chosen.threads, f"explainer={chosen.explainer}")
    with server as (address, _), repeating(address) as other:
        askers = [Asker(address, explainer, seed) for seed in range(_CLIENTS)]
        repeated = [asker.elsewhere(other) for asker in askers]
        found = measure(askers, repeated, chosen.requests) if chosen.requests else None
        soaked = soak(address, askers, chosen.soak) if chosen.soak else None
    Console().print_json(json.dumps([asdict(part) for part in (found, soaked) if part is not None]))
    return found, soaked


if __name__ == "__main__":
    main()
