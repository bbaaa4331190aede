"""docs/architecture.md names every file once, and states the rules that tests/test_rooms.py enforces."""

import ast
import re
from collections import Counter
from pathlib import Path

from tests.test_rooms import BASE, MACHINERY, MAY_IMPORT, PACKAGE

PAGE = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def only_exports(path: Path) -> bool:
    definitions = (ast.FunctionDef, ast.ClassDef)
    return path.name == "__init__.py" and not any(isinstance(n, definitions) for n in ast.parse(path.read_text()).body)


def test_every_file_is_described_exactly_once() -> None:
    described: Counter[str] = Counter()
    for part in section("Files").split("### ")[1:]:
        room = part.partition("\n")[0].removeprefix("vadv_dist/")
        described.update(room + name for name in re.findall(r"^- `([^`]+)`: \S", part, re.MULTILINE))
    files = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if not only_exports(p)}
    assert described == Counter(files)


def test_the_tables_of_rooms_and_libraries_are_those_that_are_enforced() -> None:
    rows = re.findall(r"^\| (.+?) \|(?: .+? \|)? (.*?) \|$", section("Rooms"), re.MULTILINE)
    table = {key: re.findall(r"`([^`]+)`|\b(base)\b", value) for key, value in rows}
    rooms: dict[str, set[str]] = {}
    for key, names in table.items():
        if key.startswith("`"):
            found = {name for name, _ in names if name}
            rooms[key.strip("`/")] = found | (BASE if any(base for _, base in names) else set())
    assert rooms == MAY_IMPORT
    doors = {key.lower(): {name for name, _ in names} for key, names in table.items() if key.lower() in MACHINERY}
    assert doors == MACHINERY
