"""Both stages on real text: the default model recalls, whatever reranker is given reorders."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli import main
from deployments.commands.search import Passage, passages
from tests.upstream import RERANKERS, build

BERLIN = """Berlin is the capital of Germany
and its largest city.

Bread is baked from flour and water.


About 3.7 million people live in Berlin.

The Spree flows through the city.
"""
QUESTION = "How many inhabitants does the capital of Germany have?"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "berlin.txt"
    path.write_text(BERLIN)
    return path


def rows(shown: str) -> list[list[str]]:
    return [line.split(maxsplit=3) for line in shown.splitlines()[1:]]


def test_a_passage_is_a_paragraph_and_knows_its_line() -> None:
    found = list(passages(BERLIN, "b.txt"))
    assert len(found) == 4
    assert found[0] == Passage("Berlin is the capital of Germany and its largest city.", "b.txt:1")
    assert found[2].where == "b.txt:7"


def test_recall_alone_finds_what_the_question_is_about(
    text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", QUESTION, str(text), "--top", "2"]) == 0
    shown = rows(capsys.readouterr().out)
    assert [row[1] for row in shown] == ["1", "2"]
    assert {row[2].rpartition(":")[2] for row in shown} == {"1", "7"}


@pytest.mark.parametrize("name", ["jina_reranker_m0", "qwen3_reranker"])
def test_the_reranker_has_the_last_word_on_what_was_recalled(
    name: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert name in RERANKERS
    reranker = f"tiny={build(name, tmp_path)}"
    assert main(["search", QUESTION, str(text), "--recall", "3", "--reranker", reranker]) == 0
    written = capsys.readouterr()
    shown = rows(written.out)
    scores = [float(row[0]) for row in shown]
    assert scores == sorted(scores, reverse=True)
    assert sorted(row[1] for row in shown) == ["1", "2", "3"]
    assert not any("Bread" in row[3] for row in shown)
    assert "all-MiniLM-L6-v2: 4 passages" in written.err and "tiny: 3 passages" in written.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["empty.txt"], "there is no text in empty.txt"),
        (["nothing.txt"], "nothing.txt cannot be read: No such file or directory"),
        (["empty.txt", "--model", "nothing"], "there is no text"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    assert main(["search", QUESTION, *words]) == 2
    assert message in capsys.readouterr().err
