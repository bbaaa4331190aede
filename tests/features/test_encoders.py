"""Pixels, features, scores and prompts match Hugging Face's classes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import PATCH, SIDE, WIDTH, write_classifier
from tiny_onnx import write_onnx
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BeitImageProcessorPil,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    EfficientNetImageProcessorPil,
    LevitImageProcessorPil,
    MobileNetV2ImageProcessorPil,
    MobileViTImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    ViltImageProcessorPil,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from vadv_dist.config.extract_sections import ExpressionConfig
from vadv_dist.errors import UserError
from vadv_dist.features.encoders import (
    ImageEncoder,
    encoder_facts,
    feature_shape,
    image_preprocessing,
    prompt_embeddings,
)
from vadv_dist.features.expression import ExpressionEncoder, check_expression
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.storage import sha256_file


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    small = [random.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in sizes]
    return [np.asarray(Image.fromarray(image).resize(size)) for image, size in zip(small, sizes, strict=True)]


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessorPil(),
        CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 48, "width": 32}),
        SiglipImageProcessorPil(size={"height": 56, "width": 48}),
        ViTImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False),
        ViTImageProcessorPil(do_rescale=False),
        BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}),  # DINOv2's
        MobileNetV2ImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}),
        BeitImageProcessorPil(size={"height": 56, "width": 56}),
        EfficientNetImageProcessorPil(size={"height": 56, "width": 56}, include_top=False),
        EfficientNetImageProcessorPil(size={"height": 56, "width": 56}, include_top=False, rescale_factor=1 / 127.5),
    ],
    ids=[
        "clip",
        "clip-odd",
        "siglip",
        "vit-plain",
        "vit-bytes",
        "bit",
        "mobilenet",
        "beit",
        "efficientnet",
        "efficientnet-scaled",
    ],
)
def test_pixels_match_the_image_processor(processor) -> None:
    ours = Preprocessing.of_processor(processor, "tiny")
    for image in pictures((64, 48), (30, 100), (224, 224), (361, 287), (333, 500)):
        expected = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
        resized = ours.resized(image)[None]
        torch.testing.assert_close(ours.normalised(resized), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (EfficientNetImageProcessorPil(), r"include_top \(True\)"),  # normalises twice
        (EfficientNetImageProcessorPil(include_top=False, rescale_offset=True), r"rescale_offset \(True\)"),
        (ConvNextImageProcessorPil(), r"crop_pct \(0\.875\)"),
        (MobileViTImageProcessorPil(), r"do_flip_channel_order \(True\)"),
        (ViTImageProcessorPil(do_pad=True), r"do_pad \(True\)"),
        (ViltImageProcessorPil(), r"do_pad \(True\), size_divisor \(32\)"),
        (Siglip2ImageProcessorPil(), r"max_num_patches \(256\), patch_size \(16\)"),
        (ViTImageProcessorPil(do_resize=False), "do_resize False"),
        (CLIPImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 50}), "is not supported"),
        (DeiTImageProcessorPil(), "resizes to .*256.* but crops .*224"),
        (LevitImageProcessorPil(), "produces pixels that differ from its configuration"),  # scales its size by 256/224
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_an_unsupported_processor_is_refused(processor, message: str) -> None:
    with pytest.raises(UserError, match=rf"The image processor of 'tiny'.*{message}"):
        Preprocessing.of_processor(processor, "tiny")


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    known = {"feature_extractor_type": "ViTFeatureExtractor", "processor_class": None, "do_convert_rgb": True}
    file.write_text(json.dumps({**json.loads(file.read_text()), **known}))
    image_preprocessing(str(tmp_path), "expression.encoder")

    class Sharpening(ViTImageProcessorPil):
        def to_dict(self) -> dict:
            return {**super().to_dict(), "sharpen": 0.5}

    with pytest.raises(UserError, match=r"sharpen \(0\.5\)"):
        Preprocessing.of_processor(Sharpening(), "tiny")


def test_pixels_are_compared_with_the_processor_whatever_its_keys() -> None:
    class Negative(ViTImageProcessorPil):
        def _preprocess(self, images, **options):
            return super()._preprocess([255 - image for image in images], **options)

    with pytest.raises(UserError, match="produces pixels that differ from its configuration"):
        Preprocessing.of_processor(Negative(), "tiny")


def test_a_processor_with_another_image_size_than_the_tower_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40}).save_pretrained(folder)
    with pytest.raises(
        UserError, match=f"makes images of 40 by 40 pixels, but its image tower expects {SIDE} by {SIDE}"
    ):
        ImageEncoder(str(folder), "pooled")


def test_clip_features_match_the_model(clip_folder: Path) -> None:
    images = pictures((64, 48), (40, 40), (30, 60))
    processor, model = (
        AutoImageProcessor.from_pretrained(clip_folder, backend="pil"),
        CLIPModel.from_pretrained(clip_folder),
    )
    pixels = processor([Image.fromarray(i) for i in images], return_tensors="pt")
    prepared = image_preprocessing(str(clip_folder), "image.encoder")
    ready = np.stack([prepared.resized(image) for image in images])
    with torch.inference_mode():
        pooled = model.get_image_features(**pixels).pooler_output
        patches = model.vision_model(**pixels).last_hidden_state[:, 1:]
    for tokens, expected in (("pooled", pooled[:, None]), ("patches", patches)):
        features = ImageEncoder(str(clip_folder), tokens).encode(ready)
        assert features.shape[1:] == feature_shape(str(clip_folder), tokens)
        np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)
    assert feature_shape(str(clip_folder), "pooled") == (1, WIDTH)
    assert feature_shape(str(clip_folder), "patches") == ((SIDE // PATCH) ** 2, 32)


def test_bf16_features_are_close_to_fp32(clip_folder: Path) -> None:
    ready = np.stack([image_preprocessing(str(clip_folder), "x").resized(image) for image in pictures((64, 48))])
    exact = ImageEncoder(str(clip_folder), "pooled").encode(ready)
    rough = ImageEncoder(str(clip_folder), "pooled", precision="bf16").encode(ready)
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def test_siglip_features_and_shapes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=SiglipTextConfig(vocab_size=20, max_position_embeddings=16, **small).to_dict(),
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH, **small).to_dict(),
    )
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
    ready = np.stack([image_preprocessing(str(tmp_path), "x").resized(image) for image in pictures((64, 48))])
    with torch.inference_mode():
        pixels = image_preprocessing(str(tmp_path), "x").normalised(ready)
        expected = model.get_image_features(pixel_values=pixels).pooler_output[:, None]
    np.testing.assert_allclose(ImageEncoder(str(tmp_path), "pooled").encode(ready), expected.numpy(), atol=1e-5)
    assert feature_shape(str(tmp_path), "pooled") == (1, 32)
    assert ImageEncoder(str(tmp_path), "patches").encode(ready).shape[1:] == feature_shape(str(tmp_path), "patches")


def test_prompts_match_the_models_text_features(clip_folder: Path) -> None:
    ours = prompt_embeddings(str(clip_folder), "A video with the {class} face", ("negative", "positive"))
    texts = ["A video with the negative face", "A video with the positive face"]
    tokens = AutoTokenizer.from_pretrained(clip_folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(clip_folder).get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
    assert ours.shape == (2, WIDTH)
    np.testing.assert_allclose(ours, expected.pooler_output.numpy(), atol=1e-6)
    assert np.abs(ours[0] - ours[1]).max() > 1e-3


def test_a_prompt_that_would_be_truncated_is_refused(clip_folder: Path) -> None:
    with pytest.raises(UserError, match=r"is 18 tokens long; the text encoder of .* is limited to 16"):
        prompt_embeddings(str(clip_folder), "a " * 15 + "{class}", ["negative", "positive"])
    prompt_embeddings(str(clip_folder), "a " * 13 + "{class}", ["negative", "positive"])


def test_a_multi_label_classifier_gives_no_probabilities(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "problem_type": "multi_label_classification"}))
    config = ExpressionConfig(encoder=str(tmp_path), num_scores=8)
    with pytest.raises(UserError, match=r"Set expression\.scores: raw"):
        check_expression(config)
    check_expression(replace(config, scores="raw"))


def test_another_kind_of_encoder_is_refused(classifier_folder: Path) -> None:
    with pytest.raises(UserError, match="is a 'vit', expected a CLIP or a SigLIP"):
        ImageEncoder(str(classifier_folder), "pooled")
    with pytest.raises(UserError, match=r"Set image\.encoder to"):
        ImageEncoder("/no/such folder", "pooled")


def test_weights_that_lack_tensors_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(clip_folder, tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 of the tensors .* such as visual_projection\.weight"):
        ImageEncoder(str(tmp_path / "clip"), "pooled")


def test_scores_are_a_softmax_of_the_classifiers_logits(classifier_folder: Path) -> None:
    crops = np.stack(pictures((SIDE, SIDE), (SIDE, SIDE)))
    model = ViTForImageClassification.from_pretrained(classifier_folder)
    processor = AutoImageProcessor.from_pretrained(classifier_folder, backend="pil")
    with torch.inference_mode():
        logits = model(**processor([Image.fromarray(c) for c in crops], return_tensors="pt")).logits
    config = ExpressionConfig(encoder=str(classifier_folder))
    np.testing.assert_allclose(ExpressionEncoder(config).encode(crops), logits.softmax(-1).numpy(), atol=1e-6)
    raw = ExpressionEncoder(ExpressionConfig(encoder=str(classifier_folder), scores="raw")).encode(crops)
    np.testing.assert_allclose(raw, logits.numpy(), atol=1e-5)


def test_a_classifier_with_another_number_of_scores_is_refused(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "seven", labels=7)
    with pytest.raises(UserError, match=r"gives 7 scores, but expression\.num_scores is 8"):
        check_expression(ExpressionConfig(encoder=str(folder)))


def test_facts_list_the_files_with_their_hashes(clip_folder: Path) -> None:
    facts = encoder_facts(str(clip_folder))
    hashes = {entry["name"]: entry["sha256"] for entry in facts["files"]}
    assert facts["kind"] == "clip"
    assert hashes["model.safetensors"] == sha256_file(clip_folder / "model.safetensors")
    assert {"config.json", "preprocessor_config.json", "tokenizer.json"} <= hashes.keys()


def test_an_onnx_file_scores_crops_correctly(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    path = write_onnx(tmp_path / "expression.onnx", matrix, SIDE)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    config = ExpressionConfig(encoder=str(path), onnx_side=SIDE, onnx_mean=mean, onnx_std=std, scores="raw")
    assert check_expression(config)["files"][0]["sha256"] == sha256_file(path)
    crops = np.stack(pictures((SIDE, SIDE), (SIDE, SIDE)))
    expected = ((crops / 255).mean(axis=(1, 2)) - mean) / std @ matrix
    np.testing.assert_allclose(ExpressionEncoder(config).encode(crops), expected, atol=1e-5)
    shares = ExpressionEncoder(replace(config, scores="probabilities")).encode(crops)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    with pytest.raises(UserError, match=r"expected one image and \[B, 7\] scores"):
        check_expression(replace(config, num_scores=7))
    with pytest.raises(UserError, match=r"Set expression\.encoder to an ONNX file"):
        check_expression(replace(config, encoder=str(tmp_path / "no.onnx")))


def test_an_unsuitable_onnx_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    path = tmp_path / "expression.onnx"
    config = ExpressionConfig(encoder=str(path), onnx_side=SIDE)
    write_onnx(path, matrix, SIDE, softmax=True)
    with pytest.raises(UserError, match=r"already returns probabilities.*Set expression\.scores: raw"):
        check_expression(config)
    check_expression(replace(config, scores="raw"))
    write_onnx(path, matrix, SIDE + 2)
    with pytest.raises(UserError, match=r"does not take images \[2, 3, \d+, \d+\].*Set expression\.onnx_side"):
        check_expression(config)
    write_onnx(path, matrix, SIDE, batch=1)
    with pytest.raises(UserError, match="does not take images"):
        check_expression(config)
    write_onnx(path, matrix * np.float32(np.nan), SIDE)
    with pytest.raises(UserError, match="NaN or infinity"):
        check_expression(config)
