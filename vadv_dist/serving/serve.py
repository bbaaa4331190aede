"""`vadv serve`: load a student, and answer until the process is told to end."""

import json
from collections.abc import Callable

from vadv_dist.serving.settings import ServeSettings, require_packages


def serve(settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve a student from this process.

    Args:
        settings: what and where.
        say: receives the address when requests are answered.
    Raises:
        UserError: a package is missing, the address is in use, or the student cannot be loaded.
    """
    require_packages()

    from vadv_dist.serving.app import Predictor
    from vadv_dist.serving.batcher import Batcher
    from vadv_dist.serving.metrics import ServeMetrics
    from vadv_dist.serving.server import address, listen, run_server
    from vadv_dist.serving.text_model import load_text_model

    with listen(settings) as listener:
        model, facts = load_text_model(settings)

        def build(metrics: ServeMetrics) -> Predictor:
            return Batcher(
                model,
                batch_tokens=model.batch_tokens,
                max_wait_s=settings.max_wait_ms / 1000,
                max_queued=settings.queue,
                observe=metrics.observe_batch,
            )

        url = address(listener)
        run_server(listener, build, facts, settings, lambda: say(_greeting(facts.name, settings, url)))


def _greeting(name: str, settings: ServeSettings, url: str) -> str:
    body = json.dumps({"texts": ["what a wonderful film"]})
    return (
        f"serving the student of {name} ({settings.source}) at {url}\n"
        f"try it there, or: curl -s {url}/predict -H 'Content-Type: application/json' -d '{body}'"
    )
