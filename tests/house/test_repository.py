"""What lies where: the top level, the documents, and no address of a registry anywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.source import ROOT, Module, modules, parse, tracked

REQUIRED = {
    ".ci",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deployments",
    "loadtests",
    "pyproject.toml",
    "serving",
    "tests",
}
ALLOWED = REQUIRED | {".dockerignore", "Dockerfile", "helm", "k8s"}

# Written in pieces, so that this file passes too. Which registry is used is the machine's setting.
REGISTRIES = [
    "pypi" + ".org",
    "files.python" + "hosted.org",
    "registry.npm" + "js.org",
    "deb.debian" + ".org",
    "download.py" + "torch.org",
]


def settings(module: Module) -> Iterator[str]:
    """`Class.key` of every setting: the annotated fields of the classes in a config module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    key = statement.target.id
                    if not key.startswith("_") and "ClassVar" not in ast.unparse(
                        statement.annotation
                    ):
                        yield f"{node.name}.{key}"


def codes(module: Module) -> set[str]:
    """Every `code = "..."` in the classes of an errors module."""
    found = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                found.add(code)
            case ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str(code))):
                found.add(code)
    return found


def as_code(markdown: str) -> set[str]:
    """The words that a document writes as code: in a fenced block or between backticks."""
    fenced = re.findall(r"^```.*?^```", markdown, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", markdown, flags=re.S | re.M))
    return set(re.findall(r"\w+", " ".join([*fenced, *inline])))


def readme() -> set[str]:
    """The words that README.md writes as code; none where it is not written yet."""
    page = ROOT / "README.md"
    return as_code(page.read_text()) if page.exists() else set()


def test_the_top_level_is_exactly_what_was_agreed() -> None:
    top = {name.partition("/")[0] for name in tracked()}
    assert not top - ALLOWED, f"not at the top level: {sorted(top - ALLOWED)}"
    assert not REQUIRED - top, f"missing at the top level: {sorted(REQUIRED - top)}"


def test_every_setting_is_named_in_the_readme() -> None:
    found = [m for m in modules("deployments") if m.name.startswith("deployments.config")]
    every = [key for module in found for key in settings(module)]
    assert every
    unsaid = [key for key in every if key.partition(".")[2] not in readme()]
    assert not unsaid, f"name these settings in README.md, as code: {', '.join(unsaid)}"


def test_every_error_code_is_named_in_the_readme() -> None:
    [errors] = [m for m in modules("serving") if m.name == "serving.errors"]
    unsaid = sorted(codes(errors) - readme())
    assert not unsaid, f"name these error codes in README.md, as code: {', '.join(unsaid)}"


def test_no_registry_is_named() -> None:
    wrong = []
    for name in tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        wrong += [f"{name}: {host}" for host in REGISTRIES if host in text]
    assert not wrong, "which registry is used is the machine's setting:\n" + "\n".join(wrong)


def test_settings_are_read_from_their_classes() -> None:
    text = "class Replicas(_Frozen):\n    min: int = 1\n    kind: ClassVar[str]\n    _own: int = 2"
    assert list(settings(parse("deployments.config", text))) == ["Replicas.min"]


def test_codes_are_read_from_their_classes() -> None:
    text = 'class A:\n    code: ClassVar[str] = "ONE"\nclass B(A):\n    code = "TWO"'
    assert codes(parse("serving.errors", text)) == {"ONE", "TWO"}


def test_only_code_names_a_thing() -> None:
    page = "the min of it, `max_tokens: 3`, and\n```yaml\nreplicas: {floor: 1}\n```\nlast."
    assert as_code(page) == {"max_tokens", "3", "yaml", "replicas", "floor", "1"}


def test_the_names_of_registries_are_whole() -> None:
    assert all(re.fullmatch(r"[a-z.]+\.(org|net)", host) for host in REGISTRIES)
