"""Clips without words: transcribed by a tiny Wav2Vec2, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from lists import quiet
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from videos import write_list, write_video

from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.features.extract import extract
from vadv_dist.features.speech import RATE, read_sound
from vadv_dist.features.timeline import BadClipError

HEADER = "clip_id,video_id,split,label,text,path"


def write_speech(path: Path) -> Path:
    """Ten frames of video (0.4 s) with a tone of 0.2 s, then silence."""
    tone = np.sin(np.arange(RATE * 2 // 5) * 0.3).astype(np.float32) * (np.arange(RATE * 2 // 5) < RATE // 5)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("pcm_f32le", rate=RATE, layout="mono")
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(tone[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode())
    return path


def write_recogniser(folder: Path) -> Path:
    """A Wav2Vec2 that hears `h` everywhere."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "h": 3}))
    config = Wav2Vec2Config(
        vocab_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(10, 32),
        conv_kernel=(10, 32),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        model.lm_head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 100.0]))
    model.save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def test_the_sound_of_a_part_of_a_file_is_read(tmp_path: Path) -> None:
    uri = str(write_speech(tmp_path / "a.mkv"))
    whole = read_sound(uri, 0.0, 0.4)
    assert len(whole) == pytest.approx(0.4 * RATE, abs=0.01 * RATE)
    assert np.abs(whole[: RATE // 5]).max() > 0.9
    assert np.abs(read_sound(uri, 0.25, 0.35)).max() < 0.01
    write_video(tmp_path / "silent.mp4", frames=6)
    with pytest.raises(BadClipError, match="no words and no sound"):
        read_sound(str(tmp_path / "silent.mp4"), 0.0, 0.2)


def test_clips_without_words_are_transcribed_or_refused(configure, tmp_path: Path) -> None:
    write_speech(tmp_path / "a.mkv")
    write_video(tmp_path / "b.mp4", frames=6)
    write_speech(tmp_path / "c.mkv")
    rows = [("a_0", "a", "train", "1", "", "a.mkv"), ("c_0", "c", "train", "1", "given words", "c.mkv")]
    csv = write_list(tmp_path / "clips.csv", rows[:1], HEADER)
    with pytest.raises(UserError, match=r"clips\.transcribe names a speech recognition model"):
        extract(configure(csv), quiet())
    write_list(
        csv, [*rows[:1], ("b_0", "b", "train", "0", "", "b.mp4"), ("b_1", "b", "train", "0", "said", "b.mp4")], HEADER
    )
    config = configure(csv, max_rejected=0.5)
    clips = replace(config.clips, transcribe=str(write_recogniser(tmp_path / "asr")))
    write_list(csv, [*rows, ("b_0", "b", "train", "0", "", "b.mp4")], HEADER)
    summary = extract(replace(config, clips=clips), quiet())
    assert summary.rejected == {"no words and no sound": 1}
    made = Dataset.open(tmp_path / "out")
    assert list(made.column("train", "text")) == ["h", "given words"]
    assert made.manifest.provenance["encoders"]["transcriber"]["kind"] == "wav2vec2"
    statistics = made.manifest.statistics["train"].words
    assert statistics is not None
    assert statistics.total == 3
