"""MB/s of shards read from an S3 store against s3fs's own `cat` of the same objects with the same concurrency.

The store is moto's server in a process of its own on the loopback.
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import Row, alternate, ratio_of_medians

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from s3_server import BUCKET, CREDENTIALS, s3_server

_CONCURRENCY = 4


def measure(quick: bool) -> list[Row]:
    """Run the benchmark with small shards, shards of the made size, and larger ones that are read in parts."""
    with s3_server() as port:
        os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        return [_row(count, megabytes, 3 if quick else 7) for count, megabytes in ((72, 4), (24, 12), (6, 64))]


def _row(count: int, megabytes: int, repeats: int) -> Row:
    from vadv_dist.storage.object_client import file_system
    from vadv_dist.storage.objects import S3Path

    places = [S3Path(BUCKET, f"{megabytes}/{number:05d}.parquet") for number in range(count)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(megabytes << 20))
        file.flush()
        for place in places:
            place.upload(Path(file.name))
    names = [f"{place.bucket}/{place.key}" for place in places]
    client = file_system(os.getpid())

    def ours() -> None:
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            for data in pool.map(lambda place: b"".join(place.read_parts(megabytes << 20)), places):
                assert len(data) == megabytes << 20

    def theirs() -> None:
        assert len(client.cat(names, batch_size=_CONCURRENCY)) == count

    seconds = alternate({"ours": ours, "theirs": theirs}, repeats)
    rates = {name: count * megabytes / sorted(times)[len(times) // 2] for name, times in seconds.items()}
    return Row(
        f"MB/s from an object store, {count} shards of {megabytes} MB, {_CONCURRENCY} at once",
        "`s3fs.cat` of the same",
        ratio_of_medians(seconds["theirs"], seconds["ours"]),
        0.8,
        "at least",
        f"{rates['ours']:.0f} against {rates['theirs']:.0f} MB/s",
    )
