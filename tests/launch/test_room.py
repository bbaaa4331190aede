"""Whether nodes have room for workers, each of which needs one node."""

import pytest

from vadv_dist.config import TrainerConfig
from vadv_dist.errors import UserError
from vadv_dist.launch.cluster import require_room, resources_of_worker
from vadv_dist.launch.room import count_fitting, lacking

CPU, GPU = {"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}


def test_worker_needs_its_resources_on_one_node() -> None:
    fragments = [{"CPU": 3.0}] * 4
    assert count_fitting(fragments, CPU) == 0
    assert lacking(fragments, CPU, 2) == "room for 0 of 2 workers with 4 CPUs each on one node"
    assert count_fitting([{"CPU": 11.0}, {"CPU": 4.0}, {"CPU": 3.0, "GPU": 8.0}], CPU) == 3
    # The GPUs are where the CPUs are not.
    apart = [{"CPU": 64.0}, {"CPU": 5.0, "GPU": 8.0}]
    assert lacking(apart, GPU, 2) == "room for 1 of 2 workers with 4 CPUs and 1 GPU each on one node"
    assert lacking(apart, GPU, 1) == ""
    assert lacking([], GPU, 1) == "room for 0 of 1 worker with 4 CPUs and 1 GPU each on one node"
    assert count_fitting([{"CPU": 9.0, "GPU": 1.0}], {"CPU": 1.0, "GPU": 0.1}) == 9
    assert count_fitting([{"CPU": 9.0}], {"CPU": 2.0, "GPU": 0.0}) == 4


def test_reading_data_needs_a_cpu_that_workers_leave() -> None:
    full, left = [{"CPU": 8.0}], [{"CPU": 4.0}, {"CPU": 5.0}]
    assert lacking(full, CPU, 2) == ""
    assert lacking(full, CPU, 2, spare_cpus=1) == (
        "room for 2 of 2 workers with 4 CPUs each on one node, but not for reading data, which needs 1 CPU more"
    )
    assert lacking(left, CPU, 2, spare_cpus=1) == ""
    assert lacking([*full, *full], CPU, 3, spare_cpus=1) == ""  # where another worker would be


def test_auto_takes_gpus_if_there_is_one_for_each_worker() -> None:
    auto = TrainerConfig(num_workers=(2, 8), use_gpu="auto")
    assert resources_of_worker(auto, 4, gpus=2) == GPU
    assert resources_of_worker(auto, 4, gpus=1) == CPU
    assert resources_of_worker(TrainerConfig(num_workers=2, use_gpu=True), 4, gpus=0) == GPU
    assert resources_of_worker(TrainerConfig(num_workers=2, use_gpu=False), 4, gpus=2) == CPU


def test_workers_that_do_not_fit_the_cluster_are_rejected() -> None:
    two, elastic = TrainerConfig(num_workers=2), TrainerConfig(num_workers=(2, 8))
    require_room(two, GPU, [{"CPU": 9.0, "GPU": 2.0}])
    require_room(elastic, CPU, [{"CPU": 9.0}])
    with pytest.raises(UserError, match=r"cluster has room for 2 of 2 workers .*, but not for reading data, which"):
        require_room(elastic, CPU, [{"CPU": 8.0}])
    with pytest.raises(UserError, match=r"room for 1 of 2 workers with 4 CPUs and 1 GPU each .*use_gpu to false, or"):
        require_room(two, GPU, [{"CPU": 64.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 1.0}])
    with pytest.raises(ValueError, match=r"num_workers is \[4, 2\], expected \[least, most\]"):
        TrainerConfig(num_workers=(4, 2))
