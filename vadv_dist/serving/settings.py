"""What a server is started with."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from vadv_dist.errors import UserError
from vadv_dist.storage import Location


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server.

    Args:
        source: a run or an export.
        host, port: where to listen; port 0 chooses a free one.
        device, precision: as in `Student`; only `cpu` for ONNX files and students of retrieval.
        threads: threads of torch; None leaves its choice.
        batch_tokens: bound on the tokens of a batch, where a vector counts as one; None chooses one for the device.
        max_wait_ms: time that a text or vector waits for others to fill its batch; what arrives during a batch waits no
            longer.
        queue: texts or vectors that may wait; a request beyond them is refused with 503.
        timeout_s: time for a request, after which it is answered with 504.
        drain_s: time after SIGTERM in which requests are still accepted, for load balancers to notice.
        max_texts, max_chars: bounds on the texts or vectors of a request, and on the characters of a text.
        max_body_bytes: bound on a request's body.
    Raises:
        UserError: a value is out of range.
    """

    source: Location
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = None
    batch_tokens: int | None = None
    max_wait_ms: float = 2.0
    queue: int = 2048
    timeout_s: float = 20.0
    drain_s: float = 3.0
    max_texts: int = 128
    max_chars: int = 10_000
    max_body_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        bounds = {
            "port": (0, 65535),
            "threads": (1, 4096),
            "batch_tokens": (1, 1 << 24),
            "max_wait_ms": (0, 60_000),
            "queue": (1, 1 << 24),
            "timeout_s": (0.01, 86_400),
            "drain_s": (0, 3600),
            "max_texts": (1, 1 << 20),
            "max_chars": (1, 1 << 24),
            "max_body_bytes": (64, 1 << 30),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                option = f"--{name.replace('_', '-').removesuffix('-s')}"
                raise UserError(f"serve: {option} is {value:g}, expected {low:g} to {high:g}.")
        if self.max_texts > self.queue:
            raise UserError(
                f"serve: --max-texts is {self.max_texts}, but --queue holds {self.queue} texts, so that a request of "
                "that size would always be refused. Raise --queue, or lower --max-texts."
            )


def require_packages() -> None:
    """Check that the packages of the extra `serve` are installed.

    Raises:
        UserError: one is missing.
    """
    for name in ("fastapi", "uvicorn"):
        if find_spec(name) is None:
            raise UserError(f'vadv serve needs the package {name}. Install it: pip install "vadv-dist[serve]".')
