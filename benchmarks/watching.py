"""What all watching costs a training step: loss sums, lines of metrics.jsonl, gauges, progress, and scrapes.

A joint step of a MiniLM student and its teacher, batch 4, with a line every 10 steps (the default). On and off differ
less than two runs do, so the watching is timed itself, inside the training: everything that the loop does for it, as
`vadv train --telemetry.port` does, with model FLOP utilisation. To that comes the time of a scrape, the reader's own
share included, every 15 seconds as in infra/prometheus.
"""

import io
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import urlopen

from material import (
    EnoughError,
    minilm_config,
    run_config,
    sentences,
    train_until_enough,
    write_clips,
    write_untrained_encoder,
)
from measure import Row
from rich.console import Console

from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.records import StepLine
from vadv_dist.training.loop import Trainer
from vadv_dist.training.meter import TermMeter
from vadv_dist.watching.endpoint import serve_metrics
from vadv_dist.watching.progress import ProgressView

_EVERY, _SCRAPE_INTERVAL_S = 10, 15.0


def measure(quick: bool) -> list[Row]:
    """Run the benchmark."""
    num_lines = 3 if quick else 10
    watching, lines, scrapes = _Clock(), [], []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        _, texts = sentences()
        write_clips(Path(scratch) / "data", texts, features=True)
        write_untrained_encoder(Path(scratch) / "encoder", minilm_config())
        config = run_config(Path(scratch), batch_size=4, teacher=True)
        config = replace(config, telemetry=replace(config.telemetry, log_every_steps=_EVERY, peak_flops=1e12))
        port = _free_port()
        gauges = stack.enter_context(serve_metrics("run", port, disk=Path(scratch)))
        view = stack.enter_context(ProgressView(Console(file=io.StringIO()), num_lines * _EVERY, 1))
        stack.enter_context(patch("vadv_dist.watching.endpoint._HOLD_S", 0.0))
        for owner, name in ((Trainer, "_flush_terms"), (TermMeter, "add"), (TermMeter, "end_step")):
            stack.enter_context(patch.object(owner, name, watching.around(getattr(owner, name))))

        def after_line(line: StepLine) -> None:
            view(line)
            assert gauges is not None
            gauges(line)
            lines.append(line)
            if len(lines) == 1:  # the first steps warm up
                watching.seconds = 0.0
            if len(lines) > num_lines:
                raise EnoughError

        train_until_enough(config, Distributed(), LocalWindows, after_line)
        for _ in range(20):
            began = time.perf_counter()
            urlopen(f"http://127.0.0.1:{port}/metrics").read()
            scrapes.append(time.perf_counter() - began)
        gauges = None
    training_s = sum(line.line_s for line in lines[1:])
    scrape_s = sorted(scrapes)[len(scrapes) // 2]
    share = watching.seconds / training_s + scrape_s / _SCRAPE_INTERVAL_S
    steps = num_lines * _EVERY
    return [
        Row(
            "all watching, share of a joint training step, MiniLM student, batch 4",
            "the whole step",
            100 * share,
            1.0,
            "at most",
            f"{1e6 * watching.seconds / steps:.0f} µs of {1e3 * training_s / steps:.0f} ms a step, and a scrape of "
            f"{1e3 * scrape_s:.1f} ms every {_SCRAPE_INTERVAL_S:g} s; {steps} steps",
            unit=" %",
        )
    ]


class _Clock:
    """Adds up the seconds of some functions, one inside the other counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Time a function."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._depth += 1
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - began

        return timed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
