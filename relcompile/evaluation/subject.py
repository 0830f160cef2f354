"""What is explained: a network, and pictures that it is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relcompile.errors import EvaluationError

_SMALLEST = 5  # pixels: SSIM compares windows of 5 x 5
_AT_ONCE = 640_000  # values of an input that are explained in one batch: four pictures of 224 x 224 feed two cores
_PREDICTED = 2  # times as many are predicted: a prediction keeps little of what it computes


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and pictures.

    Attributes:
        network: in eval mode; its first output is (N, classes).
        images: (N, C, H, W), as the network takes them.
        masks: (N, H, W), where the object is; None if that is not known.
        labels: (N,), the classes that are explained; by default those that the network predicts.

    Raises:
        EvaluationError: shapes do not fit, or the network does not return scores of classes.
    """

    network: nn.Module
    images: Tensor
    masks: NDArray[np.bool_] | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4 or min(shape[2:]) < _SMALLEST or not self.images.is_floating_point():
            raise EvaluationError(f"pictures of shape {shape}: want floats (N, C, H, W), 5 x 5 pixels or more")
        wanted = (shape[0], *shape[2:])
        if self.masks is not None and self.masks.shape != wanted:
            raise EvaluationError(f"masks of shape {self.masks.shape}; want one for every picture, {wanted}")
        if self.scores.dim() != 2:
            raise EvaluationError(f"the network returns {tuple(self.scores.shape)}; want scores (N, classes)")

    @cached_property
    def scores(self) -> Tensor:
        """(N, classes)."""
        return self.predict(self.images)

    @cached_property
    def targets(self) -> Tensor:
        """The classes that are explained, (N,)."""
        return self.scores.argmax(1) if self.labels is None else self.labels

    def others(self, seed: int) -> Tensor:
        """For every picture another class, drawn uniformly, (N,).

        Raises:
            EvaluationError: there is only one class.
        """
        classes = self.scores.shape[1]
        if classes < 2:
            raise EvaluationError("the network has one class only: there is no other one to explain")
        step = torch.randint(1, classes, (len(self.images),), generator=torch.Generator().manual_seed(seed))
        return (self.targets + step) % classes

    def predict(self, images: Tensor) -> Tensor:
        """Scores of other pictures, (N, classes)."""
        with torch.no_grad():
            return torch.cat([self.answer(part) for part in images.split(_PREDICTED * self.batch)])

    def answer(self, images: Tensor) -> Tensor:
        """The same, of one batch, with a gradient where that is recorded."""
        outputs: Any = self.network(images)
        return outputs if isinstance(outputs, Tensor) else outputs[0]

    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the scores, (N, classes), unless the network's own scores are probabilities."""
        scores = self.predict(images)
        return scores if self._is_normalised else scores.softmax(1)

    @cached_property
    def _is_normalised(self) -> bool:
        ones = torch.ones(len(self.scores), dtype=self.scores.dtype)
        return bool((self.scores >= 0).all()) and torch.allclose(self.scores.sum(1), ones, atol=1e-4)

    @property
    def batch(self) -> int:
        """How many pictures are worked on at once."""
        return max(1, _AT_ONCE // self.images[0].numel())

    def part(self, start: int, stop: int) -> Subject:
        """The same network with some of the pictures."""
        masks = None if self.masks is None else self.masks[start:stop]
        labels = None if self.labels is None else self.labels[start:stop]
        return replace(self, images=self.images[start:stop], masks=masks, labels=labels)
