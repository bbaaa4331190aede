"""CCT, MIT, prompting and the layers between them match transformers' X-CLIP with its weights."""

import pytest
import torch
from torch import Tensor, nn
from transformers import XCLIPConfig, XCLIPModel
from transformers.models.x_clip.modeling_x_clip import (
    XCLIPMLP,
    PromptGeneratorLayer,
    XCLIPAttention,
    XCLIPEncoderLayer,
    XCLIPVisionEncoderLayer,
)

from vadv_dist.models.attention import FeedForward, SelfAttention, TransformerLayer
from vadv_dist.models.branches import VisualBranch
from vadv_dist.models.cct import CrossFrameCommunicationLayer, CrossFrameCommunicationTransformer
from vadv_dist.models.mit import MultiFrameIntegrationTransformer
from vadv_dist.models.prompting import PromptingLayer, VideoSpecificPrompting
from vadv_dist.models.teacher import Teacher

WIDTH, HEADS, BATCH = 32, 4, 3
CLOSE = 1e-5


def make_xclip(frames: int = 3, image: int = 16, layers: int = 2, prompt_layers: int = 2) -> XCLIPModel:
    """An X-CLIP with (image / 8)² patches per frame and random weights of moderate scale."""
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
    config = XCLIPConfig(
        text_config={**sizes, "num_hidden_layers": 1, "vocab_size": 50, "max_position_embeddings": 16},
        vision_config={
            **sizes,
            "num_hidden_layers": layers,
            "image_size": image,
            "patch_size": 8,
            "num_frames": frames,
            "mit_hidden_size": WIDTH,
            "mit_intermediate_size": 4 * WIDTH,
            "mit_num_attention_heads": HEADS,
            "mit_num_hidden_layers": layers,
            "drop_path_rate": 0.0,
        },
        projection_dim=WIDTH,
        prompt_layers=prompt_layers,
        prompt_num_attention_heads=HEADS,
    )
    torch.manual_seed(frames + image + layers)
    model = XCLIPModel(config).eval()
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            nn.init.normal_(parameter, mean=1.0 if is_gain else 0.0, std=0.1)
    return model


def copy_linear(target: nn.Linear | nn.LayerNorm, *sources: nn.Linear | nn.LayerNorm) -> None:
    """Copy a layer, or several stacked into one."""
    target.weight.data.copy_(torch.cat([s.weight for s in sources]))
    if target.bias is not None:
        target.bias.data.copy_(torch.cat([s.bias for s in sources]))


def copy_attention(target: SelfAttention, source: XCLIPAttention) -> None:
    copy_linear(target.query_key_value, source.q_proj, source.k_proj, source.v_proj)
    copy_linear(target.out, source.out_proj)


def copy_feed_forward(target: FeedForward, source: XCLIPMLP) -> None:
    copy_linear(target.expand, source.fc1)
    copy_linear(target.contract, source.fc2)


def copy_block(
    target: TransformerLayer | CrossFrameCommunicationLayer, source: XCLIPEncoderLayer | XCLIPVisionEncoderLayer
) -> None:
    copy_linear(target.norm1, source.layer_norm1)
    copy_attention(target.attention, source.self_attn)
    copy_linear(target.norm2, source.layer_norm2)
    copy_feed_forward(target.feed_forward, source.mlp)
    if isinstance(target, CrossFrameCommunicationLayer):
        copy_linear(target.message, source.message_fc)
        copy_linear(target.message_norm, source.message_ln)
        copy_attention(target.message_attention, source.message_attn)


def copy_cct(target: CrossFrameCommunicationTransformer, model: XCLIPModel) -> None:
    vision = model.vision_model
    target.class_token.data.copy_(vision.embeddings.class_embedding)
    target.positions.data.copy_(vision.embeddings.position_embedding.weight)
    copy_linear(target.norm, vision.pre_layernorm)
    for ours, theirs in zip(target.layers, vision.encoder.layers, strict=True):
        copy_block(ours, theirs)


def copy_mit(target: MultiFrameIntegrationTransformer, model: XCLIPModel) -> None:
    target.positions.data.copy_(model.mit.position_embedding[0])
    for ours, theirs in zip(target.layers, model.mit.encoder.layers, strict=True):
        copy_block(ours, theirs)


def copy_prompting(target: VideoSpecificPrompting, model: XCLIPModel) -> None:
    copy_linear(target.visual_norm, model.prompts_visual_layernorm)
    target.visual_projection.weight.data.copy_(model.prompts_visual_projection.T)
    copy_linear(target.memory_norm, model.prompts_generator.layernorm)
    target.alpha.data.copy_(model.prompts_generator.alpha)
    ours: PromptingLayer
    theirs: PromptGeneratorLayer
    for ours, theirs in zip(target.layers, model.prompts_generator.decoder, strict=True):
        copy_linear(ours.norm1, theirs.norm1)
        copy_linear(ours.attention.query, theirs.cross_attn.q_proj)
        copy_linear(ours.attention.key_value, theirs.cross_attn.k_proj, theirs.cross_attn.v_proj)
        copy_linear(ours.attention.out, theirs.cross_attn.proj)
        copy_linear(ours.norm2, theirs.norm3)
        copy_linear(ours.feed_forward.expand, theirs.mlp[0])
        copy_linear(ours.feed_forward.contract, theirs.mlp[3])


