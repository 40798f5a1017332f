"""A body of `POST /v1/classify` read into an ask, and the classes of its items as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.api.fields import Fields, Refusal
from serving.api.inputs import read_inputs
from serving.ranking import Classes, ClassifyAsk
from serving.values import Floats, Item, Pdf

__all__ = ["NAMES", "WantedClasses", "entries", "no_documents", "read_classes", "read_labels"]

NAMES = {
    "model": ("model",),
    "input": ("input",),
    "labels": ("labels",),
    "truncate": ("truncation", "truncate"),
    "classifier_id": ("classifier_id",),
}
# Of the hosted API (api.md 1.7).
_MOST_LABELS, _MOST_GROUPS, _MOST_IN_GROUP = 512, 8, 64
_LONGEST_NAME = 256
_DECIMALS = 8

_Labels = dict[str | None, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class WantedClasses:
    """The body, read: `ask.model` is as the caller has it; what no model can do in `refusals`."""

    ask: ClassifyAsk
    refusals: tuple[Refusal, ...] = ()


def read_classes(fields: Fields, most: int) -> WantedClasses:
    """What is to be classified, at most `most` items; `InvalidInput` with every problem."""
    name, value = fields.first("classifier_id")
    if value is not None:
        message = "is a trained classifier, which is not served here: give model and labels"
        fields.problem(name, message, "unsupported", value)
    ask = ClassifyAsk(
        fields.needed_name("model"),
        _items(fields, most),
        _labels(fields),
        fields.flag("truncate", False),
    )
    fields.check()
    return WantedClasses(ask, tuple(fields.refusals))


def entries(ask: ClassifyAsk, classes: Classes) -> list[dict[str, object]]:
    """One object an item; by group where the labels are."""
    return [_entry(ask, classes.scores, index) for index in range(len(ask.items))]


def _entry(ask: ClassifyAsk, groups: Mapping[str | None, Floats], index: int) -> dict[str, object]:
    found = {name: _predicted(ask.labels[name], rows[index]) for name, rows in groups.items()}
    values: dict[str, object] = {"object": "classification", "index": index}
    for at, key in enumerate(("prediction", "score", "predictions")):
        by_group = {name: one[at] for name, one in found.items()}
        values[key] = by_group.get(None, by_group)
    return values


def _predicted(labels: tuple[str, ...], row: Floats) -> tuple[str, float, list[dict[str, object]]]:
    scores = [round(float(score), _DECIMALS) for score in row]
    best = int(row.argmax())
    pairs = zip(labels, scores, strict=True)
    return labels[best], scores[best], [{"label": label, "score": score} for label, score in pairs]


def _items(fields: Fields, most: int) -> tuple[Item, ...]:
    name, value = fields.first("input")
    items = read_inputs(fields, name, value, most)
    no_documents(fields, name, items)
    return items


def no_documents(fields: Fields, name: str, items: Sequence[Item]) -> None:
    """Note every PDF among the items as a problem: it has no one vector."""
    for index, item in enumerate(items):
        if isinstance(item, Pdf):
            fields.problem(f"{name}.{index}", "is a PDF; give a text or an image", "input_type")


def _labels(fields: Fields) -> _Labels:
    name, value = fields.first("labels")
    if value is None:
        fields.problem(name, "is missing", "missing")
        return {}
    return read_labels(fields, name, value)


def read_labels(fields: Fields, name: str, value: object) -> _Labels:
    """A list of labels, or lists by the names of their groups; what is wrong is noted."""
    if type(value) is not dict:
        return {None: _group(fields, name, value, _MOST_LABELS)}
    if not 1 <= len(value) <= _MOST_GROUPS:
        fields.problem(name, f"must have 1 to {_MOST_GROUPS} groups", "groups", value)
        return {}
    groups: Mapping[str, object] = value
    if max(map(len, groups)) > _LONGEST_NAME:
        message = f"has a group whose name is longer than {_LONGEST_NAME} characters"
        fields.problem(name, message, "too_long", value)
        return {}
    return {
        group: _group(fields, f"{name}.{group}", labels, _MOST_IN_GROUP)
        for group, labels in groups.items()
    }


def _group(fields: Fields, name: str, value: object, most: int) -> tuple[str, ...]:
    if type(value) is not list or not all(type(one) is str and one for one in value):
        fields.problem(name, "must be a list of labels, each a text", "list_type", value)
    elif not 1 <= len(value) <= most:
        fields.problem(name, f"must have 1 to {most} labels", "labels", value)
    elif len(set(value)) < len(value):
        fields.problem(name, "must not have a label twice", "labels", value)
    else:
        return tuple(value)
    return ()
