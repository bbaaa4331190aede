"""Retrieval from files: exact, in every format, and one message for each kind of bad input."""

import csv
import json
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs import AUDIO, VISUAL, make_pair, make_pair_card, random_vectors, unit_embeddings

from vadv_dist.cli.command import main
from vadv_dist.errors import UserError
from vadv_dist.inference.export import export_run
from vadv_dist.inference.retrieval_export import export_pair
from vadv_dist.inference.retrieve import is_retrieved, require_output, retrieve, write_retrieved
from vadv_dist.inference.towers import towers_of
from vadv_dist.storage import location
from vadv_dist.students.eics import Eics

QUERIES, ITEMS = 5, 40


def write_npz(path, ids, **arrays):
    np.savez(path, id=np.array(ids), **arrays)
    return path


def write_csv(path, ids, name, vectors):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "note", *(f"{name}_{i}" for i in range(vectors.shape[1]))])
        writer.writerows([one, "a, b", *map(repr, row.tolist())] for one, row in zip(ids, vectors, strict=True))
    return path


def write_parquet(path, ids, name, vectors, kind="list"):
    if kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors[:, None])
    elif kind == "fixed":
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    else:
        column = pa.array(vectors.astype(np.float16 if kind == "half" else np.float64).tolist())
    pq.write_table(pa.table({"text": ["x"] * len(ids), "clip_id": ids, name: column}), path, row_group_size=7)
    return path


def write_numbered_parquet(path, ids, name, vectors):
    columns = {f"{name}_{i}": vectors[:, i] for i in range(vectors.shape[1])}
    pq.write_table(pa.table({"id": ids, **columns}), path)
    return path


QUERY_IDS = [f"q{i}" for i in range(QUERIES)]
ITEM_IDS = [f"g{i}" for i in range(ITEMS)]
WRITERS = {
    "npz": lambda path, ids, name, vectors: write_npz(path.with_suffix(".npz"), ids, **{name: vectors}),
    "frames": lambda path, ids, name, vectors: write_npz(
        path.with_suffix(".npz"), ids, **{name: np.stack([vectors - 1, vectors + 1], axis=1)}
    ),
    "csv": lambda path, ids, name, vectors: write_csv(path.with_suffix(".csv"), ids, name, vectors),
    "lists": lambda path, ids, name, vectors: write_parquet(path.with_suffix(".parquet"), ids, name, vectors),
    "fixed": lambda path, ids, name, vectors: write_parquet(path.with_suffix(".parquet"), ids, name, vectors, "fixed"),
    "tensors": lambda path, ids, name, vectors: write_parquet(
        path.with_suffix(".parquet"), ids, name, vectors, "tensor"
    ),
    "columns": lambda path, ids, name, vectors: write_numbered_parquet(
        path.with_suffix(".parquet"), ids, name, vectors
    ),
}


@pytest.fixture(scope="session")
def vectors():
    return random_vectors(QUERIES, AUDIO, seed=3), random_vectors(ITEMS, VISUAL, seed=4)


@pytest.fixture
def files(tmp_path, vectors):
    """A query file of audio and a gallery file of visual vectors, as npz."""
    audio, visual = vectors
    return write_npz(tmp_path / "q.npz", QUERY_IDS, audio=audio), write_npz(tmp_path / "g.npz", ITEM_IDS, visual=visual)


def expected_order(audio, visual, k):
    query, gallery = unit_embeddings(make_pair(), audio, visual)
    cosine = query.astype(np.float64) @ gallery.T.astype(np.float64)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, axis=1)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_items(pair_export, tmp_path, vectors, kind):
    audio, visual = vectors
    query = WRITERS[kind](tmp_path / "query", QUERY_IDS, "audio", audio)
    gallery = WRITERS[kind](tmp_path / "gallery", ITEM_IDS, "visual", visual)
    found = retrieve(pair_export, query, gallery, k=4)
    order, cosine = expected_order(audio, visual, 4)
    assert found.query_modality == "audio"
    assert found.query_id == QUERY_IDS
    assert found.gallery_id == [[ITEM_IDS[i] for i in row] for row in order]
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-5)


