"""Small models and packages to read, and to keep apart."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

PACKAGE = "reading_zoo"
MODELS_SOURCE = """
import torch
constructed = 0

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        global constructed
        constructed += 1
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x).relu()

class Measured(Net):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.width = self.fc.in_features

class Settings:
    pass

def weightless():
    return torch.nn.Linear(3, 2, device="meta")

def number():
    return 3

def broken():
    raise ValueError("first line\\nsecond line")
"""


def tiny() -> nn.Module:
    """A model whose state has a buffer, an integer and two dtypes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2).double())


def forget_zoo() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def saved_zoo_model(path: Path, module: str, name: str = "Net", inner: str | None = None) -> Path:
    """A pickled instance of a class of the zoo, which is forgotten again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        found = importlib.import_module(f"{PACKAGE}.{module}")
        model = getattr(found, name)()
        if inner is not None:
            model.settings = getattr(found, inner)()
        torch.save(model, path / "zoo.pt")
    forget_zoo()
    return path / "zoo.pt"


def same(left: nn.Module, right: nn.Module) -> bool:
    """The same classes, plain attributes and weights."""
    pairs = list(zip(left.named_modules(), right.named_modules(), strict=True))
    classes = all(name == other and type(a) is type(b) for (name, a), (other, b) in pairs)
    attributes = all(
        value == vars(b)[key] and type(value) is type(vars(b)[key])
        for (_, a), (_, b) in pairs
        for key, value in vars(a).items()
        if not key.startswith("_") and key != "training" and "partial" not in type(value).__name__
    )
    states = left.state_dict(), right.state_dict()
    equal = [a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*(x.values() for x in states), strict=True)]
    return classes and attributes and all(equal) and list(states[0]) == list(states[1])
