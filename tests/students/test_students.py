"""What holds for every retrieval student."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pairs import AUDIO, CLASSES, STUDENTS, TRAINED, VISUAL, build, clips, rows_of
from student_ranks import NUM_CLIPS, batch_terms
from torch import Tensor

from vadv_dist.evaluation import retrieval
from vadv_dist.objectives.base import weighted_total
from vadv_dist.students.base import RetrievalStudent


def mean_average_precision(student: RetrievalStudent, seed: int = 9) -> float:
    audio, visual, label = clips(160, seed=seed)
    with torch.no_grad():
        pair = student.double().eval()(audio, visual)
    return retrieval.score(np.stack([pair.audio_embedding, pair.visual_embedding], axis=1), label.numpy())["map"]


@pytest.mark.parametrize("name", STUDENTS)
def test_terms_weights_and_description_name_the_same(name: str) -> None:
    student = build(name)
    audio, visual, label = clips(16)
    terms = student.terms(student(audio, visual), rows_of(label))
    names = [term.name for term in student.described]
    assert list(terms) == names
    assert list(student.weights) == names
    assert all(term.trains_student and term.weight == "beta" for term in student.described)
    assert bool(names) != student.in_closed_form


@pytest.mark.parametrize("name", STUDENTS)
def test_an_embedding_depends_on_its_own_vector_alone(name: str) -> None:
    student = build(name).eval()
    audio, visual, _ = clips(12)
    with torch.no_grad():
        whole = student(audio, visual)
        other = student(audio[:5], torch.randn(5, VISUAL, dtype=torch.float64))
        another = student(torch.randn(5, AUDIO, dtype=torch.float64), visual[:5])
    torch.testing.assert_close(other.audio_embedding, whole.audio_embedding[:5], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(another.visual_embedding, whole.visual_embedding[:5], rtol=1e-9, atol=1e-12)
    assert (whole.audio_hidden is None) is (whole.visual_hidden is None) is student.in_closed_form
    if whole.audio_hidden is not None and whole.visual_hidden is not None:
        torch.testing.assert_close(other.audio_hidden, whole.audio_hidden[:5], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(another.visual_hidden, whole.visual_hidden[:5], rtol=1e-9, atol=1e-12)
    if whole.audio_logit is not None:
        assert whole.audio_logit.shape == (12, CLASSES)
        torch.testing.assert_close(other.audio_logit, whole.audio_logit[:5], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_trained_parameter(name: str) -> None:
    student = build(name).train()
    audio, visual, label = clips(32)
    weighted_total(student.terms(student(audio, visual), rows_of(label)), student.weights).backward()
    for parameter_name, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", TRAINED)
def test_training_raises_map_above_that_of_random_projections(name: str) -> None:
    random = np.mean([mean_average_precision(build("random", seed)) for seed in range(5)])
    student = build(name)
    before = mean_average_precision(student)
    student.float().train()
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=3e-3)
    for step in range(150 if name == "vae-cca" else 40):  # the noise of its codes takes time
        audio, visual, label = clips(64, seed=100 + step)
        optimizer.zero_grad()
        weighted_total(
            student.terms(student(audio.float(), visual.float()), rows_of(label)), student.weights
        ).backward()
        optimizer.step()
    after = mean_average_precision(student)
    assert after > random + 0.2, (name, random, before, after)
    assert after > before - 0.01


@pytest.mark.parametrize("name", TRAINED)
def test_rows_that_do_not_count_change_nothing(name: str) -> None:
    student = build(name).eval()
    audio, visual, label = clips(10)

    def results(valid: Tensor, **changed: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        student.zero_grad()
        pair = student(changed.get("audio", audio), changed.get("visual", visual))
        terms = student.terms(pair, rows_of(changed.get("label", label), valid))
        torch.stack([term.double() for term in terms.values()]).sum().backward()
        return terms, [p.grad.clone() for p in student.parameters() if p.grad is not None]

    kept = torch.ones(10)
    kept[[2, 7]] = 0
    terms, gradients = results(kept)
    # Large and of other classes, as a clip that lacks a modality or repeats another might be.
    wild_audio, wild_visual, wild_label = audio.clone(), visual.clone(), label.clone()
    wild_audio[[2, 7]], wild_visual[[2, 7]], wild_label[[2, 7]] = 50.0, 0.0, (label[[2, 7]] + 1) % CLASSES
    other_terms, other_gradients = results(kept, audio=wild_audio, visual=wild_visual, label=wild_label)
    for term, value in terms.items():
        torch.testing.assert_close(other_terms[term], value, rtol=1e-6, atol=1e-9)
    for one, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    rest = kept.bool()
    pair = student(audio[rest], visual[rest])
    for term, value in student.terms(pair, rows_of(label[rest])).items():
        torch.testing.assert_close(value, terms[term], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_without_any_row_that_counts_has_finite_terms(name: str) -> None:
    student = build(name)
    audio, visual, label = clips(6)
    terms = student.terms(student(audio, visual), rows_of(label, torch.zeros(6), 4))
    assert all(term.isfinite() for term in terms.values())
    torch.stack([term.double() for term in terms.values()]).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    script, out = Path(__file__).with_name("student_ranks.py"), folder / "answers.pt"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder / "meeting"), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(outputs)
    answers: dict[str, dict[str, Tensor]] = torch.load(out)
    return answers


@pytest.mark.parametrize("name", TRAINED)
def test_two_ranks_with_half_the_rows_each_equal_one(name: str, two_ranks: dict[str, dict[str, Tensor]]) -> None:
    expected = batch_terms(name, slice(0, NUM_CLIPS))
    assert two_ranks[name].keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(two_ranks[name][key], value, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")