def test_the_direction_can_be_reversed(pair_export, files):
    found = retrieve(pair_export, files[1], files[0], k=QUERIES)
    assert found.query_modality == "visual"
    assert found.query_id == ITEM_IDS
    assert sorted(found.gallery_id[0]) == QUERY_IDS


def test_results_are_written_in_every_format(pair_export, files, tmp_path):
    found = retrieve(pair_export, *files, k=3)
    rows = list(found.rows())
    for suffix in ("csv", "parquet", "npz"):
        write_retrieved(found, require_output(tmp_path / f"out.{suffix}"))
        assert is_retrieved(tmp_path / f"out.{suffix}")
    assert not any(map(is_retrieved, files))
    with (tmp_path / "out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(r["query_id"], int(r["rank"]), r["gallery_id"]) for r in lines] == [
        (r["query_id"], r["rank"], r["gallery_id"]) for r in rows
    ]
    np.testing.assert_array_equal(np.array([float(r["cosine"]) for r in lines], np.float32), found.cosine.reshape(-1))
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["query_id"].tolist() == QUERY_IDS
        assert arrays["gallery_id"].tolist() == found.gallery_id
        np.testing.assert_array_equal(arrays["cosine"], found.cosine)


def test_command_prints_rows_or_json_or_writes_a_file(pair_export, files, tmp_path, capsys):
    command = ["retrieve", str(pair_export), "--query", str(files[0]), "--gallery", str(files[1]), "--k", "2"]
    found = retrieve(pair_export, *files, k=2)
    assert main(command) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [[r["query_id"], str(r["rank"]), r["gallery_id"], f"{r['cosine']:.4f}"] for r in found.rows()]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"from": "audio", "rows": list(found.rows())}
    assert main([*command, "--out", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().out == (f"wrote {tmp_path / 'out.csv'}: the nearest 2 of 40 clips for 5 audio queries\n")


def test_memory_does_not_grow_with_the_gallery(files, tmp_path):
    width = 256
    student = Eics(AUDIO, width, 2, hidden=8, layers=1, explicit=1.0, gap=1.0, implicit=1.0, dropout=0.0).eval()
    widths = {"audio": AUDIO, "visual": width}
    export_pair(towers_of(student, widths), widths, tmp_path / "export", card=make_pair_card())
    peaks = []
    for rows in (8_000, 30_000):
        ids = [f"g{i}" for i in range(rows)]
        gallery = write_npz(tmp_path / f"{rows}.npz", ids, visual=random_vectors(rows, width))
        tracemalloc.start()
        retrieve(tmp_path / "export", files[0], gallery, k=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 8 << 20  # the ids; 22,000 more vectors take 22 MB


# Bad input: file contents, and the message.
def bad(pair_export, query, gallery, **options) -> str:
    with pytest.raises(UserError) as raised:
        retrieve(pair_export, query, gallery, **options)
    return str(raised.value)


def test_unknown_columns(pair_export, files, tmp_path, vectors):
    other = write_npz(tmp_path / "other.npz", QUERY_IDS, sound=vectors[0])
    text = bad(pair_export, other, files[1])
    assert f"{other} has no audio or visual vectors, and {files[1]} has visual vectors. Expected queries" in text
    text = bad(pair_export, other, files[1], modality="audio")
    assert text.startswith(f"{other} has neither a column 'audio' nor columns 'audio_0'")
    assert "(it has: id, sound)" in text
    no_id = tmp_path / "no_id.npz"
    np.savez(no_id, name=np.array(QUERY_IDS), audio=vectors[0])
    expected = "has no column 'clip_id' or 'id' of ids (it has: name, audio). Name their column with --id-column."
    assert expected in bad(pair_export, no_id, files[1])
    assert retrieve(pair_export, no_id, write_ids(tmp_path, vectors), k=1, id_column="name").query_id == QUERY_IDS
    gap = write_csv(tmp_path / "gap.csv", QUERY_IDS, "audio", vectors[0])
    gap.write_text(gap.read_text().replace("audio_2", "audio_17"))
    assert "has 'audio_17' but no column 'audio_2'" in bad(pair_export, gap, files[1])


def write_ids(tmp_path, vectors):
    path = tmp_path / "named.npz"
    np.savez(path, name=np.array(ITEM_IDS), visual=vectors[1])
    return path


def test_vectors_of_another_width(pair_export, files, tmp_path):
    wide = write_npz(tmp_path / "wide.npz", QUERY_IDS, audio=random_vectors(QUERIES, 7))
    expected = f"{wide} has audio vectors of width 7, but the student reads width 6."
    assert bad(pair_export, wide, files[1]).startswith(expected)
    uneven = tmp_path / "uneven.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "audio": [[1.0] * 6, [1.0] * 5]}), uneven)
    assert "audio vectors of width 5 and of width 6" in bad(pair_export, uneven, files[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(pair_export, files, tmp_path, vectors, value):
    gallery = vectors[1].copy()
    gallery[30, 2] = value
    for path in (
        write_npz(tmp_path / "bad.npz", ITEM_IDS, visual=gallery),
        write_parquet(tmp_path / "bad.parquet", ITEM_IDS, "visual", gallery),
        write_numbered_parquet(tmp_path / "columns.parquet", ITEM_IDS, "visual", gallery),
    ):
        text = bad(pair_export, files[0], path)
        assert text == (
            f"{path}: row 31 (id 'g30') has NaN, infinity or no number in its visual vector. Fix the row, or remove it."
        )


def test_cells_that_are_no_numbers(pair_export, files, tmp_path, vectors):
    path = write_csv(tmp_path / "bad.csv", QUERY_IDS, "audio", vectors[0])
    lines = path.read_text().splitlines()
    for cell, hint in (("", ""), ("nan", ""), ("1_000", ""), ('"2,5"', " Write its decimal comma as a point.")):
        path.write_text("\n".join([*lines[:3], f"q9,x,{cell},1,2,3,4,5"]))
        shown = cell.strip('"')
        assert bad(pair_export, path, files[1]) == (
            f"{path} line 4: 'audio_0' is '{shown}', expected a number.{hint} Fix the line, or remove it."
        )
    path.write_text("\n".join([*lines[:2], "q9,x,1,2"]))
    assert "line 3 has 4 cells, but the header has 8" in bad(pair_export, path, files[1])


def test_rows_without_a_vector_or_id(pair_export, files, tmp_path):
    path = tmp_path / "nulls.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "audio": [[1.0] * 6, None]}), path)
    assert "id 'b' has no audio vector" in bad(pair_export, path, files[1])
    pq.write_table(pa.table({"id": ["a", "b"], "audio": [[1.0] * 6, [1.0] * 5 + [None]]}), path)
    assert "row 2 (id 'b') has NaN, infinity or no number" in bad(pair_export, path, files[1])
    pq.write_table(pa.table({"id": ["a", None], "audio": [[1.0] * 6, [1.0] * 6]}), path)
    assert "row 2 has no id in 'id'" in bad(pair_export, path, files[1])
    pq.write_table(pa.table({"id": ["a"], "audio": ["1 2 3"]}), path)
    assert "column 'audio' has string, expected lists of numbers" in bad(pair_export, path, files[1])


def test_k_larger_than_the_gallery(pair_export, files):
    assert bad(pair_export, *files, k=41) == f"--k is 41, but {files[1]} has 40 rows. Give --k 40 or less."
    assert bad(pair_export, *files, k=0) == "--k is 0, expected at least 1."


def test_empty_files(pair_export, files, tmp_path):
    empty = write_npz(tmp_path / "empty.npz", np.empty(0, "U1"), audio=np.empty((0, AUDIO), np.float32))
    assert bad(pair_export, empty, files[1]) == f"{empty} has no rows. Give at least one vector."
    header = tmp_path / "header.csv"
    header.write_text(",".join(["id", *(f"audio_{i}" for i in range(AUDIO))]) + "\n")
    assert bad(pair_export, header, files[1]) == f"{header} has no rows. Give at least one vector."
    nothing = tmp_path / "nothing.csv"
    nothing.touch()
    assert "is empty. Its first line must name the columns." in bad(pair_export, nothing, files[1])
    none = tmp_path / "none.parquet"
    pq.write_table(pa.table({"id": pa.array([], pa.string()), "audio": pa.array([], pa.list_(pa.float32()))}), none)
    assert bad(pair_export, none, files[1]) == f"{none} has no rows. Give at least one vector."


def test_duplicate_ids(pair_export, files, tmp_path, vectors):
    ids = [*ITEM_IDS[:-1], "g3"]
    twice = write_npz(tmp_path / "twice.npz", ids, visual=vectors[1])
    assert bad(pair_export, files[0], twice) == f"{twice} has id 'g3' 2 times. Keep one row per clip."
    queries = write_npz(tmp_path / "queries.npz", ["q"] * QUERIES, audio=vectors[0])
    assert bad(pair_export, queries, files[1]) == f"{queries} has id 'q' 5 times. Keep one row per clip."


def test_files_with_both_modalities_need_a_direction(pair_export, tmp_path):
    both = write_npz(
        tmp_path / "both.npz", ITEM_IDS, audio=random_vectors(ITEMS, AUDIO), visual=random_vectors(ITEMS, VISUAL)
    )
    assert "Give the modality of the queries: --from audio or --from visual." in bad(pair_export, both, both)
    assert retrieve(pair_export, both, both, k=1, modality="visual").query_modality == "visual"


def test_files_of_other_kinds(pair_export, files, tmp_path):
    assert bad(pair_export, tmp_path / "no.csv", files[1]).startswith(f"{tmp_path / 'no.csv'} does not exist")
    text = tmp_path / "q.txt"
    text.write_text("x")
    assert "ends in '.txt', expected .csv, .parquet or .npz" in bad(pair_export, text, files[1])
    assert "is a folder. Give a .csv, .parquet or .npz file, such as one of" in bad(pair_export, tmp_path, files[1])
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 and nothing else")
    assert "cannot be read as Parquet" in bad(pair_export, damaged, files[1])
    damaged = tmp_path / "damaged.npz"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("id.npy", "x")
        archive.writestr("audio.npy", "x")
    assert "is not a readable .npz file" in bad(pair_export, damaged, files[1])


def test_outputs_are_never_overwritten(tmp_path):
    out = tmp_path / "out.csv"
    out.touch()
    with pytest.raises(UserError, match="already exists and is not overwritten"):
        require_output(out)
    with pytest.raises(UserError, match=r"ends in '.json', expected .csv, .parquet or .npz"):
        require_output(location(str(tmp_path / "out.json")))


def test_a_text_student_retrieves_nothing(export, files):
    assert "is a student of sentiment, which reads texts" in bad(export, *files)


@pytest.mark.slow
def test_everything_may_be_in_an_object_store(s3, pair_export, files, tmp_path):
    place = location(f"{s3}/retrieve")
    export_run(pair_export, place / "export")
    for path in files:
        (place / path.name).write_bytes(path.read_bytes())
    found = retrieve(place / "export", place / files[0].name, place / files[1].name, k=3)
    assert found.gallery_id == retrieve(pair_export, *files, k=3).gallery_id
    write_retrieved(found, require_output(place / "out.csv"))
    write_retrieved(found, require_output(tmp_path / "out.csv"))
    assert (place / "out.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    text = bad(place / "export", place / files[0].name, place / files[1].name, k=41)
    assert text == f"--k is 41, but {place / files[1].name} has 40 rows. Give --k 40 or less."
    twice = write_npz(tmp_path / "twice.npz", ["q"] * QUERIES, audio=np.ones((QUERIES, AUDIO)))
    (place / "twice.npz").write_bytes(twice.read_bytes())
    text = bad(place / "export", place / "twice.npz", place / files[1].name)
    assert text == f"{place / 'twice.npz'} has id 'q' 5 times. Keep one row per clip."
