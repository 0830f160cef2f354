"""Runs a model over data and watches its affine layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch.fx import GraphModule, Interpreter, Node

from passes.graphs.graph import describe_node
from passes.graphs.nodes import argument, map_nodes, run_node
from passes.operators.affine import ConvolutionCall, Geometry
from passes.operators.table import is_a
from passes.views.affine_layers import AffineLayer, affine_layers
from relcompile.calibration.moments import Moments, Reading
from relcompile.calibration.store import ESTIMATORS, Calibration
from relcompile.errors import CalibrationError
from relcompile.frontend.canonical import ExampleInputs, canonicalize, captured_graph, named_inputs, weights_digest

Estimator: TypeAlias = Literal["relu", "linear"]


class Observer:
    """Estimates the patterns of a model, batch by batch.

    Args:
        model: the model; used in eval mode.
        example: inputs that it can be captured with.
        estimator: "relu" conditions on the ReLU behind a layer being active, where there is one; "linear" never does.

    Raises:
        CalibrationError: the estimator is not known, or two affine layers share a name.
        CaptureError: the model is not one static graph.
    """

    def __init__(self, model: torch.nn.Module, example: ExampleInputs, estimator: Estimator = "relu") -> None:
        if estimator not in ESTIMATORS:
            raise CalibrationError(f"estimator {estimator!r} must be one of {', '.join(ESTIMATORS)}")
        self.estimator: Estimator = estimator
        self.weights_sha256 = weights_digest(model)
        self.samples = 0
        self._captured = captured_graph(model, named_inputs(model, example))
        canonicalize(self._captured.module)
        layers = affine_layers(self._captured.module)
        _check_names(layers)
        self._watch = _Watch(self._captured.module, layers, conditional=estimator == "relu")

    def add(self, batch: ExampleInputs) -> None:
        """One more batch.

        Raises:
            CalibrationError: the model does not run on it.
        """
        inputs = _by_name(self._captured.inputs, batch)
        try:
            with torch.no_grad():
                self._watch.run(*inputs)
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
            reason = str(error).strip().partition("\n")[0]
            raise CalibrationError(f"the model does not run on data of shape {shapes}: {reason}") from error
        self.samples += len(inputs[0])

    @property
    def sums(self) -> dict[str, torch.Tensor]:
        """All running sums, by "layer/sum"."""
        moments = self._watch.moments
        return {f"{name}/{key}": value for name, layer in moments.items() for key, value in layer.sums.items()}

    @property
    def inactive(self) -> tuple[int, int]:
        """How many neurons were never active, of how many."""
        counts = [layer.sums["active"] for layer in self._watch.moments.values()]
        return sum(int((count == 0).sum()) for count in counts), sum(len(count) for count in counts)

    def restore(self, sums: Mapping[str, torch.Tensor], samples: int) -> None:
        """Go on from what `sums` and `samples` were in an earlier run on the same model.

        Raises:
            CalibrationError: they were not.
        """
        for name, layer in self._watch.moments.items():
            own = {key: sums[f"{name}/{key}"] for key in layer.sums if f"{name}/{key}" in sums}
            try:
                layer.restore(own)
            except ValueError as error:
                raise CalibrationError(f"the state does not fit layer {name}: {error}; start anew") from error
        self.samples = samples

    def result(self) -> Calibration:
        """The patterns so far.

        Raises:
            CalibrationError: there was no data, or values in the network were not finite.
        """
        if self.samples == 0:
            raise CalibrationError("there is no data to calibrate with")
        patterns = {name: layer.pattern() for name, layer in self._watch.moments.items()}
        broken = [name for name, pattern in patterns.items() if not pattern.isfinite().all()]
        if broken:
            raise CalibrationError(f"values that are not finite reached layer {', '.join(broken)}; check the data")
        return Calibration(patterns, self.weights_sha256, self.estimator, self.samples)


def calibrate(
    model: torch.nn.Module, batches: Iterable[ExampleInputs], *, estimator: Estimator = "relu"
) -> Calibration:
    """The patterns of every affine layer of `model`, estimated in one pass over `batches`.

    Args:
        model: the model that will be compiled; used in eval mode.
        batches: tensors with the batch on axis 0 (several, or by name, for a model of several inputs).
        estimator: "relu" (two components, as PatternNet and PatternAttribution need it) or "linear".

    Raises:
        CalibrationError: there is no data, the model does not run on it, or two affine layers share a name.
        CaptureError: the model is not one static graph.
    """
    observer = None
    for batch in batches:
        observer = observer or Observer(model, batch, estimator)
        observer.add(batch)
    if observer is None:
        raise CalibrationError("there is no data to calibrate with")
    return observer.result()


class _Watch(Interpreter):
    """Runs the canonical graph; an affine layer is measured when its ReLU has run, or at once if it has none."""

    def __init__(self, module: GraphModule, layers: list[AffineLayer], *, conditional: bool) -> None:
        super().__init__(module)
        self.moments = {
            layer.name: Moments(_geometry(layer.node), self._constant(argument(layer.node, "weight")))
            for layer in layers
        }
        self._affine = {layer.node: layer for layer in layers}
        self._relu = {layer.node: layer.relu if conditional else None for layer in layers}
        self._waiting: dict[Node, list[tuple[str, torch.Tensor, torch.Tensor]]] = {}

    def run_node(self, n: Node) -> Any:
        if n in self._affine:
            x, bias = self.env[argument(n, "input")], argument(n, "bias")
            result = super().run_node(n)
            y = self._without_bias(n, result, None if bias is None else self.env[bias])
            self._measure_or_wait(n, x, y)
            return result
        result = super().run_node(n)
        for name, x, y in self._waiting.pop(n, []):
            self.moments[name].add(x, y, (result > 0).reshape(y.shape))
        return result

    def _measure_or_wait(self, node: Node, x: torch.Tensor, y: torch.Tensor) -> None:
        name, relu = self._affine[node].name, self._relu[node]
        if relu is None:
            self.moments[name].add(x, y, torch.ones_like(y, dtype=torch.bool))
        else:
            self._waiting.setdefault(relu, []).append((name, x, y))

    @staticmethod
    def _without_bias(node: Node, z: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if bias is None:
            return z
        trailing = z.dim() - 2 if is_a(node, ConvolutionCall) else 0
        return z.double() - bias.double().reshape(-1, *[1] * trailing)

    def _constant(self, node: Node) -> torch.Tensor:
        """A value that depends on stored tensors only."""
        if node.op == "get_attr":
            return self.fetch_attr(str(node.target))
        args, kwargs = map_nodes((node.args, node.kwargs), self._constant)
        return run_node(node, args, kwargs)


def _geometry(node: Node) -> Reading:
    return Reading(Geometry.of(node) if is_a(node, ConvolutionCall) else None)


def _check_names(layers: list[AffineLayer]) -> None:
    twice = [name for name, count in Counter(layer.name for layer in layers).items() if count > 1]
    if twice:
        places = "\n".join(f"  {describe_node(layer.node)}" for layer in layers if layer.name in twice)
        raise CalibrationError(
            f"patterns are found by layer name, but several affine operators share one:\n{places}\n"
            "give every one of them a module of its own"
        )


def _by_name(names: tuple[str, ...], batch: ExampleInputs) -> list[torch.Tensor]:
    """The tensors of a batch in the order of the graph's inputs."""
    if isinstance(batch, Mapping):
        return [batch[name] for name in names]
    return [batch] if isinstance(batch, torch.Tensor) else list(batch)
