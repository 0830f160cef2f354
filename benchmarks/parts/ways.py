"""Ways to the relevance of K classes of a batch: ours, other libraries', and none (the forward pass)."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torchvision import models

import relcompile
from benchmarks import rival
from benchmarks.speed import Run, export_forward, onnx_run

_TORCH_STEPS: Final = ("capture", "export to ONNX")  # of those that a compilation tells
FORWARD: Final = "forward, ONNX Runtime"
# Products with the weights, all layers under a ReLU: once a sample, and once a question.
_PASSES: Final = {"gradient": (1, 1), "epsilon": (1, 1), "z+": (2, 1), "alpha2beta1": (2, 2), "gamma": (2, 1)}


class UnavailableError(Exception):
    """The way does not lead there."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        questions: K, classes that are explained of every sample.
        threads: of one operator.
    """

    network: str
    rule: str
    size: int
    batch: int
    questions: int
    threads: int

    @property
    def passes(self) -> int | None:
        """Forward pass, denominators and K times the adjoints; None for a rule that is not counted here."""
        if self.rule not in _PASSES:
            return None
        forward, adjoints = _PASSES[self.rule]
        return forward + adjoints * self.questions


@dataclass(frozen=True)
class File:
    """An ONNX file, and what it took to make: seconds in torch, and in what is ours."""

    path: Path
    torch_s: float
    own_s: float

    @property
    def megabytes(self) -> float:
        return self.path.stat().st_size / 1e6

    @cached_property
    def nodes(self) -> int:
        return len(onnx.load(self.path).graph.node)


class Bench:
    """A network, and the files that were made of it so far.

    Args:
        name: of a network of torchvision, with random weights.
        folder: for files.
    """

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(0)
        self.name, self._folder = name, folder
        self.model = models.get_model(name).eval()
        self._files = dict[tuple[object, ...], File]()

    def input(self, case: Case) -> torch.Tensor:
        """Normal numbers, the same every time."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(case.batch, 3, case.size, case.size, generator=generator)

    def file(self, way: str, case: Case) -> File | None:
        """The file that runs, if it is one."""
        return self._files.get(_key(way, case))

    def made(self, way: str, case: Case, make: Callable[[Path], tuple[float, float]]) -> Path:
        """The file of `way`, made if there is none yet; `make` says what it took."""
        key = _key(way, case)
        if key not in self._files:
            path = self._folder / f"{self.name}.{len(self._files)}.onnx"
            torch_s, own_s = make(path)
            self._files[key] = File(path, torch_s, own_s)
        return self._files[key].path


def _key(way: str, case: Case) -> tuple[object, ...]:
    """What a file depends on; batch and number of questions are free in ours, and fixed in what is traced."""
    if way == FORWARD:
        return way, case.size
    fixed = () if way == OURS else (case.batch, case.questions)
    return way, case.rule, case.size, case.questions > 1, *fixed


def _forward(bench: Bench, case: Case) -> Run:
    x = bench.input(case)
    path = bench.made(FORWARD, case, lambda path: (export_forward(bench.model, x[:1], path), 0.0))
    return onnx_run(path, x, case.threads)


