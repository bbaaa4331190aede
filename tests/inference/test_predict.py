import os

import numpy as np
import pytest
import torch
from tiny_students import TEXTS, make_student, one_by_one

from vadv_dist.errors import UserError
from vadv_dist.inference.export import load_student
from vadv_dist.inference.fast_student import MODEL_TYPES, FastStudent, is_supported
from vadv_dist.inference.predict import Student, open_text_student, predict_texts


@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
def test_predictions_are_in_order_and_do_not_depend_on_batching(export, student, tokenizer, batch_tokens):
    expected = one_by_one(student, tokenizer)
    scores = Student.load(export, batch_tokens=batch_tokens, device="cpu").predict(TEXTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert len({round(score, 3) for score in expected}) == len(TEXTS), "texts must differ for the order to show"


def test_a_run_predicts_like_its_export(run_folder, student, tokenizer):
    np.testing.assert_allclose(predict_texts(run_folder, TEXTS), one_by_one(student, tokenizer), atol=1e-5)


def test_what_onednn_keeps_of_shapes_is_bounded_unless_the_user_says_otherwise(export, monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    open_text_student(export, device="cpu")
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    open_text_student(export, device="cpu")
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "0"


def test_an_encoder_outside_the_bert_family_predicts_too(tokenizer, tmp_path):
    student = make_student(tmp_path / "encoder", "mpnet", pooling="mean")
    assert not is_supported(student.encoder)
    expected = one_by_one(student, tokenizer)
    np.testing.assert_allclose(Student(student, tokenizer, 10, device="cpu").predict(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
@pytest.mark.parametrize("num_tokens", [9, 140], ids=["short", "long"])
def test_fast_student_equals_the_student_with_and_without_padding(model_type, pooling, num_tokens, tmp_path):
    student = make_student(tmp_path / "encoder", model_type, pooling=pooling, max_position_embeddings=150)
    fast = FastStudent(student)
    input_ids = torch.randint(5, 18, (3, num_tokens))
    mask = torch.ones_like(input_ids)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(fast(input_ids, mask), student(input_ids, mask), atol=1e-5, rtol=1e-5)
        input_ids[0, 4:] = student.encoder.config.pad_token_id
        mask[0, 4:] = 0


@pytest.mark.parametrize(("model_type", "pooling"), [("bert", "cls"), ("bert", "mean"), ("mpnet", "mean")])
def test_bf16_computes_the_encoder_in_bfloat16_and_the_head_in_fp32(tokenizer, tmp_path, model_type, pooling):
    student = make_student(tmp_path / "encoder", model_type, pooling=pooling)
    expected = np.array(one_by_one(student, tokenizer))
    short = Student(student, tokenizer, 10, device="cpu", precision="bf16")
    found = short.predict(TEXTS)
    assert {p.dtype for p in short.student.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in short.student.dense.parameters()} == {torch.float32}
    assert 1e-5 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_chunks_are_predicted_in_order_whatever_their_sizes(export, monkeypatch):
    student = Student.load(export, device="cpu")
    expected = student.predict(TEXTS)
    found = list(student.predict_chunks(iter([TEXTS[:1], [], TEXTS[1:4], TEXTS[4:]])))
    assert [len(part) for part in found] == [1, 0, 3, 2]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)
    monkeypatch.setattr(student, "chunk_rows", 4)
    np.testing.assert_allclose(student.predict(TEXTS), expected, atol=1e-6)
    assert student.counts.texts == 3 * len(TEXTS)


def test_an_error_in_reading_a_later_chunk_is_raised(export):
    def chunks():
        yield TEXTS
        raise UserError("the file ends here")

    found = Student.load(export, device="cpu").predict_chunks(chunks())
    assert len(next(found)) == len(TEXTS)
    with pytest.raises(UserError, match="ends here"):
        next(found)


def test_no_texts_give_no_predictions(export):
    assert predict_texts(export, []).shape == (0,)


def test_empty_text_is_refused_with_its_number(export):
    with pytest.raises(UserError, match="Text 2 is empty"):
        predict_texts(export, ["fine", "  "])


@pytest.mark.parametrize("fits", [1, 4, 12])
def test_a_batch_that_does_not_fit_in_memory_is_computed_in_halves(export, fits, monkeypatch, caplog):
    student = Student.load(export, device="cpu", batch_tokens=40)
    expected = student.predict(TEXTS)
    compute = student.student.forward

    def limited(padded_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        if padded_BL.shape[0] > 1 and padded_BL.numel() > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(padded_BL, mask_BL)

    monkeypatch.setattr(student.student, "forward", limited)
    np.testing.assert_allclose(student.predict(TEXTS), expected, atol=1e-6)
    assert student.batch_tokens < 20
    assert f"batches have at most {student.batch_tokens} tokens" in caplog.text
    monkeypatch.setattr(student.student, "forward", lambda *_: limited(torch.zeros(2, 50), torch.zeros(2, 50)))
    with pytest.raises(torch.OutOfMemoryError):  # not even one text fits
        student.predict(TEXTS[:1])


def test_missing_device_is_refused(export):
    student, tokenizer, max_tokens = load_student(export)
    for device, what in (("abacus", "is unknown, expected cpu, cuda"), ("cuda:99", "cannot be used")):
        with pytest.raises(UserError, match=f"Device '{device}' {what}"):
            Student(student, tokenizer, max_tokens, device=device)
