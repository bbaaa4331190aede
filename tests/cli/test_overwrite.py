"""`--overwrite` replaces what vadv wrote, when the new one is complete, and nothing else."""

import json
from pathlib import Path

import pytest

from vadv_dist.cli import main
from vadv_dist.storage import earlier_of, put_aside

ROWS = ["id,video_id,split,label,text", "a_1,a,train,1.5,fun", "b_1,b,valid,-1,dull", "c_1,c,test,0,it is a film"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(ROWS))
    return path


def clips(folder: Path) -> int:
    splits = json.loads((folder / "dataset.json").read_text())["splits"]
    return sum(shard["rows"] for split in splits.values() for shard in split["shards"])


def test_a_data_set_is_replaced_by_a_complete_one(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    command = ["ingest", "table", "--csv", str(table), "--out", str(out)]
    assert main([*command, "--overwrite"]) == 0
    assert main(command) == 2
    assert "is not overwritten. Choose another folder, or remove this one. --overwrite" in capsys.readouterr().err
    table.write_text("\n".join([*ROWS, "d_1,d,train,2,great fun"]))
    assert main([*command, "--overwrite"]) == 0
    assert clips(out) == 4
    table.write_text("\n".join([*ROWS, "d_1,d,train,high,great fun"]))
    assert main([*command, "--overwrite"]) == 2
    assert clips(out) == 4, "the earlier one is back"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.csv", "data"]


def test_what_is_not_a_data_set_alone_is_not_replaced(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    command = ["ingest", "table", "--csv", str(table), "--out", str(out), "--overwrite"]
    assert main(command) == 0
    (out / "notes.txt").write_text("mine")
    assert main(command) == 2
    assert "notes.txt in it is not a part of the data set" in capsys.readouterr().err
    (out / "dataset.json").unlink()
    assert main(command) == 2
    assert "it has no dataset.json" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "mine"


def test_synthetic_data_are_replaced(tmp_path: Path) -> None:
    command = ["synth", str(tmp_path / "made"), "--num-clips", "40"]
    assert main(command) == 0
    assert main([*command[:-1], "50"]) == 2
    assert main([*command[:-1], "50", "--overwrite"]) == 0
    assert clips(tmp_path / "made") == 50


def test_what_another_command_resumes_stays_and_the_earlier_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "old").touch()

    def stop_after_a_while() -> None:
        path.mkdir()
        (path / "new").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), put_aside(path):
        stop_after_a_while()
    assert (path / "new").is_file()
    assert (earlier_of(path) / "old").is_file()


def test_nothing_is_replaced_in_an_object_store(table: Path, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ingest", "table", "--csv", str(table), "--out", f"{s3}/overwritten", "--overwrite"]
    assert main(command) == 0
    assert main(command) == 2
    assert "--overwrite replaces only what is on a disk" in capsys.readouterr().err
