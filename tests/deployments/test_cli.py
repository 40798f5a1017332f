"""The command line: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from deployments import cli
from deployments.commands import COMMANDS, _checkpoints
from serving.errors import ModelUnavailable

CONFIGS = Path(__file__).parents[2] / "deployments" / "configs"


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS.names())])
def test_every_command_explains_itself(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    assert left.value.code == 0
    assert "usage: polyvec" in capsys.readouterr().out


def test_the_list_of_commands_is_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS.names())


def test_an_unknown_command_is_refused_with_the_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["serv"])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "invalid choice: 'serv'" in told and all(name in told for name in COMMANDS.names())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["embed", "--model", "nobody", "x"], "'nobody' is not a known model"),
        (["embed", "--model", "m=/no/such/folder", "x"], "/no/such/folder"),
        (["embed", "--model", "m=package:no_such_package", "x"], "no_such_package"),
        (["embed", "--task", "sing", "x"], "has no task 'sing'"),
        (["embed", "--dimensions", "17", "x"], "no vectors of 17 dimensions"),
        (["serve", "--port", "70000"], "--port must be between 1 and 65535"),
        (["serve", "--host", "203.0.113.9"], "203.0.113.9 is not loopback, and without a tenants"),
    ],
)
def test_a_users_error_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert sentence in " ".join(told.split())
    assert "Traceback" not in told


def test_embed_prints_a_line_of_json_for_each_text() -> None:
    done = run("embed", "-", stdin="a cat\na dog\n")
    rows = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    assert all(abs(sum(x * x for x in row["embedding"]) - 1) < 1e-5 for row in rows)


def test_check_shows_what_goes_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(CONFIGS / "cluster.yaml")]) == 0
    told = capsys.readouterr().out
    for word in ("is valid", "Gateway", "Preprocessor", "Replica:all-MiniLM-L6-v2", "1-4"):
        assert word in told


def test_what_is_fetched_from_the_hub_is_said_before_with_its_licence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*words: object, **more: object) -> None:
        raise ModelUnavailable("there is no hub here")

    monkeypatch.setattr(_checkpoints, "load_spec", offline)
    assert cli.main(["embed", "--model", "multilingual-e5-small", "x"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "is intfloat/multilingual-e5-small on the hub (licence: mit); what is not on" in told
    assert told.endswith("error there is no hub here")


def test_nothing_is_said_of_the_hub_where_the_files_are_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["check", str(CONFIGS / "local.yaml")]) == 0
    assert "hub" not in capsys.readouterr().err


def test_models_is_a_table_with_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    told = capsys.readouterr().out
    assert "all-MiniLM-L6-v2" in told and "apache-2.0" in told and "384" in told


def test_env_exports_loopback_for_every_socket(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "--port", "8123"]) == 0
    told = capsys.readouterr().out
    shutil.rmtree(told.split("RAY_SERVE_HAPROXY_SERVER_STATE_BASE=")[1].split()[0])
    assert "export RAY_SERVE_ENABLE_HA_PROXY=1" in told
    assert "export POLYVEC_BIND=127.0.0.1" in told
