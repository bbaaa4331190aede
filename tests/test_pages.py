"""The documentation: its commands as scripts, its reference of commands, and its site without broken links."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import diagrams, pictures
from vadv_dist.cli.reference import markdown

ROOT = Path(__file__).parents[1]
PAGES = [
    pytest.param("README.md", marks=pytest.mark.slow),
    *(
        pytest.param(f"docs/{path.name}", marks=pytest.mark.long)
        for path in sorted((ROOT / "docs").glob("tutorial-*.md"))
    ),
]
# A block that follows `<!-- not run: REASON -->` is for the reader only.
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n+)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[str]:
    """The `vadv` commands of a page's blocks, in order; every line of a block that is run must be one."""
    lines = [
        line
        for note, language, block in BLOCK.findall(page)
        if not note and language in ("", "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert [line for line in lines if not line.startswith("vadv ")] == [], "mark their block with <!-- not run: why -->"
    return [smaller(re.split(r"\s+# ", line)[0]) for line in lines]


def smaller(command: str) -> str:
    """The command with fewer clips and one epoch."""
    command = re.sub(r"--num-clips \d+", "--num-clips 400", command)
    command = re.sub(r"--trainer\.epochs=\d+", "--trainer.epochs=1", command)
    if command.startswith("vadv train ") and "--trainer.epochs" not in command:
        command += " --trainer.epochs=1"
    return command


def write_table(path: Path, columns: tuple[str, ...]) -> None:
    """What a reader brings: texts with labels in [-3, 3], by video and split."""
    words = ("dull", "poor", "fine", "good", "superb")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for i in range(80):
            video, split = i // 4, ("train", "train", "train", "valid", "test")[i // 4 % 5]
            row = {"id": f"v{video}_{i % 4}", "video_id": f"v{video}", "split": split, "label": i % 5 - 2}
            text = f"the film number {i} was {words[i % 5]}"
            writer.writerow({**row, "text": text, "review": text, "stars": i % 5 + 1})


def fresh_copy(folder: Path) -> Path:
    """The files that git tracks, as they are in the checkout."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    folder.mkdir()
    packed = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=names, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=packed.stdout, check=True)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_order_in_a_fresh_copy(tmp_path: Path, page: str) -> None:
    copy = fresh_copy(tmp_path / "vadv")
    write_table(copy / "mosi_segments.csv", ("id", "video_id", "split", "label", "text"))
    write_table(copy / "reviews.csv", ("id", "split", "stars", "review"))
    commands = commands_of((copy / page).read_text(encoding="utf-8"))
    assert len(commands) >= 3
    done = subprocess.run(
        [sys.executable, "-m", "tests.page_commands"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"},
        input=json.dumps(commands),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_reference_of_commands_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_pictures_are_shown_and_small() -> None:
    shown = {
        path
        for page in ("README.md", "docs/index.md")
        for path in re.findall(r"img/([\w.-]+)", (ROOT / page).read_text())
    }
    files = {path.name: path.stat().st_size for path in (ROOT / "docs" / "img").iterdir()}
    assert files.keys() == shown
    assert max(files.values()) <= pictures.MAX_BYTES


def test_the_script_of_the_pictures_says_that_it_needs_a_browser(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert pictures.run() == 2
    assert "Install Chromium" in capsys.readouterr().err


def test_every_diagram_is_drawn_and_loads_nothing() -> None:
    drawn = {path.name: path.read_text(encoding="utf-8") for path in diagrams.FOLDER.iterdir()}
    assert drawn.keys() == diagrams.diagrams().keys(), "run `python -m docs.diagrams`"
    for svg in drawn.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")  # browsers refuse pictures that are not XML
        assert "<script" not in svg
        assert set(re.findall(r"https?://[\w./]+", svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
            "http://www.w3.org/1999/xhtml",
        }


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "fonts.googleapis.com" not in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for name in diagrams.diagrams():  # not drawn by a script from the network
        page = (tmp_path / "site" / name.rsplit("-", 1)[0]).with_suffix(".html").read_text(encoding="utf-8")
        assert f'src="diagrams/{name}"' in page
        assert 'class="mermaid"' not in page
        assert (tmp_path / "site" / "diagrams" / name).is_file()
