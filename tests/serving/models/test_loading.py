"""The choice of a family."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.errors import InvalidConfig, ModelUnavailable
from serving.models import loading
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from tests.checkpoints import build


def test_a_family_may_be_named(tmp_path: Path) -> None:
    path = str(build("bert_mean", tmp_path))
    named = load_spec(Entry("a", path, family="sentence_transformers"))
    assert named == load_spec(Entry("a", path))


def test_an_unknown_family_is_answered_with_those_there_are() -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_spec(Entry("a", "/nowhere", family="x"))
    assert caught.value.message.startswith("family of a is 'x'; there are ")
    assert "sentence_transformers" in caught.value.message


def test_a_checkpoint_that_no_family_recognises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(loading.FAMILIES), "names", lambda self: ())
    with pytest.raises(ModelUnavailable, match="is of no known family"):
        load_spec(Entry("a", str(build("bert_mean", tmp_path))))


def test_a_special_family_wins_over_the_general_one_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (*loading.FAMILIES.names(), "z_special")
    special = SimpleNamespace(recognises=lambda one: True, read=lambda one, entry: "special")
    load = type(loading.FAMILIES).load
    monkeypatch.setattr(type(loading.FAMILIES), "names", lambda self: names)
    monkeypatch.setattr(
        type(loading.FAMILIES),
        "load",
        lambda self, name: special if name == "z_special" else load(self, name),
    )
    assert load_spec(Entry("a", str(build("bert_mean", tmp_path)))) == "special"
