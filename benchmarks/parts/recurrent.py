"""Recurrent networks that are trained here: the language of a word by its letters, the sum of two marked numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

LONGEST, SHORTEST = 12, 4  # letters
_FILES: Final = {
    "English": "american-english",
    "French": "french",
    "German": "ngerman",
    "Italian": "italian",
    "Spanish": "spanish",
}
LANGUAGES: Final = tuple(_FILES)
_DECISIVE, _FREQUENT = 0.95, 50  # share of a letter's words that are of one language; and how many there are at least


@dataclass(frozen=True)
class Words:
    """Words with their languages, as the network reads them.

    Attributes:
        words: in lower case.
        labels: positions in `LANGUAGES`.
        letters: what the network knows; 0 is padding, which stands on the left.
    """

    words: tuple[str, ...]
    labels: tuple[int, ...]
    letters: str

    @property
    def ids(self) -> Tensor:
        """Letters (N, T)."""
        rows = [[0] * (LONGEST - len(word)) + [1 + self.letters.index(c) for c in word] for word in self.words]
        return torch.tensor(rows)

    def decisive(self) -> Mapping[str, int]:
        """Letters that nearly all words with them share with one language only: the answer that is known."""
        pairs = Counter((c, label) for word, label in zip(self.words, self.labels, strict=True) for c in set(word))
        total = Counter[str]()
        for (letter, _), count in pairs.items():
            total[letter] += count
        return {
            letter: label
            for (letter, label), count in pairs.items()
            if count >= _FREQUENT and count >= _DECISIVE * total[letter]
        }


def word_lists(folder: Path, each: int) -> tuple[Words, Words]:
    """For training and for the test, a tenth: `each` words of every language, out of Debian's word lists.

    Words that two languages share are left out.
    """
    lists = {name: _read(folder / file) for name, file in _FILES.items()}
    shared = Counter(word for words in lists.values() for word in words)
    pairs = list[tuple[str, int]]()
    for label, words in enumerate(lists.values()):
        own = sorted(word for word in words if shared[word] == 1)
        pairs += [(word, label) for word in random.Random(label).sample(own, min(each, len(own)))]
    random.Random(0).shuffle(pairs)
    letters = "".join(sorted({letter for word, _ in pairs for letter in word}))
    cut = len(pairs) // 10
    return _words(pairs[cut:], letters), _words(pairs[:cut], letters)


def _read(path: Path) -> set[str]:
    words = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {word.lower() for word in words if word.isalpha() and SHORTEST <= len(word) <= LONGEST}


def _words(pairs: Sequence[tuple[str, int]], letters: str) -> Words:
    return Words(tuple(word for word, _ in pairs), tuple(label for _, label in pairs), letters)


def planted(count: int, seed: int) -> Words:
    """Made words of two languages: one is the letters a to h, and in the other one of them is an x."""
    chance = random.Random(seed)
    pairs = list[tuple[str, int]]()
    for k in range(count):
        word = [chance.choice("abcdefgh") for _ in range(chance.randint(SHORTEST, LONGEST))]
        if k % 2:
            word[chance.randrange(len(word))] = "x"
        pairs.append(("".join(word), k % 2))
    return _words(pairs, "abcdefghx")


class Reader(nn.Module):
    """Letters (N, T) to scores: an LSTM, and a linear head on its last state."""

    def __init__(self, letters: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, 32)
        self.lstm = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(ids))[0][:, -1])


def reader(ids: Tensor, labels: Tensor, letters: int, classes: int, *, epochs: int, seed: int = 0) -> Reader:
    """The network, trained."""
    torch.manual_seed(seed)
    model = Reader(letters, classes)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    steps = epochs * (len(ids) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(ids)).split(128)[: len(ids) // 128]:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(ids[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(False)


class Adder(nn.Module):
    """Steps (N, T, 2) of a number and a mark to the sum of the marked numbers, (N, 1)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, steps: Tensor) -> Tensor:
        return self.head(self.lstm(steps)[0][:, -1])


def numbers(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Steps (N, T, 2): numbers from -1 to 1, of which two are marked by a 1."""
    marks = torch.zeros(count, length)
    places = torch.rand(count, length, generator=generator).topk(2).indices
    marks.scatter_(1, places, 1.0)
    return torch.stack([2 * torch.rand(count, length, generator=generator) - 1, marks], 2)


def sums(steps: Tensor) -> Tensor:
    """The sums of the marked numbers, (N,)."""
    return (steps[..., 0] * steps[..., 1]).sum(1)


def adder(length: int, updates: int, *, seed: int = 0) -> Adder:
    """The network, trained."""
    torch.manual_seed(seed)
    model, generator = Adder(), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=updates)
    for _ in range(updates):
        steps = numbers(256, length, generator)
        optimiser.zero_grad()
        (model(steps)[:, 0] - sums(steps)).square().mean().backward()
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False)
