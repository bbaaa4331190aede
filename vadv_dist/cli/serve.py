"""The command `serve`."""

import argparse
import sys

from vadv_dist.cli.parser import Commands, place
from vadv_dist.errors import UserError


def add_serve_command(commands: Commands) -> None:
    """Add `serve`."""
    serve = commands.add_parser(
        "serve",
        help="answer requests to a student over HTTP",
        description="Serves the student of a run or an export, also as ONNX: POST /predict for texts, or /embed for "
        "vectors of retrieval; GET /healthz, /readyz, /metrics (Prometheus), /openapi.json, and at / a page to try it. "
        "Concurrent requests are computed in common batches. On SIGTERM, running requests are finished. Needs the "
        "extra 'serve'; see docs/serving.md.",
    )
    serve.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for every interface")
    serve.add_argument("--port", type=int, default=8000, help="port to listen at; 0 chooses a free one")
    serve.add_argument("--device", help="a torch device, such as cpu or cuda:1 (default: a GPU if there is one)")
    serve.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="bf16 is faster on a GPU and on some CPUs; auto is bf16 on a GPU that has it, else fp32",
    )
    serve.add_argument("--threads", type=int, help="threads that compute on a CPU (default: torch's choice)")
    serve.add_argument(
        "--batch-tokens",
        type=int,
        help="bound on the tokens of a batch (default: 2048, GPU 32768), or on its vectors (4096)",
    )
    serve.add_argument(
        "--max-wait-ms", type=float, default=2.0, help="time that a request waits for others while nothing is computed"
    )
    serve.add_argument(
        "--queue", type=int, default=2048, help="texts or vectors that may wait; more are refused with 503"
    )
    serve.add_argument("--timeout", dest="timeout_s", type=float, default=20.0, help="seconds for a request; then 504")
    serve.add_argument(
        "--drain",
        dest="drain_s",
        type=float,
        default=3.0,
        help="seconds after SIGTERM in which /readyz is 503 and requests are still accepted",
    )
    serve.add_argument("--max-texts", type=int, default=128, help="texts or vectors of a request")
    serve.add_argument("--max-chars", type=int, default=10_000, help="characters of a text")
    serve.add_argument("--max-body-bytes", type=int, default=1 << 20, help="bytes of a request's body")
    serve.add_argument("--ray", action="store_true", help="compute in replicas on a Ray cluster, with Ray Serve")
    serve.add_argument("--replicas", type=int, help="number of replicas with --ray (default: 2)")
    serve.add_argument(
        "--ray-address",
        help="host:port of the cluster's head with --ray (default: RAY_ADDRESS, else a cluster is started here)",
    )
    serve.set_defaults(call=_serve)


def _serve(options: argparse.Namespace) -> int:
    from vadv_dist.serving.serve import serve
    from vadv_dist.serving.settings import ServeSettings
    from vadv_dist.storage import location

    names = (
        *("host", "port", "device", "precision", "threads", "batch_tokens", "max_wait_ms", "queue", "timeout_s"),
        *("drain_s", "max_texts", "max_chars", "max_body_bytes"),
    )
    settings = ServeSettings(location(options.run), **{name: getattr(options, name) for name in names})
    if not options.ray and (options.replicas is not None or options.ray_address is not None):
        raise UserError("serve: --replicas and --ray-address need --ray.")
    replicas = 2 if options.replicas is None else options.replicas
    if not 1 <= replicas <= 10_000:
        raise UserError(f"serve: --replicas is {replicas}, expected 1 to 10000.")
    serve(
        settings,
        say=lambda text: print(text, flush=True),
        replicas=replicas if options.ray else None,
        ray_address=options.ray_address,
        note=lambda text: print(f"vadv: {text}", file=sys.stderr, flush=True),
    )
    return 0
