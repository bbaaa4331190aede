"""`vadv serve`: load a student, and answer until the process is stopped."""

import json
from collections.abc import Callable

from vadv_dist.serving.settings import ServeSettings, require_packages


def serve(
    settings: ServeSettings,
    say: Callable[[str], None],
    *,
    replicas: int | None = None,
    ray_address: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a student until SIGTERM or Ctrl-C.

    Args:
        settings: what and where.
        say: receives the address when requests are answered.
        replicas: number of replicas on a Ray cluster that compute; None computes in this process.
        ray_address: the cluster; None leaves it to `RAY_ADDRESS`, without which one is started here.
        note: receives what is waited for.
    Raises:
        UserError: a package is missing, the address is in use, or the student cannot be loaded.
        MachineError: the cluster does not answer, or the replicas do not start.
    """
    require_packages()

    from vadv_dist.serving.app import Predictor
    from vadv_dist.serving.batcher import Batcher
    from vadv_dist.serving.metrics import ServeMetrics
    from vadv_dist.serving.server import address, listen, run_server

    with listen(settings) as listener:
        url = address(listener)
        if replicas is not None:
            from vadv_dist.serving import ray_serve
            from vadv_dist.serving.text_model import verified_facts

            facts = verified_facts(settings.source)
            port = listener.getsockname()[1]
            with ray_serve.replicas(settings, replicas, port, ray_address, note) as build_there:
                run_server(listener, build_there, facts, settings, lambda: say(_greeting(facts.name, settings, url)))
            return

        from vadv_dist.serving.text_model import load_text_model

        model, facts = load_text_model(settings)

        def build(metrics: ServeMetrics) -> Predictor:
            return Batcher(
                model,
                batch_tokens=model.batch_tokens,
                max_wait_s=settings.max_wait_ms / 1000,
                max_queued=settings.queue,
                observe=metrics.observe_batch,
            )

        greeting = _greeting(facts.name, settings, url, f", computing on {model.student.place}")
        run_server(listener, build, facts, settings, lambda: say(greeting))


def _greeting(name: str, settings: ServeSettings, url: str, place: str = "") -> str:
    body = json.dumps({"texts": ["what a wonderful film"]})
    return (
        f"serving the student of {name} ({settings.source}) at {url}{place}\n"
        f"try it there, or: curl -s {url}/predict -H 'Content-Type: application/json' -d '{body}'"
    )
