"""The library's interface: what the notebook and docs/api.md show is what runs."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vadv_dist

DOCS = Path(__file__).parents[1] / "docs"
ROOMS = ("data", "formats", "inference", "launch", "reporting", "runs", "training", "watching")


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    cells = json.loads((DOCS / "notebooks" / "first-steps.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    printed = run_python("\nprint('---')\n".join("".join(cell["source"]) for cell in code), tmp_path).split("---\n")
    assert len(printed) == len(code) == 5
    # What depends on no arithmetic of this machine.
    assert printed[0] == "".join(code[0]["outputs"][0]["text"])
    assert printed[1] == "".join(code[1]["outputs"][0]["text"])
    shape = re.compile(r"-?\d+\.\d+")
    for ours, shown in zip(printed[2:], code[2:], strict=True):
        assert shape.sub("#", ours.replace("+", "-")).count("#") == len(
            shape.findall("".join(shown["outputs"][0]["text"]))
        )


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    assert "MAE" in run_python("\n".join(blocks), tmp_path)


def test_every_name_is_there_and_documented() -> None:
    page = (DOCS / "api.md").read_text()
    for name in vadv_dist.__all__:
        assert getattr(vadv_dist, name).__doc__
        assert re.search(rf"\b{name}\b", page), name
    assert set(vadv_dist.__all__) <= set(dir(vadv_dist))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vadv_dist.nothing  # noqa: B018


def test_the_package_is_imported_at_once() -> None:
    code = "import sys, vadv_dist; print(sorted({'numpy', 'torch', 'pydantic', 'ray'} & set(sys.modules)))"
    assert run_python(code, Path.cwd()) == "[]\n"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_export_their_public_names(room: str) -> None:
    package = importlib.import_module(f"vadv_dist.{room}")
    assert all(getattr(package, name).__module__.startswith(f"vadv_dist.{room}.") for name in package.__all__)
    # A module of the same name would replace the export as soon as it is imported.
    assert not {path.stem for path in Path(package.__path__[0]).iterdir()} & set(package.__all__)
