"""polyvec/README.md: the page by hand, and a table of every value from the comments in values.yaml.

A value's line is the comment above its key that begins with `# --`. A key without one is described
by its parts: a value that neither has a line nor lies below one that has is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

__all__ = ["Undescribed", "readme_text", "rows"]

CHART = Path(__file__).with_name("polyvec")
PAGE = Path(__file__).with_name("README.md.in")
TABLE = "<!-- values -->"


class Undescribed(Exception):
    """`Undescribed(sentence)`: a value without a line."""


def readme_text() -> str:
    """The whole page."""
    table = ["| value | default | meaning |", "|---|---|---|"]
    table += [f"| `{path}` | `{default}` | {line} |" for path, default, line in rows(_values())]
    return PAGE.read_text(encoding="utf-8").replace(TABLE, "\n".join(table))


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """`(path, default, line)` of every described value of that YAML, in its order."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    yield from _below(root, (), text.splitlines(), said=False)


def _below(
    node: yaml.MappingNode, path: tuple[str, ...], lines: list[str], said: bool
) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        here = (*path, key.value)
        line = _line_above(lines, key.start_mark.line)
        nested = isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
        if line:
            shown = "…" if nested else _shown(value)
            yield ".".join(here), shown, line
        if nested:
            yield from _below(value, here, lines, said or bool(line))
        elif not (line or said):
            raise Undescribed(f"{'.'.join(here)}: no comment with two dashes above it")


def _line_above(lines: list[str], at: int) -> str:
    found: list[str] = []
    while at and lines[at - 1].lstrip().startswith("#"):
        at -= 1
        comment = lines[at].lstrip("# ").rstrip()
        if comment.startswith("-- "):
            return " ".join([comment[3:], *found]).replace("|", "\\|")
        found.insert(0, comment)
    return ""


def _shown(node: yaml.Node) -> str:
    return json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)


def _values() -> str:
    return (CHART / "values.yaml").read_text(encoding="utf-8")
