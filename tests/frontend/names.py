"""Names that are programs, or that no program can hold; and nets that have them in every place."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from itertools import cycle

import torch
from hypothesis import strategies as st
from torch import nn

# Breaks out of `getattr(self, "...")`, as torch writes it, and makes a file when the source is run.
MARKER = "OWNED"
CALL = f'__import__("pathlib").Path("{MARKER}").touch()'
NEWLINES = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
PROGRAM = f'x")\r{CALL}\rdef f(self, *a):\r    pass #'
PROGRAMS = [
    *(f'x"){line}{CALL}{line}#' for line in NEWLINES),
    *(f"x{quote}){end}{CALL}{end}#" for quote in ('"', "'", '"""', '\\"') for end in (";", "\n    ")),
    f'x", {CALL}) #',
    f"{{{CALL}}}",
    f"m.{CALL}",
    f"$({MARKER})",
    f"`touch {MARKER}`; touch {MARKER} | touch {MARKER}",
    f"../../{MARKER}",
    f"lambda: {CALL}",
]
PLAIN = [
    *(
        "class",
        "in",
        "None",
        "lambda",
        "self",
        "torch",
        "m0",
        "t0",
        "a.b",
        "",
        " ",
        "0",
        "\u00df",
        "\U0001f600",
        "x" * 300,
    ),
    *("__class__", "__dict__", "__init__", "__getattr__", "forward_", "weight", "[/y]", "[bold red]", ":smile:", "\\"),
    *("\x1b[2J\x1b]0;title\x07", "\x9b31m", "\u202eabc", "a\x00b", "'", '"', "a,b;c", "%s{0}{x!r}", *NEWLINES),
]
NAMES = st.one_of(
    st.sampled_from(PROGRAMS), st.sampled_from(PLAIN), st.sampled_from(keyword.kwlist), st.text(max_size=20)
)
X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
PLACES = 7  # of a name in one layer


class Affine(nn.Module):
    """A layer that finds its tensors where they are, whatever they are called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (weight, *_), (bias, *_) = self.parameters(), self.buffers()
        return x @ weight.T + bias


def affine(names: Iterator[str]) -> nn.Module:
    """A layer with names for a parameter, a second one of it, a buffer and a plain tensor that is that buffer."""
    layer = Affine()
    weight = nn.Parameter(torch.randn(4, 4))
    layer._parameters.update({next(names): weight, f"{next(names)} again": weight})
    bias = torch.randn(4)
    vars(layer)[f"{next(names)} plain"] = bias
    layer._buffers[next(names)] = bias
    return layer


def batch_norm(names: Iterator[str]) -> nn.Module:
    """A layer that reads a plain tensor, which has a second name."""
    norm = nn.BatchNorm1d(4)
    mean = norm._buffers.pop("running_mean")
    vars(norm)[f"{next(names)} plain"] = mean
    vars(norm)["running_mean"] = mean
    return norm


def net_with(names: list[str]) -> nn.Sequential:
    """A net that has the names in every place where one can stand; its layers are of torch, but for `Affine`."""
    torch.manual_seed(0)
    given, net = cycle(names), nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    for _ in range(-(-len(names) // PLACES)):
        for part in (affine(given), batch_norm(given), nn.ReLU(), net[0]):
            net._modules[next(given)] = part
    vars(net)[f"{next(given)} plain"] = torch.rand(4)
    return net.eval()


def file_with(names: list[str]) -> nn.Module:
    """As `net_with`, of nothing but layers that are read from a file."""
    torch.manual_seed(0)
    given, net = cycle(names), nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    for _ in range(-(-len(names) // PLACES)):
        linear, norm = nn.Linear(4, 4), batch_norm(given)
        linear._parameters[f"{next(given)} again"] = linear._parameters["weight"]
        linear._buffers[next(given)] = torch.ones(2)
        vars(linear)[f"{next(given)} plain"] = torch.ones(2)
        for part in (linear, norm, nn.Sequential(nn.ReLU()), net[0]):
            net._modules[next(given)] = part
    vars(net)[f"{next(given)} plain"] = torch.rand(4)
    return net.eval()
