"""Completion in a shell, versions, and options that are nearly right."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from vadv_dist import __version__
from vadv_dist.cli import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vadv", "pre"], {"predict"}),
        (["vadv", "predict", "--in"], {"--input", "--interval"}),
        (["vadv", "predict", "--precision", "b"], {"bf16"}),
        (["vadv", "ingest", "ta"], {"table"}),
    ],
)
def test_bash_completes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: set[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "vadv.sh"
    script.write_text(capsys.readouterr().out)
    typed = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _shtab_vadv"
    done = subprocess.run(
        ["bash", "-c", f". {script}; {ask}; printf '%s\\n' \"${{COMPREPLY[@]}}\""], capture_output=True, text=True
    )
    assert {line.strip() for line in done.stdout.splitlines()} == expected, done.stderr


def test_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert "#compdef vadv" in capsys.readouterr().out
    assert main(["completion", "fish"]) == 2
    assert "unknown shell 'fish' (available: bash, zsh, tcsh)" in capsys.readouterr().err


def test_versions_of_the_stack(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"vadv {__version__}"
    assert f"torch {importlib.metadata.version('torch')}" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synth", "out", "--clips", "3"], "synth: unknown option --clips. Did you mean --num-clips?"),
        (["predict", "run", "--imput=a"], "unknown option --imput. Did you mean --input?"),
        (["ingest", "table", "--cvs", "a", "--csv", "b", "--out", "c"], "Did you mean --csv?"),
    ],
)
def test_an_option_that_is_nearly_right(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
