"""Shared fixtures: synthetic data, small configurations, real data if available."""

import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ray_nodes import Cluster, start_cluster

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell's background job ignores Ctrl-C, and so would the commands started by tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

# The slowest files: if they start first, two processes end at about the same time.
_FIRST = ("test_ray.py", "test_ray_pools.py", "test_ray_metrics.py", "test_engines.py", "test_extract.py")

gc.disable()  # until all test modules are imported


def pytest_collection_finish() -> None:
    """Enable garbage collection again, without scanning the objects created by imports."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first, then those that take seconds; otherwise keep the order."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        if item.path.name in _FIRST:
            return _FIRST.index(item.path.name)
        return len(_FIRST) + (item.path not in slow)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: with tiny tensors, synchronising several takes a hundred times longer than computing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """A CUDA device, for tests marked `gpu`."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is at hand")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data, for tests marked `real_data`."""
    if not REAL_DATA.is_dir():
        pytest.skip("../shared/data is not at hand")
    return REAL_DATA


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of 150 clips with all modalities."""
    from vadv_dist.data.synth import make_dataset

    out = tmp_path_factory.mktemp("made") / "data"
    make_dataset(out, num_clips=150, seed=3)
    return out


@pytest.fixture(scope="session")
def made_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of 60 clips with all modalities and three classes."""
    from vadv_dist.data.synth import make_dataset

    out = tmp_path_factory.mktemp("made-classes") / "data"
    make_dataset(out, num_clips=60, seed=3, num_classes=3)
    return out


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Port of an S3 server in a separate process, configured in this process's AWS variables."""
    from s3_server import CREDENTIALS, s3_server

    from vadv_dist.storage import object_client

    with s3_server() as port, pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(name, value)
        object_client.forget_client()  # an earlier test may have created a client without credentials
        yield port


@pytest.fixture(scope="session")
def s3(s3_port: int) -> str:
    """URI of a bucket."""
    from s3_server import BUCKET

    return f"s3://{BUCKET}"


@pytest.fixture(scope="session")
def cluster(s3_port: int) -> Iterator[Cluster]:
    """A Ray head in separate processes that are configured for the S3 server."""
    with start_cluster(cpus=5) as cluster:
        yield cluster


@pytest.fixture
def joined(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process joins the cluster, which saves the start of another one."""
    import ray

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, cluster.environment[name])
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of audio and visual vectors with classes; some clips lack a modality."""
    from events import make_events

    out = tmp_path_factory.mktemp("events") / "data"
    make_events(out)
    return out


@pytest.fixture
def write_retrieval_config(events: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a small retrieval run's config file; `student` and `objective` are YAML."""

    def write(
        name: str = "run", uri: object = events, student: str = "{kind: eics, hidden: 16}", objective: str = "step"
    ) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"""
run: {{name: {name}, storage: {tmp_path / "runs"}, seed: 5}}
task: retrieval
data: {{sources: [{{uri: {uri}}}], batch_size: 16, missing: mask}}
teacher: {{use_face: false, width: 8, heads: 2, hidden: 8}}
student: {student}
objective: {objective}
optimizer: {{lr: 1.0e-3, warmup_steps: 3}}
trainer: {{epochs: 2, use_gpu: false, checkpoint_every_epochs: 1}}
telemetry: {{log_every_steps: 1}}
"""
        )
        return path

    return write


@pytest.fixture
def write_config(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a small run's config file; dotted overrides such as `trainer.epochs=1` replace its values."""

    def write(name: str = "run", uri: object = made, storage: object = None, extra: str = "") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"""
run: {{name: {name}, storage: {storage or tmp_path / "runs"}, seed: 5}}
data: {{sources: [{{uri: {uri}}}], batch_size: 16}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 1.0, warmup_steps: 3}}
trainer: {{epochs: 2, use_gpu: false, checkpoint_every_epochs: 1}}
telemetry: {{log_every_steps: 1}}
{extra}
"""
        )
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)
