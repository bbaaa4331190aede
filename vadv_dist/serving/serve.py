"""`vadv serve`: load a student, and answer until the process is stopped."""

from collections.abc import Callable
from functools import partial

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

    from vadv_dist.serving.load import load_model, verified_service
    from vadv_dist.serving.server import address, listen, run_server
    from vadv_dist.serving.service import Service

    def greet(service: Service, place: str) -> None:
        body = f"'{service.example}'" if "…" not in service.example else "@vectors.json"
        say(
            f"serving the student of {service.name} ({settings.source}) at {url}, {place}\n"
            f"try it there, or: curl -s {url}{service.path} -H 'Content-Type: application/json' -d {body}"
        )

    with listen(settings) as listener:
        url = address(listener)
        if replicas is not None:
            from vadv_dist.serving import ray_serve

            service = verified_service(settings)
            port = listener.getsockname()[1]
            with ray_serve.replicas(settings, replicas, port, ray_address, note) as build_there:
                place = f"computing in {replicas} replica{'s' if replicas > 1 else ''} on Ray"
                run_server(listener, build_there, service, settings, lambda: greet(service, place))
            return

        loaded = load_model(settings)
        place = f"computing on {loaded.place}"
        run_server(
            listener, partial(loaded.batcher, settings), loaded.service, settings, lambda: greet(loaded.service, place)
        )
