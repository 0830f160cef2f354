"""Relevance by the efficient form of LXT 2.1, which patches classes of transformers.

It patches for good, so it runs in a process of its own: `python -m tests.whole.lxt_efficient CASE OUT`. LXT imports
its patches of all models at once, and those of BERT ask for an older transformers; here modules are imported one by
one.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.parts.specimen import Inputs, Specimen
from benchmarks.parts.zoo_transformers import transformers_models

TARGET: Final = torch.tensor([0, 1])


class Case(NamedTuple):
    """A model, LXT's patches of it, the rule that they are, and how far apart the two may be.

    Attributes:
        model: name of a class of transformers.
        patches: name of LXT's module.
        variant: name of the patches in that module.
        rule: relcompile's.
    """

    model: str
    patches: str
    variant: str
    rule: str


CASES: Final = (
    Case("LlamaForCausalLM", "llama", "attnLRP", "attnlrp"),
    Case("Qwen2ForCausalLM", "qwen2", "attnLRP", "attnlrp"),
    Case("Qwen3ForCausalLM", "qwen3", "attnLRP", "attnlrp"),
    Case("Gemma3ForCausalLM", "gemma3", "attnLRP", "attnlrp"),
    Case("GPT2LMHeadModel", "gpt2", "attnLRP", "attnlrp"),
    Case("GPT2LMHeadModel", "gpt2", "cp_LRP", "cp-lrp"),
)


class _Interfaces(dict[str, Any]):
    """LXT replaces transformers' table of attention functions by a dictionary, which is asked as a table."""

    def get_interface(self, name: str, default: Any) -> Any:
        return self.get(name, default)


def subject(name: str) -> tuple[Specimen, nn.Module, Inputs]:
    """A model in float64 with the same random weights in every process, and its inputs."""
    specimen = next(s for s in transformers_models() if s.name == name)
    torch.manual_seed(0)
    model, inputs = specimen.build()
    return specimen, model.double().eval(), inputs


def explain(case: Case) -> Tensor:
    """Relevance (N, T) of the tokens for the classes of `TARGET`, float64."""
    _patch(case)
    specimen, model, inputs = subject(case.model)
    return specimen.gradient(model, inputs, TARGET)


def _patch(case: Case) -> None:
    _without_imports("lxt", "lxt.efficient", "lxt.efficient.models")
    patches: Any = import_module(f"lxt.efficient.models.{case.patches}")
    for patched, patch in getattr(patches, case.variant).items():
        assert patch(patched), f"LXT did not patch {patched}"
    modeling: Any = import_module(f"transformers.models.{case.patches}.modeling_{case.patches}")
    modeling.ALL_ATTENTION_FUNCTIONS = _Interfaces(modeling.ALL_ATTENTION_FUNCTIONS)


def _without_imports(*packages: str) -> None:
    """Packages whose modules can be imported, while their own code does not run."""
    spec = find_spec("lxt")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0]).parent
    for name in packages:
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = package


if __name__ == "__main__":
    torch.save(explain(CASES[int(sys.argv[1])]), sys.argv[2])
