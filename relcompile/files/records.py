"""What an explainer file says of its parts: layers, targets, inputs and outputs. Like `metadata`, without torch."""

import math
from dataclasses import dataclass
from typing import Literal

from relcompile.errors import MetadataError
from relcompile.files.arrays import DTYPES

OTHERS = "others"  # the mean of all classes but one
MANY = "questions"  # the symbol of a number of questions that the caller chooses
TargetMode = Literal["index", "argmax", "fixed", "seed", "entry", "region"]
_MOST_NAMED = 10  # classes
_MOST_AXES = 64  # numpy has no more
_MOST_ELEMENTS = 2**31  # of one sample of an input


@dataclass(frozen=True)
class LayerRecord:
    """One layer and the rule it was given.

    Args:
        name: The user's own name, "layer1.0.conv1".
        operator: What the layer computes, "convolution"; `kind` is the operator's kind, "affine".
        rule: The rule with its parameters, "AlphaBeta(alpha=1.0, beta=0.0, bias='none', epsilon=1e-09)".
        parameters: Number of weights and biases, 0 or more.
    """

    name: str
    operator: str
    kind: str
    rule: str
    parameters: int

    def __post_init__(self) -> None:
        require(self.parameters >= 0, f"parameters is {self.parameters}, which is negative")


@dataclass(frozen=True)
class TargetRecord:
    """How the class to explain is chosen.

    Args:
        mode: "index": an int64 input (batch,); "argmax": the file explains the best class; "fixed": always
            `index`; "seed": a floating-point input (batch, classes) is the relevance of the output itself, or of
            the layer where relevance starts; "entry": an int64 input (batch, axes) has an index for every axis of the
            output; "region": a floating-point input like the output says how much of each entry is explained.
        index: The class of mode "fixed", else None.
        classes: Number of classes, None if the explained output is not (batch, classes).
        questions: How many targets every sample has, "questions" if the caller chooses: then, or for a number,
            targets, masks and relevance are (batch, questions, ...). None: one, and no such axis.
        indices: Of mode "fixed" with several targets, the classes; None: all.
        against: For contrasts: what the class is set against, a class, "argmax" (the best one) or "others" (the mean of
            all other classes); one entry for all questions, or one for each, "" where it is set against nothing.
    """

    mode: TargetMode
    index: int | None = None
    classes: int | None = None
    questions: int | str | None = None
    indices: tuple[int, ...] | None = None
    against: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        known = self.questions in (None, MANY) or (isinstance(self.questions, int) and self.questions > 0)
        require(known, f"questions is {self.questions!r}, not {MANY!r}, and no number above 0")
        require(self.classes is None or self.classes > 0, f"classes is {self.classes}, but must be positive")
        require(
            (self.mode == "fixed" and self.questions is None) == (self.index is not None),
            'index belongs to mode "fixed" with one target, and to no other',
        )
        limit = math.inf if self.classes is None else self.classes
        require(self.index is None or 0 <= self.index < limit, f"index {self.index} is not one of {limit} classes")
        others = [
            one for one in self.against if one not in ("", "argmax", OTHERS) and one not in range(self.classes or 0)
        ]
        require(not others, f"against is {others}, which are no classes")
        require(len(self.against) in (0, 1, self.questions), f"against has {len(self.against)} entries")

    @property
    def name(self) -> tuple[str, ...]:
        """What tells it from the usual target, a class that the caller chooses."""
        return self.description[1:] if self.takes_class and self.questions is None else self.description

    @property
    def description(self) -> tuple[str, ...]:
        """Who chooses how many classes, and what they are set against."""
        chosen = self.mode if self.index is None else f"class {self.index}"
        if self.indices is not None and len(self.indices) <= _MOST_NAMED:
            return (f"classes {','.join(map(str, self.indices))}", *self._against)
        several = (
            ()
            if self.questions is None
            else ("many targets" if self.questions == MANY else f"{self.questions} targets",)
        )
        return (", ".join((chosen, *several)), *self._against)

    @property
    def _against(self) -> tuple[str, ...]:
        return (f"against {', '.join(str(one) or 'nothing' for one in self.against)}",) if self.against else ()

    @property
    def is_reported(self) -> bool:
        """The file has an output for the classes that it chose, (batch, questions)."""
        return self.questions is not None and self.mode in ("argmax", "fixed")

    @property
    def takes_class(self) -> bool:
        """The file has an input for the class of every sample."""
        return self.mode == "index"

    @property
    def takes_entry(self) -> bool:
        """The file has an input for the indices of an entry of every sample."""
        return self.mode == "entry"

    @property
    def takes_seed(self) -> bool:
        """The file has an input like the output: its relevance, or how much of each entry is explained."""
        return self.mode in ("seed", "region")

    @property
    def takes_best(self) -> bool:
        """The file explains the class that it finds to be the best."""
        return self.mode == "argmax"


@dataclass(frozen=True)
class RootsRecord:
    """The report on learned roots: an output "roots", (batch, layers, quantities).

    Args:
        layers: Names of the layers whose roots were learned, in the order of the graph.
        quantities: What is reported about each.
    """

    layers: tuple[str, ...]
    quantities: tuple[str, ...]


@dataclass(frozen=True)
class InputRecord:
    """One of the model's own inputs.

    Args:
        name: Its name in the graph.
        shape: One entry a dimension: a size, or a symbol ("batch") for a size that the caller chooses. Equal
            symbols are equal sizes, in all inputs.
        dtype: numpy's name of its dtype, "float32".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __post_init__(self) -> None:
        sizes = [size for size in self.shape if isinstance(size, int)]
        require(bool(self.name), "the name is empty")
        require(len(self.shape) <= _MOST_AXES, f"the shape has {len(self.shape)} axes, more than {_MOST_AXES}")
        require(all(size > 0 for size in sizes), f"shape {list(self.shape)} has a size that is not positive")
        require(math.prod(sizes) <= _MOST_ELEMENTS, f"shape {list(self.shape)} has more than 2^31 elements")
        require(self.dtype in DTYPES, f'dtype "{self.dtype}" is not one that numpy and ONNX share')


@dataclass(frozen=True)
class TapRecord:
    """Relevance that is read at a layer, beside that of the inputs.

    Args:
        name: The output of the graph, "relevance_at_layer1".
        layer: The user's name of the layer, "layer1".
        shape: Of that output, as in `InputRecord`.
    """

    name: str
    layer: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class MaskRecord:
    """An input of the graph that is multiplied onto the relevance which passes a layer.

    Args:
        layer: The user's name of the layer, "layer1.0".
        input: (batch, channels); ones mask nothing.
    """

    layer: str
    input: InputRecord


def require(condition: bool, problem: str) -> None:
    """Raise MetadataError unless the condition holds."""
    if not condition:
        raise MetadataError(problem)
