"""Train many configurations on the same two Ray Train workers, `SCRIPT CONFIG...`: not a test itself."""

import sys
from pathlib import Path
from typing import Any

from vadv_dist.config import config_to_dict, load_config
from vadv_dist.launch.cluster import ray_session
from vadv_dist.runs.folder import RunFolder


def train_each(arguments: dict[str, Any]) -> None:
    import ray.train
    import torch

    from vadv_dist.config import config_from_dict
    from vadv_dist.data.windows import RayWindows
    from vadv_dist.engines.distributed import Distributed
    from vadv_dist.launch.worker import train_rank

    context = ray.train.get_context()
    distributed = Distributed(context.get_world_rank(), context.get_world_size(), torch.device("cpu"))
    for number, raw in enumerate(arguments["configs"]):
        config = config_from_dict(raw)
        train_rank(config, distributed, lambda split, name=f"kinds-{number}": RayWindows(split, name))


def main(paths: list[str]) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    configs = [load_config(Path(path)) for path in paths]
    for config in configs:
        RunFolder.of(config).claim(config)
    with ray_session(configs[0].trainer) as worker:
        TorchTrainer(
            train_each,
            train_loop_config={"configs": [config_to_dict(config) for config in configs]},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker=worker),
            run_config=RunConfig(name="workers", storage_path=str(Path(paths[0]).parent / "ray")),
        ).fit()


if __name__ == "__main__":
    main(sys.argv[1:])
