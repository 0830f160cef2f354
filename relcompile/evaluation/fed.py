"""One compiled graph, and the weights that it is run with.

A compiler looks at weights: it shares equal tensors, and knows of some that they are never negative. The graph here is
compiled for weights of no such property (`generic`), so that it is right for all weights of the same shapes. What the
graph derives from weights (merged batch norms) is derived anew for every set of them, by the passes that do so in a
compilation; the rest (W⁺, flipped kernels, activations of a reference) are expressions in the graph.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from relcompile.compiler import capture
from relcompile.errors import EvaluationError
from relcompile.files.records import InputRecord
from relcompile.frontend.canonical import Progress, canonicalize, weights_digest
from relcompile.question.options import Options
from relcompile.question.targets import TARGET_INPUT


def generic(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of the model with random weights: no two are equal, and of both signs, except for variances."""
    made = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            _draw(parameter, generator)
        for module in made.modules():
            statistics = dict(module.named_buffers(recurse=False))
            if "running_var" in statistics:
                _draw(statistics["running_mean"], generator)
                statistics["running_var"].uniform_(0.5, 1.5, generator=generator)
    return made


def _draw(tensor: Tensor, generator: torch.Generator) -> None:
    """N(0, 1 / fan-in): values neither grow nor vanish from layer to layer."""
    fan_in = max(1, tensor[0].numel()) if tensor.dim() > 1 else 1
    tensor.normal_(0, fan_in**-0.5, generator=generator)


@dataclass(frozen=True, eq=False)
class Weights:
    """What a canonical graph holds of one model.

    Attributes:
        tensors: by name in that graph.
        digest: checksum of the model's state.
    """

    tensors: Mapping[str, Tensor]
    digest: str


class Architecture:
    """What models of one architecture have in common. It is captured once, for all rules and all weights.

    Args:
        model: one of them.
        example: an input, the batch on axis 0.
        progress: told the name of every step of a compilation.
    """

    def __init__(self, model: nn.Module, example: Tensor, progress: Progress | None = None) -> None:
        self.digest, self.progress = weights_digest(model), progress
        self.captured = capture(generic(model), example)

    @cached_property
    def own(self) -> Weights:
        """The random ones that rules are compiled for."""
        return self.weights(self.captured.model)

    def weights(self, model: nn.Module) -> Weights:
        """What a compilation would make of the weights of `model`: batch norms are merged anew.

        Raises:
            CaptureError: models of this architecture cannot be captured.
            EvaluationError: the model is of another architecture.
        """
        captured, given = self.captured.graph(), _tensors(model)
        for name, path in captured.stored.items():
            _fit(path, captured.module.get_buffer(name), given)
            setattr(captured.module, name, given[path].clone())
        canonicalize(captured.module)
        return Weights(_tensors(captured.module), weights_digest(model))


class Fed:
    """An explainer whose weights are an argument.

    Args:
        architecture: of the models that have such weights.
        options: what is asked of it.

    Raises:
        RelcompileError, PassError: as `relcompile.compile`.
    """

    def __init__(self, architecture: Architecture, options: Options) -> None:
        self.architecture = architecture
        if options.calibration is not None:
            options.calibration.require(architecture.digest)
            learned = replace(options.calibration, weights_sha256=architecture.captured.digest)
            options = replace(options, calibration=learned)
        self.explainer = architecture.captured.compile_as_asked(options, architecture.progress)
        self.metadata = self.explainer.metadata
        self._own = _tensors(self.explainer.graph_module)
        self._check_constants(architecture.own)

    def explain(self, weights: Weights, x: Tensor, target: Tensor | None = None, seed: int = 0) -> tuple[Tensor, ...]:
        """What the explainer compiled for these weights returns: prediction, relevance, taps, ledgers.

        Args:
            weights: of a model of this architecture.
            x: (N, ...).
            target: as the explainer takes it.
            seed: of the noise, for methods that average over noisy copies.

        Raises:
            EvaluationError: the weights are of another architecture.
        """
        named = {self.metadata.inputs[0].name: x} | ({} if target is None else {TARGET_INPUT: target})
        generator = torch.Generator().manual_seed(seed)
        named |= {record.name: _normal(record, len(x), generator) for record in self.metadata.noise}
        arguments = tuple(named[name] for name in self.explainer.examples)
        with torch.no_grad():
            return torch.func.functional_call(self.explainer.graph_module, self._fed(weights), arguments)

    def _fed(self, weights: Weights) -> dict[str, Tensor]:
        for name in self._weights:
            _fit(name, self._own[name], weights.tensors)
        return self._own | {name: weights.tensors[name] for name in self._weights}

    def _check_constants(self, stand_in: Weights) -> None:
        """What has the name of a weight is that weight; anything else is a constant of the rules."""
        self._weights = self._own.keys() & stand_in.tensors.keys()
        changed = [n for n in self._weights if not torch.equal(self._own[n], stand_in.tensors[n])]
        if changed:
            raise EvaluationError(f"the compiler derives {', '.join(changed)} from weights, so that they cannot be fed")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers; one that has several names is there under each."""
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in named}


def _fit(name: str, wanted: Tensor, given: Mapping[str, Tensor]) -> None:
    """Raises an EvaluationError if what is given is not of the shape that is wanted."""
    found = given.get(name)
    if found is None:
        raise EvaluationError(f"these weights are of another architecture: there is no {name}")
    if found.shape != wanted.shape:
        shapes = f"{list(found.shape)} instead of {list(wanted.shape)}"
        raise EvaluationError(f"these weights are of another architecture: {name} is {shapes}")


def _normal(record: InputRecord, samples: int, generator: torch.Generator) -> Tensor:
    sizes = [size if isinstance(size, int) else samples for size in record.shape]
    return torch.randn(samples, *sizes[1:], generator=generator)
