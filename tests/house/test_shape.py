"""Every file says what it owns, exports what it means to, and stays small enough to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.house.source import Function, Module, imports, modules, parse

FILE_LINES = 350
FUNCTION_LINES = 60  # a ceiling; the aim is 45

Rule = Callable[[Module], list[str]]


def documented(module: Module) -> list[str]:
    """The module, and each public class, function and method in it, has a docstring."""
    wrong = [] if ast.get_docstring(module.tree) else [f"{module.path}: no module docstring"]
    for node, owner in _public_definitions(module.tree):
        if not ast.get_docstring(node) and not _is_restated(node):
            wrong.append(f"{module.path}:{node.lineno}: {owner}{node.name} has no docstring")
    return wrong


def _public_definitions(
    body: ast.Module | ast.ClassDef, owner: str = ""
) -> Iterator[tuple[Function | ast.ClassDef, str]]:
    for node in body.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not node.name.startswith("_"):
                yield node, owner
            case ast.ClassDef() if not node.name.startswith("_"):
                yield node, owner
                yield from _public_definitions(node, f"{owner}{node.name}.")


def _is_restated(node: Function | ast.ClassDef) -> bool:
    """Setters and overloads: another definition of the same name has the docstring."""
    written = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(w.endswith((".setter", "overload", "override")) for w in written)


def short(module: Module) -> list[str]:
    """No file and no function is longer than one sitting. Docstrings are not counted against it."""
    wrong = []
    lines = len(module.text.splitlines())
    if lines > FILE_LINES:
        wrong.append(f"{module.path}: {lines} lines, of {FILE_LINES} at most")
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            length = _length(node)
            if length > FUNCTION_LINES:
                allowed = f"{length} lines, of {FUNCTION_LINES} at most"
                wrong.append(f"{module.path}:{node.lineno}: {node.name} has {allowed}")
    return wrong


def _length(node: Function) -> int:
    first = node.body[0]
    prose = 0
    if ast.get_docstring(node) is not None:
        prose = (first.end_lineno or first.lineno) - first.lineno + 1
    return (node.end_lineno or node.lineno) - node.lineno + 1 - prose


def exported(module: Module) -> list[str]:
    """`__all__` names every public function and class of the module, once, sorted; nothing else.

    Constants are exported where `__all__` names them; importing one that it does not name fails.
    """
    names, listed = _defined(module.tree, constants=True), _listed(module.tree)
    if listed is None:
        return [f"{module.path}: no __all__ for {', '.join(sorted(names))}"] if names else []
    wrong = []
    if listed != sorted(set(listed), key=_order):
        wrong.append(f"{module.path}: __all__ in order is {sorted(set(listed), key=_order)}")
    missing = sorted(_defined(module.tree, constants=False) - set(listed))
    if missing:
        wrong.append(f"{module.path}: not in __all__: {', '.join(missing)}")
    imported = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    absent = sorted(set(listed) - names - imported - {"__version__"})
    if absent:
        wrong.append(f"{module.path}: in __all__ but not defined: {', '.join(absent)}")
    return wrong


def borrowed(module: Module, others: dict[str, Module]) -> list[str]:
    """What a module takes from another is in that one's `__all__`."""
    wrong = []
    names = frozenset(others)
    for found in imports(module):
        source, _, name = found.name.rpartition(".")
        if not found.member or found.name in names or source not in names:
            continue
        if name not in (_listed(others[source].tree) or []):
            wrong.append(f"{module.path}:{found.line}: {name} is not in {source}.__all__")
    return wrong


def _defined(tree: ast.Module, constants: bool) -> set[str]:
    """The public names that a module's top level binds, its imports left out."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign() if constants:
                targets = [t for target in node.targets for t in ast.walk(target)]
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)) if constants:
                names.add(name)
    return {name for name in names if not name.startswith("_")}


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def _order(name: str) -> tuple[int, list[int | str]]:
    """As ruff sorts `__all__` (RUF022): CONSTANTS, then Classes, then functions, each by nature."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("rule", [documented, short], ids=lambda rule: rule.__name__)
def test_every_module_is(rule: Rule) -> None:
    wrong = [line for module in modules() for line in rule(module)]
    assert not wrong, f"{rule.__doc__}\n" + "\n".join(wrong)


def test_every_public_module_exports_what_it_defines() -> None:
    house = [m for m in modules("serving", "deployments") if m.is_public]
    wrong = [line for module in house for line in exported(module)]
    assert not wrong, f"{exported.__doc__}\n" + "\n".join(wrong)


def test_nothing_unexported_is_borrowed() -> None:
    house = {module.name: module for module in modules()}
    wrong = [line for module in house.values() for line in borrowed(module, house)]
    assert not wrong, f"{borrowed.__doc__}\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (documented, "x = 1"),
        (documented, '"""Said."""\ndef f() -> None: ...'),
        (documented, '"""Said."""\nclass C:\n    """Said."""\n    async def m(self) -> None: ...'),
        (short, "\n" * (FILE_LINES + 1)),
        (short, "def f() -> None:\n" + "    pass\n" * FUNCTION_LINES),
        (exported, "def f() -> None: ..."),
        (exported, '__all__ = ["f", "C"]\ndef f() -> None: ...\nclass C: ...'),
        (exported, '__all__ = ["C"]\nclass C: ...\nasync def f() -> None: ...'),
        (exported, '__all__ = ["C", "gone"]\nclass C: ...'),
        (exported, '__all__ = ["C", "C"]\nclass C: ...'),
    ],
)
def test_a_badly_shaped_module_is_seen(rule: Rule, text: str) -> None:
    assert rule(parse("serving.bad", text))


def test_a_private_name_borrowed_is_seen() -> None:
    lender = parse("serving.lender", '__all__ = ["f"]\ndef f() -> None: ...\nLIMIT = 3')
    others = {"serving.lender": lender}
    assert borrowed(parse("serving.b", "from serving.lender import LIMIT"), others)
    assert not borrowed(parse("serving.b", "from serving.lender import f"), others)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (documented, '"""Said."""\ndef _f() -> None: ...\nclass _C:\n    def m(self) -> None: ...'),
        (short, "def f() -> None:\n" + '    """' + "\n" * 100 + '"""\n' + "    pass\n" * 50),
        (exported, '__all__ = ["C"]\nclass C: ...\nLIMIT = 3'),
        (exported, '__all__ = ["LIMIT", "C", "f"]\ndef f() -> None: ...\nclass C: ...\nLIMIT = 3'),
        (exported, "import os\n_private = 1"),
    ],
)
def test_a_well_shaped_module_passes(rule: Rule, text: str) -> None:
    assert not rule(parse("serving.good", text))
