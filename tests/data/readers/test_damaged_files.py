"""Damaged and malicious files give a clear error or a correct data set, never a traceback, a hang or a side effect."""

import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import FEW, MANY, damaged, how_many, how_many_slowly, run
from foreign_files import as_numpy_1, mmsa_content, sdk_files, write_mmsa, write_vegas
from rich.console import Console

from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.info import dataset_info
from vadv_dist.data.info_view import render_info
from vadv_dist.data.readers import hdf5
from vadv_dist.data.readers.clip_rows import TextColumns
from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk
from vadv_dist.data.readers.mmsa import ingest_mmsa
from vadv_dist.data.readers.pickles import read_pickle
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.data.readers.vegas import ingest_vegas
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.windows import to_window
from vadv_dist.errors import UserError
from vadv_dist.inference.text_table import TextTable
from vadv_dist.storage import sha256_file

SECONDS_PER_FILE = 10
MEMORY_BYTES = 1 << 30


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Limit memory to far less than a naive reader would use for a malicious file."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory cannot be limited on this system")
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def quick_hdf5(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that makes the HDF5 library hang costs two seconds."""
    monkeypatch.setattr(hdf5, "REQUEST_SECONDS", 2.0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which only the test's files may appear; commands in malicious files would write here."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def check_message(error: UserError) -> None:
    """Check that a message is printable and has only a few lines."""
    assert 10 < len(str(error)) < 4000
    str(error).encode().decode()


def try_one(read: Callable[[Path], Any], out: Path) -> bool:
    """Ingest and return whether there is a data set, which must be complete and match the summary."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    try:
        summary = read(out)
    except UserError as error:
        check_message(error)
        assert not out.exists()
        return False
    finally:
        assert time.monotonic() - started < SECONDS_PER_FILE
    dataset = Dataset.open(out)
    reader = ShardReader(dataset, tuple(dataset.manifest.features))
    for split, rows in summary.splits.items():
        window = to_window([reader.read(shard) for shard in dataset.split(split)], reader.specs)
        assert len(window) == rows
        assert all(dataset.manifest.label.holds(float(label)) for label in window.label)
    assert summary.rows_read == summary.rows_written + sum(summary.dropped.values())
    counts = dataset.manifest.provenance["counts"]
    assert (counts["rows_written"], counts["dropped"]) == (summary.rows_written, summary.dropped)
    shutil.rmtree(out)
    return True


pytestmark = pytest.mark.usefixtures("bounded_memory")


def csv_text() -> bytes:
    rows = [f'a{i},a,{s},{i % 7 - 3},"it was, well, {i}",x' for i, s in enumerate(["train"] * 5 + ["val", "test"])]
    return "\n".join(["id,video_id,split,label,text,raw", *rows, ""]).encode()


@how_many
def test_csv(place: Path, files: int) -> None:
    path, good = place / "t.csv", csv_text()

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(good, chance))
        bad_rows = chance.choice(("error", "drop"))
        try_one(partial(ingest_table, path, bad_rows=bad_rows, fallback_text_column="raw"), place / "out")

    run(files, example)
    assert [p.name for p in place.iterdir()] == ["t.csv"]


@how_many
def test_npz(place: Path, files: int) -> None:
    (place / "t.csv").write_bytes(csv_text())
    path = place / "f.npz"
    generator = np.random.default_rng(0)
    goods = []
    for save in (np.savez, np.savez_compressed):
        save(path, id=[f"a{i}" for i in range(7)], x=generator.normal(size=(7, 3, 2)).astype(np.float32))
        goods.append(path.read_bytes())

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(chance.choice(goods), chance))
        read = partial(ingest_table, place / "t.csv", arrays=["f.npz:x=visual"])
        try_one(partial(read, allow_missing_arrays=chance.random() < 0.5), place / "out")

    run(files, example)
    assert sorted(p.name for p in place.iterdir()) == ["f.npz", "t.csv"]


class Harm:
    """Runs a command if Python unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm",)


def harmful(content: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Insert an object that would run a command at a random place."""
    split = content[chance.choice(list(content))]
    column = chance.choice(list(split))
    if chance.random() < 0.5:
        split[column] = Harm()
    else:
        split[column] = list(split[column])
        split[column][0] = Harm()
    return content