def pixels_and_features(model: XCLIPModel) -> tuple[Tensor, Tensor]:
    """Random videos, and their patch embeddings [B, T, N, D], which correspond to stored features."""
    vision = model.config.vision_config
    pixels = torch.randn(BATCH, vision.num_frames, 3, vision.image_size, vision.image_size)
    patches = model.vision_model.embeddings.patch_embedding(pixels.flatten(0, 1)).flatten(2).transpose(1, 2)
    return pixels, patches.detach().unflatten(0, (BATCH, -1))


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference between tensors of equal shape."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05  # not a comparison of constants
    return float((ours - theirs).detach().abs().max())


@pytest.mark.parametrize(("frames", "image", "layers"), [(1, 8, 1), (3, 16, 1), (2, 24, 3), (5, 8, 2)])
def test_cct_equals_the_vision_encoder(frames: int, image: int, layers: int) -> None:
    model = make_xclip(frames, image, layers)
    num_tokens = (image // 8) ** 2
    cct = CrossFrameCommunicationTransformer(width=WIDTH, heads=HEADS, layers=layers, num_tokens=num_tokens)
    copy_cct(cct, model)
    pixels, features = pixels_and_features(model)

    theirs = model.vision_model(pixels.flatten(0, 1)).last_hidden_state
    assert distance(cct(features), theirs.unflatten(0, (BATCH, frames))) < CLOSE


@pytest.mark.parametrize(("frames", "layers"), [(1, 1), (4, 1), (7, 3)])
def test_mit_equals_the_integration_transformer(frames: int, layers: int) -> None:
    model = make_xclip(frames, layers=layers)
    mit = MultiFrameIntegrationTransformer(width=WIDTH, heads=HEADS, layers=layers, num_frames=frames)
    copy_mit(mit, model)
    frames_BTD = torch.randn(BATCH, frames, WIDTH)

    assert distance(mit(frames_BTD), model.mit(frames_BTD).pooler_output) < CLOSE


@pytest.mark.parametrize(("frames", "num_tokens", "layers"), [(1, 1, 1), (3, 4, 2), (2, 9, 3)])
def test_prompting_equals_the_prompt_generator(frames: int, num_tokens: int, layers: int) -> None:
    model = make_xclip(prompt_layers=layers)
    prompting = VideoSpecificPrompting(width=WIDTH, heads=HEADS, layers=layers, alpha=0.1)
    copy_prompting(prompting, model)
    prompts_CD = torch.randn(5, WIDTH)
    tokens = torch.randn(BATCH, frames, 1 + num_tokens, WIDTH)

    visual = (model.prompts_visual_layernorm(tokens[:, :, 1:]) @ model.prompts_visual_projection).mean(dim=1)
    prompts_BCD = prompts_CD.expand(BATCH, -1, -1)
    assert distance(prompting(prompts_CD, tokens), prompts_BCD + model.prompts_generator(prompts_BCD, visual)) < CLOSE


@pytest.mark.parametrize(("frames", "image"), [(3, 16), (2, 8)])
def test_the_modules_together_equal_the_whole_model_and_its_gradient(frames: int, image: int) -> None:
    model = make_xclip(frames, image)
    branch = VisualBranch(
        shape=(frames, (image // 8) ** 2, WIDTH), width=WIDTH, heads=HEADS, cct_layers=2, mit_layers=2
    )
    prompting = VideoSpecificPrompting(width=WIDTH, heads=HEADS, layers=2, alpha=0.1)
    assert branch.cct is not None
    assert branch.mit is not None
    copy_cct(branch.cct, model)
    copy_linear(branch.frame_norm, model.vision_model.post_layernorm)
    copy_linear(branch.frame_projection, model.visual_projection)
    copy_mit(branch.mit, model)
    copy_prompting(prompting, model)
    pixels, features = pixels_and_features(model)
    input_ids = torch.randint(3, 50, (4, 6))

    theirs = model(input_ids=input_ids, pixel_values=pixels).logits_per_video
    prompts_CD = model.text_projection(model.text_model(input_ids).pooler_output).detach()
    video_BD, tokens = branch(features)
    prompts_BCD = prompting(prompts_CD, tokens)
    ours = nn.functional.cosine_similarity(video_BD[:, None], prompts_BCD, dim=-1)
    assert distance(ours * model.logit_scale.exp(), theirs) < CLOSE

    theirs.square().sum().backward()
    (ours * model.logit_scale.exp()).square().sum().backward()
    for mine, reference in (
        (branch.cct.class_token, model.vision_model.embeddings.class_embedding),
        (branch.cct.layers[0].message.weight, model.vision_model.encoder.layers[0].message_fc.weight),
        (prompting.alpha, model.prompts_generator.alpha),
    ):
        assert reference.grad is not None
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-3, atol=1e-3 * float(reference.grad.abs().max()))


def test_cosine_scores_equal_xclips_with_its_temperature() -> None:
    teacher = Teacher(
        visual_shape=(1, 1, WIDTH), face_shape=None, width=WIDTH, hidden=8, heads=HEADS, cct_layers=1, mit_layers=1,
        prompt_layers=1, prompt_alpha=0.1, prompting="video", similarity="cosine",
    )  # fmt: skip
    video_BD, prompts_BCD = torch.randn(BATCH, WIDTH), torch.randn(BATCH, 2, WIDTH)
    scale = make_xclip().logit_scale.exp()
    normal = prompts_BCD / prompts_BCD.norm(dim=-1, keepdim=True)
    theirs = torch.einsum("bd,bkd->bk", video_BD / video_BD.norm(dim=-1, keepdim=True), scale * normal)
    assert distance(teacher._scores(video_BD, prompts_BCD), theirs) < CLOSE
