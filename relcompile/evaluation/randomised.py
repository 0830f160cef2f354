"""The same network with random weights: in some layers, or in all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def layers_with_weights(model: nn.Module) -> list[str]:
    """Names of the layers that hold weights, in the order in which they were made."""
    return [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]


def randomise(model: nn.Module, layers: list[str], seed: int) -> nn.Module:
    """A copy in which `layers` are as an untrained network has them.

    Kernels are Glorot uniform, U(±√(6 / (fan-in + fan-out))), biases zero; norms do nothing. Tensors of other layers
    (embeddings, tokens, scales) are N(0, 0.02²).
    Source: Sixt et al. 2020 (what Keras does); Glorot, Bengio 2010.
    """
    made = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in layers:
            _reset(made.get_submodule(name), generator)
    return made


def cascade(model: nn.Module, steps: int, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """From the top down: the network with this layer and all above it random, for `steps` layers, evenly spaced.

    The first is the last layer, the last one the first: then nothing of the training is left.
    Source: Adebayo et al. 2018.
    """
    names = layers_with_weights(model)
    count = min(steps, len(names))
    lowest = sorted({round(k * (len(names) - 1) / max(1, count - 1)) for k in range(count)}, reverse=True)
    for position in lowest:
        yield names[position], randomise(model, names[position:], seed)


def _reset(module: nn.Module, generator: torch.Generator) -> None:
    own = dict(module.named_parameters(recurse=False))
    weight = own.get("weight")
    is_kernel = weight is not None and weight.dim() > 1
    is_norm = weight is not None and not is_kernel and len(own) <= 2 and not own.keys() - {"weight", "bias"}
    for name, parameter in own.items():
        if name == "bias":
            parameter.zero_()
        elif name == "weight" and is_norm:
            parameter.fill_(1.0)
        elif name == "weight" and is_kernel and not isinstance(module, nn.Embedding):
            _glorot(parameter, getattr(module, "groups", 1), generator)
        else:
            parameter.normal_(0, 0.02, generator=generator)
    statistics = dict(module.named_buffers(recurse=False))
    if "running_var" in statistics:
        statistics["running_mean"].zero_()
        statistics["running_var"].fill_(1.0)


def _glorot(kernel: Tensor, groups: int, generator: torch.Generator) -> None:
    """Of a grouped convolution a unit reads and feeds its own group alone; torch's own counts all groups as fed."""
    fans = (kernel.shape[0] // groups + kernel.shape[1]) * math.prod(kernel.shape[2:])
    kernel.uniform_(-((6 / fans) ** 0.5), (6 / fans) ** 0.5, generator=generator)
