import json
from pathlib import Path

import pytest

from vadv_dist.config import load_config
from vadv_dist.training.flops import clip_flops, utilisation
from vadv_dist.training.splits import Splits


def test_student_flops_match_its_matrices(write_config, made: Path) -> None:
    config = load_config(write_config(), ["--objective.kind=none", "--data.max_tokens=41"])
    encoder = json.loads((made / "encoder" / "config.json").read_text())
    width, wide, layers = encoder["hidden_size"], encoder["intermediate_size"], encoder["num_hidden_layers"]
    # A product of matrices counts twice its multiplications; backward takes two of them for each one of forward.
    per_token = 6 * layers * (4 * width**2 + 2 * width * wide)
    head = 6 * (width * config.student.hidden + config.student.hidden)
    attention = 12 * layers * width  # times tokens squared: queries by keys, and weights by values

    def by_hand(tokens: int) -> int:
        return per_token * tokens + attention * tokens**2 + head

    flops = clip_flops(config, Splits.open(config).train.sources)
    assert flops.of(1, 1) == by_hand(1)
    assert flops.of(1, 41) == by_hand(41)
    assert flops.of(2, 42) == by_hand(1) + by_hand(41)


def test_teacher_flops_do_not_depend_on_the_text(write_config) -> None:
    alone = load_config(write_config(), ["--objective.kind=none"])
    taught = load_config(write_config())
    sources = Splits.open(taught).train.sources
    first, second = clip_flops(alone, Splits.open(alone).train.sources), clip_flops(taught, sources)
    assert second.per_token == first.per_token
    assert second.per_clip > 2 * first.per_clip


def test_a_frozen_encoder_has_no_backward(write_config) -> None:
    plain = load_config(write_config(), ["--objective.kind=none"])
    frozen = load_config(write_config(), ["--objective.kind=none", "--student.freeze_encoder=true"])
    sources = Splits.open(plain).train.sources
    assert clip_flops(frozen, sources).per_token == pytest.approx(clip_flops(plain, sources).per_token / 3)


def test_utilisation_is_a_share_of_all_devices_peak(write_config) -> None:
    config = load_config(write_config(), ["--telemetry.peak_flops=1e10"])
    sources = Splits.open(config).train.sources
    share = utilisation(config, sources, 2)
    assert share is not None
    assert share(16, 300, 0.5) == pytest.approx(clip_flops(config, sources).of(16, 300) / 0.5 / 2e10)
    assert utilisation(load_config(write_config()), sources, 2) is None
