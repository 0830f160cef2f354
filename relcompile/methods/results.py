"""What the user gets from the messages that arrive at the place where relevance is read, one message a walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, final

from passes.graphs.emitter import Value, aten
from passes.relevance.protocol.messages import Message, Multiplier, Relevance
from passes.relevance.protocol.stabilise import without_zeros
from relcompile.errors import CompositeError

Started: TypeAlias = type[Multiplier] | type[Relevance]
_INTERPOLATIONS = (aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)


@dataclass(frozen=True)
class Asked:
    """What a result may refuse to answer.

    Attributes:
        method: name of the composite.
        one_class: relevance starts at one class: the user neither gives it nor contrasts classes.
        output: shape of the explained output.
        place: shape of the layer's output where relevance is read; None: at the inputs.
        reports: something is to be reported about every operator.
    """

    method: str
    one_class: bool
    output: tuple[Any, ...]
    place: tuple[Any, ...] | None
    reports: bool


class Result(Protocol):
    """How many walks there are, and what their messages become."""

    reads_layer: ClassVar[bool]
    """It is read at a layer even if the user names none: then at the last feature map."""
    form: ClassVar[Started]
    """What a user gives who lets the walk start at a layer."""

    def check(self, asked: Asked, /) -> None:
        """Refuse what the result is not defined for.

        Raises:
            CompositeError: says why.
        """
        ...

    def walks(self, choice: Value, /) -> tuple[Value, ...]:
        """What each walk starts with, from the choice of the target."""
        ...

    def read(self, messages: tuple[Message, ...], x: Value, /) -> Value:
        """The result from the messages of all walks; x is the first explained input."""
        ...


@final
@dataclass(frozen=True)
class AsRelevance:
    """R."""

    reads_layer: ClassVar[bool] = False
    form: ClassVar[Started] = Relevance

    def check(self, _asked: Asked, /) -> None:
        return

    def walks(self, choice: Value, /) -> tuple[Value, ...]:
        return (choice,)

    def read(self, messages: tuple[Message, ...], _x: Value, /) -> Value:
        return messages[0].relevance


@final
@dataclass(frozen=True)
class AsMultiplier:
    """The multiplier m: a gradient, for the methods that are gradients."""

    reads_layer: ClassVar[bool] = False
    form: ClassVar[Started] = Multiplier

    def check(self, _asked: Asked, /) -> None:
        return

    def walks(self, choice: Value, /) -> tuple[Value, ...]:
        return (choice,)

    def read(self, messages: tuple[Message, ...], _x: Value, /) -> Value:
        return messages[0].multiplier


@final
@dataclass(frozen=True)
class AsContrast:
    """Contrastive LRP: what speaks for the target more than for all other classes.

    Equation: R = max(0, n(R(y_k)) - n(R(y_¬k))), y_k = y ⊙ onehot(k), y_¬k = y ⊙ (1 - onehot(k)), n(R) = R / Σ R, the
        sum over a sample. The scores of the other classes may cancel: n is not stabilised.
    Source: Sixt et al. 2020, section 5; Gu et al. 2018.
    """

    reads_layer: ClassVar[bool] = False
    form: ClassVar[Started] = Relevance

    def check(self, asked: Asked, /) -> None:
        if not asked.one_class or len(asked.output) < 2:
            raise CompositeError(
                f"{asked.method} contrasts a class with all others: it takes no seed and no other contrast, and needs "
                "classes"
            )
        if asked.reports:
            raise CompositeError(f"{asked.method} compares two walks: a report belongs to one")

    def walks(self, choice: Value, /) -> tuple[Value, ...]:
        return choice, choice.ones() - choice

    def read(self, messages: tuple[Message, ...], _x: Value, /) -> Value:
        of_target, of_others = messages
        return (_normalised(of_target.relevance) - _normalised(of_others.relevance)).positive


@final
@dataclass(frozen=True)
class AsActivationMap:
    """Grad-CAM: the channels of a feature map A, weighted by their mean gradients m, at the size of the input x.

    Equation: R = upsample(max(0, Σ_c w_c A_c)), w_c = mean of m_c over all places; linear interpolation, corners
        not aligned.
    Shapes: A and m (N, C, h...), x (N, C', H...), R (N, 1, H...).
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """

    reads_layer: ClassVar[bool] = True
    form: ClassVar[Started] = Multiplier

    def check(self, asked: Asked, /) -> None:
        if asked.place is not None and not 3 <= len(asked.place) <= 5:
            raise CompositeError(f"{asked.method} needs a layer with a spatial output, not one of shape {asked.place}")

    def walks(self, choice: Value, /) -> tuple[Value, ...]:
        return (choice,)

    def read(self, messages: tuple[Message, ...], x: Value, /) -> Value:
        A, m = messages[0].at, messages[0].multiplier
        places = list(range(2, A.ndim))
        weights = A.emit.call(aten.mean.dim, m, places, True)
        coarse = (A * weights).sum([1], keepdim=True).positive
        return A.emit.call(_INTERPOLATIONS[len(places) - 1], coarse, list(x.shape[2:]), False, None)


def _normalised(relevance: Value) -> Value:
    return relevance / without_zeros(relevance.sum(range(1, relevance.ndim), keepdim=True))
