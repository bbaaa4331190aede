"""Ask a Ray cluster for its versions in a separate process: `python -P ray_probe.py HOST:PORT`.

If something else answers or a token is missing, Ray's client ends its process or waits for minutes. Prints one JSON
object.
"""

import json
import sys


def main() -> int:
    """Print the versions of the cluster and of this process, or that it refuses the token."""
    import ray
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._private.utils import read_ray_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled: mypy sees no names

    # As recorded by `ray start` on this machine, not any process that looks like a cluster.
    address = read_ray_address() if sys.argv[1] == "auto" else sys.argv[1]
    answer: dict[str, object] = {"address": address}
    if address:
        try:
            cluster = get_cluster_metadata(GcsClient(address=address))
            answer["cluster"] = [cluster["ray_version"], cluster["python_version"]]
            answer["here"] = [ray.__version__, ".".join(map(str, sys.version_info[:3]))]
        except ray.exceptions.AuthenticationError:
            answer["refused"] = True
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
