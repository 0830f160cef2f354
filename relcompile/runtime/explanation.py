"""What a run of an explainer found out, and how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from relcompile.errors import InputSpecError
from relcompile.files.records import OTHERS
from relcompile.metadata import ABSORBED_OUTPUT, ROOTS_OUTPUT, TARGET_OUTPUT, Metadata
from relcompile.runtime.feeds import Array, require_entries
from relcompile.runtime.form import Asked, best_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one call of `ProductionExplainer.explain` found out.

    Args:
        output: The explained output, usually (batch, classes).
        outputs: All outputs of the model, by name.
        relevance: Relevance of the first explained input, in that input's shape; of a layer, in that of its output; of
            Grad-CAM (batch, 1, height, width).
        relevances: All relevance, by the name of its output ("relevance", or "relevance_<input>").
        taps: Relevance of the layers in `metadata.taps`, by the layer's name.
        absorbed: Relevance that each layer absorbed, (batch, layers), in the order of `metadata.layers`; None
            if the file does not compute it.
        roots: Report on the learned roots, (batch, layers, quantities), named in `metadata.roots`; None if the file
            does not compute it.
        target: The classes that were explained, int64 (batch,), the entries (batch, axes), the region or the seed; with
            several targets for each row (batch, questions, ...), and all relevance has the same axis behind the batch.
            None if the file explains the best class and its output has further axes, (batch, classes, ...), each place
            with its own best.
        finite: bool (batch,): no input, output or relevance of the sample is NaN or infinite. Where it is False, the
            relevance means nothing.
        metadata: What the explainer says about itself.
        views: What the model saw of each photograph; empty if arrays were given.
    """

    output: Array
    outputs: dict[str, Array]
    relevance: Array
    relevances: dict[str, Array]
    taps: dict[str, Array]
    absorbed: Array | None
    roots: Array | None
    target: Array | None
    finite: Array
    metadata: Metadata = field(repr=False)
    views: tuple[Any, ...] = ()

    @classmethod
    def of(cls, metadata: Metadata, asked: Asked, found: dict[str, Array]) -> Explanation:
        """What was asked, and the outputs of the graph by name.

        Raises:
            TargetError: an entry was asked for that the output does not have.
        """
        output, target = found[metadata.explained], asked.target
        require_entries(metadata.target, target, output)
        if metadata.target.is_reported:
            target = found[TARGET_OUTPUT]
        elif metadata.target.takes_best and output.ndim <= 2:
            target = best_class(output, several=False)
        return cls(
            output=output,
            outputs={name: found[name] for name in metadata.outputs},
            relevance=found[metadata.relevance[0]],
            relevances={name: found[name] for name in metadata.relevance},
            taps={tap.layer: found[tap.name] for tap in metadata.taps},
            absorbed=found.get(ABSORBED_OUTPUT) if metadata.absorbed else None,
            roots=found.get(ROOTS_OUTPUT) if metadata.roots is not None else None,
            target=target,
            finite=finite_rows(asked.batch, asked.feeds, found),
            metadata=metadata,
            views=asked.views,
        )

    def each(self) -> tuple[Explanation, ...]:
        """One explanation for each of several targets, as if it had been asked alone; itself, if there is one."""
        record = self.metadata.target
        if record.questions is None:
            return (self,)
        return tuple(map(self._alone, range(self.relevance.shape[1])))

    def _alone(self, k: int) -> Explanation:
        record, reports = self.metadata.target, (self.absorbed, self.roots, self.target)
        against = record.against[min(k, len(record.against) - 1) :][:1]
        alone = replace(
            record,
            mode=record.mode if record.takes_seed or record.takes_entry else "index",
            questions=None,
            indices=None,
            against=() if against == ("",) else against,
        )
        absorbed, roots, target = (None if array is None else array[:, k] for array in reports)
        return replace(
            self,
            relevance=self.relevance[:, k],
            relevances={name: array[:, k] for name, array in self.relevances.items()},
            taps={name: array[:, k] for name, array in self.taps.items()},
            absorbed=absorbed,
            roots=roots,
            target=target,
            metadata=replace(self.metadata, target=alone),
        )

    def scores(self, sample: int = 0) -> Array:
        """The scores (classes,) of one sample, summed over positions; one score for an output (1,)."""
        output = self.output[sample : sample + 1]
        return output.reshape(output.shape[1] if output.ndim > 1 else 1, -1).sum(1)

    def label(self, index: int) -> str:
        """What the class is called."""
        if self.metadata.target.classes is None:
            return self.metadata.explained
        return f"{self.metadata.class_names[index]} ({index})" if self.metadata.class_names else f"class {index}"

    def chosen(self, sample: int = 0) -> tuple[int, str, float]:
        """The explained class, what it is called, and its score; -1 where it is not one class."""
        if self.metadata.target.questions is not None:
            raise InputSpecError("each sample has several targets: ask each of explanation.each()")
        if self.target is None:
            return -1, "the best class of every position", float(self.output[sample].max(0).sum())
        if self.metadata.target.takes_seed:
            return -1, f"the {self.metadata.target.mode}", float((self.target[sample] * self.output[sample]).sum())
        if self.metadata.target.takes_entry:
            place = tuple(map(int, self.target[sample]))
            return -1, f"entry {place}", float(self.output[sample][place])
        index, scores = int(self.target[sample]), self.scores(sample)
        named = [(f" against {label}", score) for label, score in self._against(index, scores)]
        label, other = named[0] if named else ("", 0.0)
        return index, self.label(index) + label, float(scores[index]) - other

    def _against(self, index: int, scores: Array) -> list[tuple[str, float]]:
        """What the class is set against, and its score, for the one question of a sample."""
        others = np.delete(scores, index)
        best = int(scores.argmax())
        known = {OTHERS: (OTHERS, others.mean() if len(others) else 0.0), "argmax": (self.label(best), scores[best])}
        against = self.metadata.target.against
        found = [known[one] if isinstance(one, str) else (self.label(one), scores[one]) for one in against]
        return [(label, float(score)) for label, score in found]

    def title(self, sample: int = 0) -> str:
        """What was explained, by which explainer, its score, and how much relevance was found."""
        from relcompile.pictures.heatmap import heatmap_title

        _, label, score = self.chosen(sample)
        return heatmap_title(" · ".join((label, *self.metadata.name)), score, self.relevance[sample])

    def maps(self, sample: int = 0) -> dict[str, Array]:
        """Relevance of one sample for each target, by what was explained and its score."""
        found = dict[str, Array]()
        for number, one in enumerate(self.each(), 1):
            _, label, score = one.chosen(sample)
            title = f"{label}: {score:.4g}"
            found[title if title not in found else f"{title} ({number})"] = one.relevance[sample]
        return found

    def plot(self, sample: int = 0, image: Any = None, style: Any = None) -> Figure:
        """The photograph, the heatmap, and both on top of each other; of several targets a row of maps.

        Args:
            sample: Which of the batch.
            image: What the model saw, as a picture (PIL); by default the photograph that was explained, if it was one.
            style: A `relcompile.pictures.heatmap.Style`.

        Returns:
            A matplotlib figure; `figure.savefig("map.png")` writes it, a notebook shows it.

        Raises:
            ExportError: The relevance is no map, or not finite.
        """
        from relcompile.pictures.comparison import comparison_figure
        from relcompile.pictures.heatmap import Style, heatmap_figure

        view = image if image is not None else next(iter(self.views[sample : sample + 1]), None)
        if self.metadata.target.questions is not None:
            return comparison_figure(view, self.maps(sample), " · ".join(self.metadata.name))
        return heatmap_figure(self.relevance[sample], view, self.title(sample), style or Style())


def finite_rows(batch: int, *groups: dict[str, Array]) -> Array:
    """Bool (batch,): every floating point value of the row is finite."""
    rows = np.ones(batch, bool)
    for array in (array for group in groups for array in group.values() if array.dtype.kind == "f"):
        if array.shape[0] == batch:
            rows &= np.isfinite(array).reshape(batch, -1).all(1)
    return rows
