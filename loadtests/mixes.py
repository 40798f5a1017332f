"""What users send: kinds of questions, how long their texts are, and whose they are. Pure.

Lengths are log-normal, as those of written text are. A kind's share is of requests, not of tokens:
bulk is few requests and most of the tokens.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from loadtests.texts import WORDS

__all__ = ["KINDS", "Facts", "Kind", "Lengths", "Question", "questions"]

_SPECIAL_TOKENS = 2
_IMAGE_SIDES = (224, 448, 896)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a text: half of the texts have fewer than `median`, none more than `most`."""

    median: float
    spread: float
    most: int

    def draw(self, chance: random.Random, context: int) -> int:
        """A length with the special tokens, within the model's context."""
        drawn = round(self.median * math.exp(chance.gauss(0.0, self.spread)))
        return max(_SPECIAL_TOKENS + 1, min(drawn, self.most, context))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question; `task` is asked for where the model has it."""

    name: str
    share: float
    lengths: Lengths
    inputs: tuple[int, int] = (1, 1)
    service_class: str = "interactive"
    task: str = ""
    images: bool = False


# Queries and passages have about the lengths of MS MARCO's (6 and 56 words on average).
KINDS = (
    Kind("query", 70, Lengths(9, 0.5, 64), task="retrieval.query"),
    Kind("passages", 18, Lengths(70, 0.6, 512), inputs=(1, 8), task="retrieval.passage"),
    Kind("document", 4, Lengths(600, 0.8, 8192), task="retrieval.passage"),
    Kind("image", 4, Lengths(9, 0.5, 64), images=True),
    Kind("bulk", 4, Lengths(70, 0.6, 512), (32, 32), "bulk", "retrieval.passage"),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model takes, as `/v1/models/ID` says."""

    id: str
    context: int
    tasks: tuple[str, ...] = ()
    images: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Facts:
        """From that route's body."""
        return cls(
            entry["id"],
            entry["max_model_len"],
            tuple(entry["tasks"]),
            "image" in entry["input_modalities"],
        )


@dataclass(frozen=True, slots=True)
class Question:
    """One request: its kind's name, its inputs, the task or "", and its class."""

    kind: str
    inputs: tuple[str, ...]
    task: str
    service_class: str
    images: bool = False

    def body(self, model: str) -> dict[str, object]:
        """For `POST /v1/embeddings`."""
        asked = [{"image": one} for one in self.inputs] if self.images else list(self.inputs)
        body: dict[str, object] = {"model": model, "input": asked, "embedding_type": "base64"}
        return body | ({"task": self.task} if self.task else {})


def questions(
    facts: Facts, seed: int, kinds: Sequence[Kind] = KINDS, only: str | None = None
) -> Iterator[Question]:
    """Questions that the model can answer, without end; a seed always gives the same ones.

    Kinds with images are left out where the model takes none. ValueError where none is left.
    """
    chance = random.Random(seed)
    able = [k for k in kinds if (facts.images or not k.images) and only in (None, k.name)]
    if not able:
        names = ", ".join(kind.name for kind in kinds)
        raise ValueError(f"{facts.id} can be asked nothing of the kind {only}; kinds are {names}")
    while True:
        [kind] = chance.choices(able, [one.share for one in able])
        task = kind.task if kind.task in facts.tasks else ""
        count = chance.randint(*kind.inputs)
        make = _image if kind.images else _text
        inputs = tuple(make(kind, facts, chance) for _ in range(count))
        yield Question(kind.name, inputs, task, kind.service_class, kind.images)


def _text(kind: Kind, facts: Facts, chance: random.Random) -> str:
    tokens = kind.lengths.draw(chance, facts.context)
    return " ".join(chance.choices(WORDS, k=tokens - _SPECIAL_TOKENS))


def _image(kind: Kind, facts: Facts, chance: random.Random) -> str:
    """A photograph's worth of JPEG, as a data URI: smooth colours, drawn by chance."""
    side = chance.choice(_IMAGE_SIDES)
    picture = Image.frombytes("RGB", (8, 8), chance.randbytes(192)).resize((side, side))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