def _ours(bench: Bench, case: Case) -> Run:
    x = bench.input(case)
    path = bench.made(OURS, case, lambda path: _compile(bench.model, x[:1], case, path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name, target = (entry.name for entry in session.get_inputs())
    feeds = {name: x.numpy(), target: _target(case).numpy()}
    return lambda: session.run(None, feeds)


def _compile(model: torch.nn.Module, x: torch.Tensor, case: Case, path: Path) -> tuple[float, float]:
    """Write the explainer; seconds in torch, and in what is ours."""
    told = [("", time.perf_counter())]

    def tell(step: str) -> None:
        told.append((step, time.perf_counter()))

    from relcompile.backend.onnx_file import save

    target = "index" if case.questions == 1 else "indices"
    save(relcompile.compile(model, x, rule=case.rule, target=target, progress=tell), path, tell)
    told.append(("", time.perf_counter()))
    spent = [(step, until - since) for (step, since), (_, until) in pairwise(told)]
    in_torch = sum(seconds for step, seconds in spent if step in _TORCH_STEPS)
    return in_torch, sum(seconds for _, seconds in spent) - in_torch


def _target(case: Case) -> torch.Tensor:
    classes = torch.arange(case.questions)
    return torch.zeros(case.batch, dtype=torch.int64) if case.questions == 1 else classes.expand(case.batch, -1)


def _ours_in_torch(bench: Bench, case: Case) -> Run:
    x, target = bench.input(case), "index" if case.questions == 1 else "indices"
    explainer = relcompile.compile(bench.model, x[:1], rule=case.rule, target=target)
    compiled = torch.compile(explainer.graph_module)
    return _without_gradients(lambda: compiled(x, _target(case)))


def _autograd(bench: Bench, case: Case) -> Run:
    if case.rule != "gradient":
        raise UnavailableError("autograd computes gradients")
    x = bench.input(case).requires_grad_()

    def run() -> None:
        output = bench.model(x)
        for k in range(case.questions):
            torch.autograd.grad(output[:, k].sum(), x, retain_graph=k + 1 < case.questions)

    return run


def _zennit(bench: Bench, case: Case) -> Run:
    explain, x = rival.attribution(copy.deepcopy(bench.model), _rule_of_zennit(case)), bench.input(case)

    def run() -> None:
        for _ in range(case.questions):
            explain(x)

    return run


def _zennit_traced(bench: Bench, case: Case) -> Run:
    x = bench.input(case)
    _one_question(case)
    model, rule = copy.deepcopy(bench.model), _rule_of_zennit(case)
    path = bench.made(ZENNIT_TRACED, case, lambda path: (rival.export_rival(model, rule, x, path), 0.0))
    return onnx_run(path, x, case.threads)


def _zennit_in_torch(bench: Bench, case: Case) -> Run:
    x = bench.input(case)
    _one_question(case)
    explain = rival.attribution(copy.deepcopy(bench.model), _rule_of_zennit(case))
    compiled = torch.compile(make_fx(explain, decomposition_table=rival.DECOMPOSITIONS)(x))
    return _without_gradients(lambda: compiled(x))


def _captum(bench: Bench, case: Case) -> Run:
    from captum.attr import LRP, InputXGradient

    x, model = bench.input(case).requires_grad_(), copy.deepcopy(bench.model)
    method = {"gradient": InputXGradient, "epsilon": LRP}.get(case.rule)
    if method is None:
        raise UnavailableError(f"captum has no {case.rule} without a rule set on every module")
    attribution: Any = method(model)

    def run() -> None:
        for k in range(case.questions):
            attribution.attribute(x, target=k)

    return run


def _rule_of_zennit(case: Case) -> str:
    if case.rule not in ("epsilon", "z+"):
        raise UnavailableError(f"zennit is compared for epsilon and z+, not for {case.rule}")
    return case.rule


def _one_question(case: Case) -> None:
    if case.questions > 1:
        raise UnavailableError("what is traced answers one question")


def _without_gradients(run: Run) -> Run:
    def quiet() -> Any:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            return run()

    return quiet


OURS: Final = "relcompile, ONNX Runtime"
AUTOGRAD: Final = "autograd, eager"
ZENNIT: Final = "zennit, eager"
ZENNIT_TRACED: Final = "zennit, make_fx, ONNX Runtime"
WAYS: Final[Mapping[str, Callable[[Bench, Case], Run]]] = {
    FORWARD: _forward,
    OURS: _ours,
    "relcompile, torch.compile": _ours_in_torch,
    AUTOGRAD: _autograd,
    ZENNIT: _zennit,
    "captum, eager": _captum,
    ZENNIT_TRACED: _zennit_traced,
    "zennit, make_fx, torch.compile": _zennit_in_torch,
}
"""All that is compared; the first is what the others are measured in."""
