"""Every retrieval student leaves as plain towers that embed as it does."""

import pytest
import torch
from made_pairs import AUDIO, STUDENTS, VISUAL, build
from torch.nn.functional import normalize

from vadv_dist.inference.towers import towers_of


@pytest.mark.parametrize("name", STUDENTS)
def test_towers_embed_as_the_student(name: str) -> None:
    student = build(name).float().eval()
    towers = towers_of(student, {"audio": AUDIO, "visual": VISUAL})
    audio, visual = torch.randn(9, AUDIO), torch.randn(4, VISUAL)
    with torch.no_grad():
        pair, found = student(audio, visual), towers(audio, visual)
    for mine, wanted in zip(found, (pair.audio_embedding, pair.visual_embedding), strict=True):
        torch.testing.assert_close(mine, normalize(wanted, dim=1), rtol=0, atol=1e-5)
    assert not {name for name, _ in towers.named_buffers() if "classifier" in name}