def wrong(content: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Replace columns by values of other types and lengths."""
    split = content[chance.choice(list(content))]
    column = chance.choice(
        ["id", "raw_text", "regression_labels", "vision", "audio", "audio_lengths", "vision_lengths"]
    )
    value = split[column]
    others: list[Any] = [None, 3, "text", [], {}, value[:-1], list(value), [value], value[0], np.zeros((2, 0)), 1e400]
    others += [[None] * len(value), ["x"] * len(value), [-1] * len(value), [10**30] * len(value), [[]] * len(value)]
    others += [np.full(len(value), np.nan), np.full((len(value), 4, 3), -np.inf), np.full((len(value), 3), 1e308)]
    others += [np.array([np.ones((2, 3))] * len(value) + [None], object)[:-1], np.array(["a\ud800"] * len(value))]
    split[column] = chance.choice(others)
    return content


@how_many
def test_mmsa(place: Path, files: int) -> None:
    path = place / "m.pkl"
    goods = [
        form(write_mmsa(path, mmsa_content(aligned), protocol).read_bytes())
        for aligned in (False, True)
        for protocol in (2, 3, 4, 5)
        for form in (bytes, as_numpy_1)
    ]

    def example(chance: random.Random) -> None:
        kind, protocol = chance.randrange(10), chance.randrange(2, 6)
        if kind == 0:
            data = pickle.dumps(harmful(mmsa_content(), chance), protocol)
        elif kind < 3:
            data = pickle.dumps(wrong(mmsa_content(), chance), protocol)
        else:
            data = damaged(chance.choice(goods), chance)
        path.write_bytes(data)
        framing = Framing(2, chance.choice(("mean", "sample")), chance.choice(("zero", "drop", "error")))
        read = partial(ingest_mmsa, path, framing=framing, bad_rows=chance.choice(("drop", "error")))
        good = try_one(read, place / "out")
        assert not (good and kind == 0)  # a file that would run a command is always refused

    run(files, example)
    assert [p.name for p in place.iterdir()] == ["m.pkl"]  # no command ran


MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
NAMES = [
    *(f"{module}\n{name}" for module in MODULES for name in ("_reconstruct", "scalar", "fromfile")),
    "numpy.core.numeric\n_frombuffer",
    *("numpy\nndarray", "numpy\ndtype", "_codecs\nencode", "builtins\nbytes", "os\nsystem", "builtins\neval"),
]
DESCRIBED = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"


def program(chance: random.Random) -> bytes:
    """Random instructions, many of them valid."""
    parts = [b"\x80\x04"]
    for _ in range(chance.randrange(40)):
        text = chance.choice([b"a", b"latin1", b"C", b"F", b"K", b"<", b"f4", b"U9", b"O8", b"touch harm", b"train"])
        parts.append(
            chance.choice(
                [
                    bytes([chance.choice(b"N])}(t\x85\x86\x87aesu\x88\x89\x8f\x90\x91\x9302R1b\x94lodi\x81\x92QP")]),
                    b"K" + chance.randbytes(1),
                    b"J" + chance.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x01\0\0\0"]),
                    b"X" + len(text).to_bytes(4, "little") + text,
                    b"C" + bytes([len(text)]) + text,
                    b"h" + chance.randbytes(1)[:1],
                    b"h" + bytes([chance.randrange(4)]),
                    b"q" + bytes([chance.randrange(4)]),
                    b"c" + chance.choice(NAMES).encode() + b"\n",
                    DESCRIBED,
                    DESCRIBED + b"(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
                    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R",
                    b"(K\x01K\x01\x85" + DESCRIBED + b"\x89C\x04abcdtb",
                    b"\x8a\x09" + chance.randbytes(9),
                    b"G" + chance.randbytes(8),
                ]
            )
        )
    return b"".join(parts) + b"."


@how_many
def test_pickle_programs(place: Path, files: int) -> None:
    def example(chance: random.Random) -> None:
        started = time.monotonic()
        with contextlib.suppress(UserError):
            read_pickle(memoryview(program(chance)), "x.pkl")
        assert time.monotonic() - started < SECONDS_PER_FILE

    run(10 * files, example)
    assert not list(place.iterdir())


@how_many_slowly
def test_csd(place: Path, files: int, quick_hdf5: None) -> None:
    good = sdk_files(place, ("a", "d"))
    contents = {name: path.read_bytes() for name, path in good.items()}

    def example(chance: random.Random) -> None:
        name = chance.choice(list(contents))
        good[name].write_bytes(damaged(contents[name], chance))
        used = name if name in ("visual", "audio") else "audio" if chance.random() < 0.2 else None
        options: dict[str, Any] = {used: good[used]} if used else {}
        if name == "words" or chance.random() < 0.1:
            options["words"] = good["words"]
        else:
            options |= {"text_csv": good["texts"], "text_columns": TextColumns(("video_id", "clip_id"))}
        read = partial(ingest_cmu_sdk, good["labels"], good["folds"], framing=Framing(2), **options)
        try_one(partial(read, bad_rows=chance.choice(("drop", "error"))), place / "out")
        good[name].write_bytes(contents[name])

    run(files, example)
    assert sorted(p.name for p in place.iterdir()) == sorted(p.name for p in good.values())


# Each file is read in a separate process, as in test_csd, which uses the same reader.
@pytest.mark.parametrize("files", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.long])])
def test_vegas(place: Path, files: int, quick_hdf5: None) -> None:
    path = place / "v.h5"
    goods = [
        write_vegas(path, one_hot=one_hot, compression=compression).read_bytes()
        for one_hot in (False, True)
        for compression in (None, "gzip")
    ]

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(chance.choice(goods), chance))
        try_one(partial(ingest_vegas, path, bad_rows=chance.choice(("drop", "error"))), place / "out")

    run(files, example)
    assert [p.name for p in place.iterdir()] == ["v.h5"]


def our_dataset(out: Path) -> None:
    specs = {"visual": FeatureSpec((2, 1, 3)), "face": FeatureSpec((2, 2), "float32")}
    generator = np.random.default_rng(0)
    with DatasetWriter(out, features=specs, label=LabelSpec(), provenance={"files": [{"sha256": "x"}]}) as writer:
        for i in range(8):
            features = {name: generator.normal(size=spec.shape) for name, spec in specs.items()}
            features["face"] = features["face"] if i % 3 else None
            writer.write("train" if i < 6 else "valid", Clip(f"c{i}", f"v{i}", "some words", i % 3, "s", features))


def use(uri: Path) -> bool:
    """Run everything that reads a data set; return whether every declared row could be read."""
    started = time.monotonic()
    whole = sound = False
    try:
        render_info(dataset_info(uri), Console(file=io.StringIO(), width=100))
        dataset = Dataset.open(uri)
        reader = ShardReader(dataset, tuple(dataset.manifest.features))
        for shards in filter(None, dataset.manifest.splits.values()):
            window = to_window([reader.read(shard) for shard in shards], reader.specs)
            assert len(window) == sum(shard.rows for shard in shards)
        whole = True
    except UserError as error:
        check_message(error)
    try:
        sound = check_dataset(uri).ok
    except UserError as error:
        check_message(error)
    assert time.monotonic() - started < SECONDS_PER_FILE
    assert whole or not sound  # a data set that passes the check can be read
    return whole


@how_many
def test_manifest(place: Path, files: int) -> None:
    our_dataset(place / "d")
    path = place / "d" / "dataset.json"
    good = path.read_bytes()
    assert use(place / "d")
    values = [None, True, -1, 10**30, 1e400, float("nan"), "x", [], {}, [1], {"a": 1}, "../x", [[]], -0.5]

    def places(value: Any) -> Iterator[tuple[Any, Any]]:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield value, key
            yield from places(value[key])

    def example(chance: random.Random) -> None:
        if chance.random() < 0.5:
            raw = json.loads(good)
            for _ in range(chance.choice((1, 1, 3))):
                holder, key = chance.choice(list(places(raw)))
                holder[key] = chance.choice(values)
            path.write_text(json.dumps(raw))
        else:
            path.write_bytes(damaged(good, chance))
        refused.append(not use(place / "d"))

    refused: list[bool] = []
    run(files, example)
    assert any(refused)
    assert [p.name for p in place.iterdir()] == ["d"]


@how_many_slowly
def test_shards(place: Path, files: int) -> None:
    our_dataset(place / "d")
    manifest, path = place / "d" / "dataset.json", place / "d" / "train" / "00000.parquet"
    raw, good = json.loads(manifest.read_text()), path.read_bytes()
    declared = raw["splits"]["train"]["shards"][0]
    assert use(place / "d")

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(good, chance))
        if chance.random() < 0.9:  # as after a buggy writer: the hash matches the damaged file
            declared.update(bytes=path.stat().st_size, sha256=sha256_file(path))
            manifest.write_text(json.dumps(raw))
        whole = use(place / "d")
        assert not whole or sha256_file(path) == declared["sha256"]

    run(files, example)
    assert [p.name for p in place.iterdir()] == ["d"]


@how_many
def test_prediction_tables(place: Path, files: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    csv, parquet, lines, objects = (place / f"t{suffix}" for suffix in (".csv", ".parquet", ".txt", ".jsonl"))
    pq.write_table(pa.table({"text": [f"words {i}" for i in range(20)], "n": list(range(20))}), parquet)
    texts = [f"words {i}" for i in range(20)]
    goods = {
        csv: csv_text(),
        parquet: parquet.read_bytes(),
        lines: "\n".join(texts).encode(),
        objects: "\n".join(json.dumps({"text": text, "n": [1, {"a": None}]}) for text in texts).encode(),
    }

    def example(chance: random.Random) -> None:
        path = chance.choice(list(goods))
        path.write_bytes(damaged(goods[path], chance))
        try:
            table = TextTable(path, "text", ["prediction"])
            rows, _ = table.check_texts()
            table.write_with(place / "out", {"prediction": np.zeros(rows, np.float32)}, table.table.outputs[0])
            (place / "out").unlink()
        except UserError as error:
            check_message(error)

    run(files, example)
    assert sorted(p.name for p in place.iterdir()) == ["t.csv", "t.jsonl", "t.parquet", "t.txt"]
