"""Text from files or arguments cannot control the terminal."""

import ast
import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vadv_dist.cli import main
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.runtime.terminal import console, counted, harmless_streams, json_line, visible

PACKAGE = Path(__file__).parents[1] / "vadv_dist"
ESCAPE, BELL, C1_CSI, OVERRIDE = "\x1b[2J", "\x07", "\x9b2J", "\u202e"
HOSTILE = f"a{ESCAPE}{BELL}{C1_CSI}{OVERRIDE}b"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def hostile_dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    with DatasetWriter(root, features={}, label=LabelSpec(), provenance={"made_by": HOSTILE}) as writer:
        for number, split in enumerate(("train", "train", "valid", "test")):
            writer.write(split, Clip(f"{HOSTILE}_{number}", HOSTILE, "words", 1.0, HOSTILE))
    return root


def test_each_control_character_becomes_one_visible_column() -> None:
    assert visible("\x1b[31m") == "\u241b[31m"
    assert visible("\x00\x07\r\x7f") == "\u2400\u2407\u240d\u2421"
    assert visible("\x85\x9b\u202e\u2066\u2028") == "\ufffd" * 5
    assert visible("\ud800") == "\ufffd"


def test_ordinary_text_passes_unchanged() -> None:
    text = "a\tb\nä 漢字 → ✓ 😀 \u200d"  # a zero-width joiner is part of emoji and Indic letters
    assert visible(text) == text


def test_counts_are_singular_only_for_one() -> None:
    assert [counted(number, "step") for number in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]
    assert [counted(number, "GPU") for number in (0.0, 1.0, 0.5)] == ["0 GPUs", "1 GPU", "0.5 GPUs"]
    assert counted(2, "batch", "batches") == "2 batches"


def test_json_is_lossless_without_control_characters() -> None:
    line = json_line({HOSTILE: [HOSTILE, "漢字", "\ud800"]})
    assert not COMMANDS.search(line)
    assert json.loads(line) == {HOSTILE: [HOSTILE, "漢字", "\ud800"]}
    assert "漢字" in line


def test_streams_replace_control_characters_in_prints_and_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with harmless_streams():
        print(HOSTILE)
        sys.stdout.writelines([HOSTILE])
        logging.lastResort.handle(logging.makeLogRecord({"msg": HOSTILE, "levelno": logging.ERROR}))
        assert not sys.stdout.isatty()
    assert sys.stdout is out
    assert out.getvalue() == f"{visible(HOSTILE)}\n{visible(HOSTILE)}"
    assert err.getvalue() == f"{visible(HOSTILE)}\n"


def test_a_console_keeps_only_its_own_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.table import Table
    from rich.text import Text

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with harmless_streams():
        table = Table("name", title=HOSTILE)
        table.add_row(HOSTILE)
        table.add_row("[/b] [red]as it is")
        terminal = console()
        terminal.print(table)
        terminal.print(Text(HOSTILE, style="red"))
        terminal.print(HOSTILE, soft_wrap=True)
        raw = sys.stdout.getvalue()
    assert "\x1b[31m" in raw
    assert not COMMANDS.search(re.sub(r"\x1b\[[0-9;]*m", "", raw).replace("\n", ""))
    assert ESCAPE not in raw
    assert "[/b] [red]as it is" in raw


def test_rich_consoles_are_created_in_one_place() -> None:
    for path in PACKAGE.rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        made = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "Console"]
        assert not made, f"{path} makes a rich console; use vadv_dist.runtime.terminal.console"


@pytest.mark.parametrize("command", ["data-info", "data-check"])
def test_commands_on_a_malicious_data_set_print_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    root = hostile_dataset(tmp_path)
    assert main([command, str(root)]) == 0
    printed = capsys.readouterr()
    assert not COMMANDS.search(printed.out + printed.err)
    assert "\u241b[2J" in printed.out
    assert main([command, str(root), "--json"]) == 0
    printed = capsys.readouterr()
    assert not COMMANDS.search(printed.out)
    assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(printed.out))


def test_messages_with_malicious_names_print_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / f"{HOSTILE}.csv"
    table.write_text(f"id,split,label,text\n{HOSTILE},train,x{ESCAPE},words\n")
    assert main(["ingest", "table", "--csv", str(table), "--out", str(tmp_path / "out")]) == 2
    assert main([f"{HOSTILE}"]) == 2
    assert main(["train", "--config", str(tmp_path / HOSTILE)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("vadv: ") == 3
    assert not COMMANDS.search(printed.out + printed.err)


def test_a_printed_config_can_be_loaded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"run": {"storage": f"runs/{OVERRIDE}x"}}))
    assert main(["train", "--config", str(config), "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert OVERRIDE not in printed
    assert yaml.safe_load(printed)["run"]["storage"] == f"runs/{OVERRIDE}x"


def test_the_console_script_replaces_control_characters_too(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "vadv_dist.cli", "data-info", str(tmp_path / HOSTILE)], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert not COMMANDS.search(run.stderr)
