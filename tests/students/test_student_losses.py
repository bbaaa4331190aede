"""Each student's losses against loops that follow its source row by row, in float64."""

import itertools
import math

import pytest
import torch
from made_pairs import CLASSES, build, clips, rows_of
from torch import Tensor

from vadv_dist.objectives.outputs import PairOutputs
from vadv_dist.students.c_dcca import CDcca
from vadv_dist.students.cctl import complete_triplets
from vadv_dist.students.cluster_cca import batch_covariances, solve
from vadv_dist.students.dclma import contrast
from vadv_dist.students.dscmr import pair_likelihood
from vadv_dist.students.instance_loss import ranking

NUM = 7
EVERY = torch.ones(NUM, dtype=torch.bool)


def cosine(left: Tensor, right: Tensor) -> float:
    return float(left @ right / (left.norm() * right.norm()))


def embeddings(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(NUM, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return one, other, torch.randint(3, (NUM,), generator=generator)


def outputs_of(name: str) -> tuple[PairOutputs, dict[str, Tensor], Tensor]:
    student = build(name).eval()
    audio, visual, label = clips(NUM)
    with torch.no_grad():
        pair = student(audio, visual)
        return pair, student.terms(pair, rows_of(label)), label


def test_pair_likelihood_is_that_of_dscmr() -> None:
    left, right, label = embeddings()
    losses = []
    for i, j in itertools.product(range(NUM), repeat=2):
        theta = cosine(left[i], right[j]) / 2
        losses.append(math.log(1 + math.exp(theta)) - (theta if label[i] == label[j] else 0.0))
    found = pair_likelihood(left, right, label, EVERY)
    assert found.item() == pytest.approx(sum(losses) / NUM**2, rel=1e-10)


@pytest.mark.parametrize("name", ["dscmr", "vae-cca"])
def test_row_terms_are_means_of_euclidean_distances(name: str) -> None:
    pair, terms, label = outputs_of(name)
    target = torch.nn.functional.one_hot(label, CLASSES)
    by_rows = sum(
        float((logit[i] - target[i]).square().sum().sqrt())
        for logit in (pair.audio_logit, pair.visual_logit)
        for i in range(NUM)
    )
    gaps = sum(float((pair.audio_embedding[i] - pair.visual_embedding[i]).square().sum().sqrt()) for i in range(NUM))
    assert terms["discrimination"].item() == pytest.approx(by_rows / NUM, rel=1e-10)
    assert terms["invariance"].item() == pytest.approx(gaps / NUM, rel=1e-10)


def test_distance_of_equal_rows_has_a_finite_gradient() -> None:
    student = build("dscmr")
    same = torch.zeros(NUM, 16, dtype=torch.float64, requires_grad=True)
    logit = torch.nn.functional.one_hot(torch.zeros(NUM, dtype=torch.long), CLASSES).double().requires_grad_()
    terms = student.terms(PairOutputs(same, same, logit, logit), rows_of(torch.zeros(NUM)))
    torch.stack(list(terms.values())).sum().backward()
    assert same.grad.isfinite().all()
    assert logit.grad.isfinite().all()


def test_autoencoder_terms_are_those_of_the_published_code() -> None:
    pair, terms, label = outputs_of("vae-cca")
    student = build("vae-cca").requires_grad_(False)
    reconstruction, divergence, center = 0.0, 0.0, 0.0
    for side in (pair.own[:4], pair.own[4:]):
        values, output, mean, log_variance = side
        reconstruction += float((values - output).square().mean())  # nn.MSELoss
        divergence += float(0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum()) / NUM
        squared = (mean - student.centers[label]).square().sum(1)  # the code is the mean outside training
        count = torch.tensor([(label == c).sum() for c in label])
        center += 0.5 * (0.5 / 2 * float((squared / count).mean()))
    assert terms["reconstruction"].item() == pytest.approx(reconstruction, rel=1e-9)
    assert terms["divergence"].item() == pytest.approx(divergence, rel=1e-9)
    assert terms["center"].item() == pytest.approx(center, rel=1e-9)
    centred = [one - one.mean(1, keepdim=True) for one in (pair.audio_embedding, pair.visual_embedding)]
    likelihood = sum(float(pair_likelihood(centred[i], centred[j], label, EVERY)) for i, j in ((0, 0), (0, 1), (1, 1)))
    assert terms["similarity"].item() == pytest.approx(likelihood, rel=1e-9)


def test_codes_are_drawn_in_training_only() -> None:
    student = build("vae-cca")
    audio, visual, _ = clips(NUM)
    torch.manual_seed(0)
    first, second = (student.train()(audio, visual).audio_embedding for _ in range(2))
    assert not torch.equal(first, second)
    fixed, again = (student.eval()(audio, visual).audio_embedding for _ in range(2))
    assert torch.equal(fixed, again)


def test_contrast_of_dclma() -> None:
    left, right, _ = embeddings()
    own = [math.log(1 + math.exp(0.2 - cosine(left[i], right[i]))) for i in range(NUM)]
    pairs = itertools.permutations(range(NUM), 2)
    apart = [math.log(1 + math.exp(cosine(left[i], right[j]) - 0.2)) for i, j in pairs]
    expected = 0.5 * sum(own) / NUM + 0.5 * sum(apart) / (NUM * (NUM - 1))
    assert contrast(left, right, EVERY, 0.2).item() == pytest.approx(expected, rel=1e-10)


def test_ranking_of_the_instance_loss() -> None:
    left, right, label = embeddings()
    distance = torch.tensor([[1 - cosine(a, b) for b in right] for a in left])
    others = [(i, j) for i, j in itertools.product(range(NUM), repeat=2) if label[i] != label[j]]
    expected = [max(0.0, float(distance[i, i] - distance[i, j]) + 0.4) for i, j in others]
    found = ranking(distance, label[:, None] != label[None, :], 0.4)
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-6)


def test_complete_triplets_are_all_triplets_across_the_modalities() -> None:
    audio, visual, label = embeddings(1)
    margin, combinations = 0.5, []
    for anchor, positive, negative in itertools.product((0, 1), repeat=3):
        if anchor == positive == negative:
            continue
        sides = (audio, visual)
        losses = []
        for i, j, k in itertools.product(range(NUM), repeat=3):
            if label[i] != label[j] or label[i] == label[k] or (anchor == positive and i == j):
                continue
            near = 1 - cosine(sides[anchor][i], sides[positive][j])
            far = 1 - cosine(sides[anchor][i], sides[negative][k])
            if near - far + margin > 0:
                losses.append(near - far + margin)
        combinations.append(sum(losses) / len(losses))
    assert len(combinations) == 6
    found = complete_triplets(audio, visual, label, EVERY, margin)
    assert found.item() == pytest.approx(sum(combinations) / 6, rel=1e-9)


def test_correlation_of_deep_cca_is_that_of_its_projected_outputs() -> None:
    student = build("c-dcca").eval()
    assert isinstance(student, CDcca)
    audio, visual, label = clips(60)
    pair = student(audio, visual)
    every = torch.ones(60, dtype=torch.bool)
    covariances = batch_covariances(*pair.own, label, every, CLASSES, paired=0.2)
    best = solve(covariances, components=student.components, ridge=1e-3)
    assert student.terms(pair, rows_of(label))["correlation"].item() == pytest.approx(
        -best.correlations.sum().item(), rel=1e-6
    )
    assert (best.correlations <= 1).all()


def test_running_projections_come_to_those_of_the_data_and_evaluation_keeps_them() -> None:
    student = build("c-dcca")
    assert isinstance(student, CDcca)
    for seed in range(30):
        audio, visual, label = clips(200, seed=seed)
        student.train().terms(student(audio, visual), rows_of(label))
    kept = student.linear.audio_map.clone()
    audio, visual, label = clips(3000, seed=99)
    with torch.no_grad():
        pair = student(audio, visual)
        student.terms(pair, rows_of(label))
    assert torch.equal(student.linear.audio_map, kept)
    every = torch.ones(3000, dtype=torch.bool)
    covariances = batch_covariances(*pair.own, label, every, CLASSES, paired=0.2)
    best = solve(covariances, components=3, ridge=1e-3)
    audio_BK = (pair.own[0] - covariances.mean_x) @ best.x
    for k in range(3):
        found = torch.corrcoef(torch.stack([audio_BK[:, k], pair.audio_embedding[:, k]]))[0, 1]
        assert found.item() > 0.9


def test_implicit_subspace_of_eics_is_the_space_of_labels_and_the_explicit_one_draws_pairs_together() -> None:
    pair, terms, label = outputs_of("eics")
    audio, visual = pair.audio_embedding, pair.visual_embedding
    for embedding, logit in ((audio, pair.audio_logit), (visual, pair.visual_logit)):
        torch.testing.assert_close(embedding[:, 16:], torch.nn.functional.normalize(logit, dim=1))
        torch.testing.assert_close(embedding[:, :16].norm(dim=1), torch.ones(NUM, dtype=torch.float64))
    target = torch.nn.functional.one_hot(label, CLASSES)
    implicit = sum(float((logit - target).norm(dim=1).mean()) for logit in (pair.audio_logit, pair.visual_logit))
    explicit = sum(2 - 2 * cosine(audio[i, :16], visual[i, :16]) for i in range(NUM)) / NUM
    gap = float((audio[:, :16].mean(0) - visual[:, :16].mean(0)).square().sum())
    assert terms["implicit"].item() == pytest.approx(implicit, rel=1e-9)
    assert terms["explicit"].item() == pytest.approx(explicit, rel=1e-9)
    assert terms["gap"].item() == pytest.approx(gap, rel=1e-9)
