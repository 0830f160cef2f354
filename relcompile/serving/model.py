"""One explainer behind the protocol: its queues, and which of its files answers what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from relcompile.errors import InputSpecError
from relcompile.runtime.conditional import Condition
from relcompile.runtime.feeds import Array
from relcompile.runtime.production import ProductionExplainer
from relcompile.runtime.run_queue import RunQueue
from relcompile.serving.protocol import Request
from relcompile.serving.work import AS_TEXT, done

EXPLAINED: Final = "explained"  # the output, bool (batch,), that says which rows a condition let pass


@dataclass(frozen=True)
class Model:
    """An explainer that is served.

    Args:
        explainer: It.
        explains: Runs it.
        predicts: Runs the prediction alone; None if there is no file for that.
    """

    explainer: ProductionExplainer
    explains: RunQueue
    predicts: RunQueue | None

    @classmethod
    def of(cls, explainer: ProductionExplainer, waiting: int, rows: int) -> Model:
        """Warm, and with queues of its own; see `RunQueue`."""
        explainer.warm_up()
        if not explainer.is_paired:
            return cls(explainer, RunQueue(explainer, waiting, rows), None)
        explainer.predictor.warm_up()
        return cls(explainer, RunQueue(explainer, waiting, rows), RunQueue(explainer.predictor, waiting, rows))

    @property
    def queues(self) -> tuple[RunQueue, ...]:
        """All of them."""
        return (self.explains,) if self.predicts is None else (self.explains, self.predicts)

    @property
    def is_alive(self) -> bool:
        """Requests are taken and answered."""
        return all(queue.is_alive for queue in self.queues)

    def waiting(self) -> int:
        """How many requests wait."""
        return sum(map(len, self.queues))

    def names(self, asked: Request) -> list[str]:
        """The outputs that there are."""
        return [*self.explainer.metadata.output_names, *([EXPLAINED] if asked.condition is not None else [])]

    async def answer(self, asked: Request) -> dict[str, Array]:
        """Outputs by name, all that were asked for: with a condition, relevance of the rows that pass it alone.

        Raises:
            InputSpecError, TargetError, OverloadedError, RuntimeUnavailableError: it cannot be asked this, or now.
        """
        if asked.condition is not None:
            return await self._decided(asked, asked.condition)
        if self.predicts is not None and not self._wants_relevance(asked):
            return await self._predicted(asked, self.predicts)
        feeds = await done(self._size(asked), self.explainer.feeds, asked.inputs)
        return await asyncio.wrap_future(self.explains.submit(feeds))

    async def _predicted(self, asked: Request, queue: RunQueue) -> dict[str, Array]:
        feeds = await done(self._size(asked), self.explainer.prediction_feeds, asked.inputs)
        return await asyncio.wrap_future(queue.submit(feeds))

    async def _decided(self, asked: Request, condition: Condition) -> dict[str, Array]:
        """The prediction of all rows; relevance, and what else is said of it, of those that pass."""
        if self.predicts is None or EXPLAINED in self.explainer.metadata.output_names:
            raise InputSpecError(
                "conditions need the file of the prediction alone beside the explainer: compile it with --pair"
                if self.predicts is None
                else f"the model has an output {EXPLAINED} itself, which is what tells the rows that pass a condition"
            )
        predicted = await self._predicted(asked, self.predicts)
        output = predicted[self.explainer.metadata.explained]
        size = self._size(asked)
        rows, feeds = await done(size, self.explainer.passing_feeds, condition, output, asked.inputs)
        runs = rows.any() and self._wants_relevance(asked)
        found = await asyncio.wrap_future(self.explains.submit(feeds)) if runs else self._nothing()
        return {**found, **predicted, EXPLAINED: rows}

    def _size(self, asked: Request) -> int:
        """What it takes to make feeds of a request, as `done` counts it; noise is drawn as slowly as text is read."""
        given = sum(array.nbytes for array in asked.inputs.values())
        return given * (AS_TEXT if self.explainer.metadata.noise else 1)

    def _wants_relevance(self, asked: Request) -> bool:
        """Or whatever else the prediction alone does not tell."""
        told = (*self.explainer.metadata.outputs, *([EXPLAINED] if asked.condition is not None else []))
        return not asked.outputs or any(output.name not in told for output in asked.outputs)

    def _nothing(self) -> dict[str, Array]:
        """Outputs without rows."""
        return {
            record.name: np.zeros((0, *_sizes(record.shape[1:])), record.dtype) for record in self.explainer.outputs
        }


def _sizes(shape: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 0 for size in shape)
