import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, CREDENTIALS, FaultyProxy

from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage import (
    LineReader,
    atomic_directory,
    atomic_file,
    local_copy,
    location,
    object_client,
    read_json,
    remove_tree,
    require_absent,
    write_json,
)
from vadv_dist.storage import objects as object_storage
from vadv_dist.storage.objects import PART_BYTES, ConflictError, S3Path


@pytest.fixture
def place(s3: str, request: pytest.FixtureRequest) -> S3Path:
    """A separate prefix for each test."""
    return S3Path.parse(f"{s3}/{request.node.name}")


@pytest.fixture
def through(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The same server behind a proxy, which fails once its `share` is set."""
    with FaultyProxy(s3_port, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setattr(object_client, "_FIRST_WAIT_S", 0.001)
        object_client.forget_client()
        yield proxy
    object_client.forget_client()


def uploads_left(place: S3Path) -> list:
    return place._call("list_multipart_uploads", Bucket=place.bucket).get("Uploads", [])


def test_uris_become_paths_or_object_locations(tmp_path: Path) -> None:
    assert location("s3://bucket/a/b") == S3Path("bucket", "a/b")
    assert location(Path("s3://bucket/a/b")) == S3Path("bucket", "a/b")
    assert location("s3://bucket/a//b/./c/") == S3Path("bucket", "a/b/c")
    assert location(str(tmp_path)) == tmp_path
    assert str(S3Path("bucket", "a") / "b/c.json") == "s3://bucket/a/b/c.json"
    for bad in ("s3://", "s3:///key", "s3://bucket/../other", "gs://bucket/x"):
        with pytest.raises(UserError):
            location(bad)


def test_an_object_location_behaves_like_a_path(place: S3Path) -> None:
    assert not place.exists()
    assert list(place.iterdir()) == []
    (place / "a.json").write_bytes(b"{}")
    (place / "in/b.txt").write_bytes(b"words")
    (place / "in/c.txt").write_bytes(b"")
    assert place.is_dir()
    assert not place.is_file()
    assert sorted(path.name for path in place.iterdir()) == ["a.json", "in"]
    assert [path.name for path in (place / "in").glob("b*")] == ["b.txt"]
    assert (place / "in/b.txt").read_text() == "words"
    assert (place / "in/c.txt").read_bytes() == b""
    assert (place / "in/b.txt").read_range(1, 3) == b"or"
    with pytest.raises(FileNotFoundError):
        (place / "nothing").read_bytes()
    (place / "a.json").unlink()
    (place / "a.json").unlink()
    remove_tree(place)
    assert not place.exists()


def test_objects_on_all_pages_are_listed(place: S3Path) -> None:
    for number in range(30):
        (place / f"{number:02d}").write_bytes(b"")
    place_pages = [key for page in place._pages(7) for key in page]
    assert [key[-2:] for key in place_pages] == [f"{number:02d}" for number in range(30)]


def test_a_conditional_write_conflicts_with_other_writers(place: S3Path) -> None:
    etag = place.write_bytes(b"mine", if_absent=True)
    with pytest.raises(ConflictError):
        place.write_bytes(b"theirs", if_absent=True)
    changed = place.write_bytes(b"mine still", if_etag=etag)
    with pytest.raises(ConflictError):
        place.write_bytes(b"theirs", if_etag=etag)
    assert place.etag() == changed
    assert place.read_bytes() == b"mine still"


def test_a_large_object_is_transferred_in_parts(place: S3Path, tmp_path: Path) -> None:
    data = os.urandom(2 * PART_BYTES + 12345)
    (tmp_path / "large").write_bytes(data)
    place.upload(tmp_path / "large")
    assert place.size() == len(data)
    assert b"".join(place.read_parts(len(data))) == data
    with local_copy(place) as copy:
        assert copy.read_bytes() == data
    assert not copy.exists()
    assert uploads_left(place) == []


def test_a_failed_upload_leaves_nothing_visible(place, tmp_path, through: FaultyProxy, monkeypatch) -> None:
    monkeypatch.setattr(object_client, "MAX_ATTEMPTS", 2)
    (tmp_path / "large").write_bytes(os.urandom(2 * PART_BYTES))
    original = S3Path._call

    def fail_from_the_second_part(self: S3Path, method: str, **arguments: object) -> object:
        through.share = 1.0 if arguments.get("PartNumber") == 2 else 0.0
        return original(self, method, **arguments)

    monkeypatch.setattr(S3Path, "_call", fail_from_the_second_part)
    monkeypatch.setattr(object_storage, "_PARTS_AT_ONCE", 1)
    with pytest.raises(MachineError, match=r"upload_part .* failed 2 times"):
        place.upload(tmp_path / "large")
    assert not place.exists()
    assert uploads_left(place) == []


@pytest.mark.slow
def test_failed_requests_are_retried_and_logged(place: S3Path, through: FaultyProxy, caplog) -> None:
    through.share = 0.3
    for number in range(40):
        path = place / str(number)
        path.write_bytes(str(number).encode())
        assert path.read_bytes() == str(number).encode()
        assert path.is_file()
    assert through.refused > 3
    assert through.cut > 3
    logged = [record.getMessage() for record in caplog.records if "attempt 2 of 8" in record.getMessage()]
    assert len(logged) > 6
    assert any("reduce your request rate" in message for message in logged)


def test_a_store_that_never_responds_is_a_machine_error_after_a_limit(place, through: FaultyProxy, monkeypatch) -> None:
    through.share = 1.0
    monkeypatch.setattr(object_client, "MAX_ATTEMPTS", 4)
    before = through.requests
    with pytest.raises(MachineError, match="failed 4 times"):
        place.read_bytes()
    assert through.requests - before in (4, 5)  # the client may ask once for the bucket's region


def test_an_upload_succeeds_if_the_answer_to_its_completion_is_lost(
    place, tmp_path, through: FaultyProxy, monkeypatch
) -> None:
    data = os.urandom(PART_BYTES + 1)
    (tmp_path / "large").write_bytes(data)
    original, failed = S3Path._call, []

    def lose_the_answer(self: S3Path, method: str, **arguments: object) -> object:
        answer = original(self, method, **arguments)
        if method == "complete_multipart_upload" and not failed:
            failed.append(method)
            return original(self, method, **arguments)  # as a retry would
        return answer

    monkeypatch.setattr(S3Path, "_call", lose_the_answer)
    place.upload(tmp_path / "large")
    assert b"".join(place.read_parts(len(data))) == data


def test_lines_that_could_not_be_read_are_read_by_the_next_call(place, through: FaultyProxy, monkeypatch) -> None:
    monkeypatch.setattr(object_client, "MAX_ATTEMPTS", 1)
    place.write_bytes(b"one\n")
    reader = LineReader(place, 1.0)
    with monkeypatch.context() as patch:
        original = S3Path.etag

        def fail_afterwards(self: S3Path) -> str | None:
            found = original(self)
            through.share = 1.0
            return found

        patch.setattr(S3Path, "etag", fail_afterwards)
        assert list(reader.new()) == []
    through.share = 0.0
    assert list(reader.new()) == [b"one\n"]
    assert list(reader.new()) == []


def test_a_missing_bucket_is_a_user_error(s3: str) -> None:
    with pytest.raises(UserError, match="no such bucket"):
        S3Path("no-such-bucket-here", "key").write_bytes(b"")


def test_missing_credentials_are_a_user_error(s3: str, tmp_path, monkeypatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    object_client.forget_client()
    try:
        with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID"):
            S3Path.parse(f"{s3}/key").write_bytes(b"")
    finally:
        object_client.forget_client()


def test_a_folder_is_complete_with_its_manifest(place: S3Path) -> None:
    with atomic_directory(place, manifest="a-manifest.json") as upload:
        write_json(upload.folder / "a-manifest.json", {"whole": True})
        (upload.folder / "sub").mkdir()
        (upload.folder / "sub/z.bin").write_bytes(b"z")
        upload.send("sub/z.bin")
        assert not (upload.folder / "sub/z.bin").exists()
        assert not (place / "a-manifest.json").is_file()
    assert read_json(place / "a-manifest.json") == {"whole": True}
    with pytest.raises(UserError, match="already exists"):
        require_absent(place, "a thing", "", manifest="a-manifest.json")
    with local_copy(place) as copy:
        assert (copy / "sub/z.bin").read_bytes() == b"z"
    with local_copy(place, ["sub/z.bin", "not-there"]) as copy:
        assert [path.name for path in copy.rglob("*") if path.is_file()] == ["z.bin"]


def test_a_folder_whose_writing_failed_has_no_manifest(place: S3Path) -> None:
    def write() -> None:
        with atomic_directory(place, manifest="m.json") as upload:
            (upload.folder / "m.json").write_text("{}")
            (upload.folder / "x").write_text("x")
            upload.send("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert not (place / "m.json").is_file()
    require_absent(place, "a thing", "", manifest="m.json")  # remains are overwritten


def test_a_file_is_written_whole(place: S3Path) -> None:
    def write_half() -> None:
        with atomic_file(place) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert not place.exists()
    with atomic_file(place) as partial:
        partial.write_text("whole")
    assert place.read_text() == "whole"


def test_errors_in_a_copy_name_the_place_it_was_copied_from(place: S3Path) -> None:
    place.write_bytes(b"x")
    with pytest.raises(UserError, match=f"{place} is bad"), local_copy(place) as copy:
        raise UserError(f"{copy} is bad")


def test_threads_can_share_the_store(place: S3Path) -> None:
    def write(number: int) -> None:
        (place / str(number)).write_bytes(bytes([number]) * 1000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((place / str(n)).read_bytes() == bytes([n]) * 1000 for n in range(16))
    assert BUCKET in str(place)
