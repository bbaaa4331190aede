"""Clips without words: transcribed by a tiny Wav2Vec2 or Whisper, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from lists import quiet
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from videos import write_list, write_video

from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.features.extract import extract
from vadv_dist.features.speech import RATE, Transcriber, read_sound
from vadv_dist.features.timeline import BadClipError
from vadv_dist.storage import join, location

HEADER = "clip_id,video_id,split,label,text,path"


def write_speech(path: Path, seconds: float = 0.4) -> Path:
    """Video of 25 frames per second with a tone, whose second half is silent."""
    samples = round(RATE * seconds)
    tone = np.sin(np.arange(samples) * 0.3).astype(np.float32) * (np.arange(samples) < samples // 2)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("pcm_f32le", rate=RATE, layout="mono")
        for _ in range(round(25 * seconds)):
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


def write_whisper(folder: Path) -> Path:
    """A Whisper whose decoder hears `h` three or four times in every part of 30 seconds."""
    names = ["endoftext", "startoftranscript", "en", "translate", "transcribe", "startoflm", "startofprev", "nospeech"]
    special = [f"<|{name}|>" for name in [*names, "notimestamps"]]
    tokenizer = WhisperTokenizer(vocab={"h": 0}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(1501)])
    end, start, *_, no_timestamps = tokenizer.convert_tokens_to_ids(special)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        model.model.decoder.layer_norm.weight.zero_()
        model.model.decoder.layer_norm.bias.fill_(10.0)
        model.proj_out.weight[0].fill_(1.0)
    generation = model.generation_config
    generation._from_model_config = False
    generation.is_multilingual, generation.no_timestamps_token_id = False, no_timestamps
    generation.max_initial_timestamp_index, generation.max_new_tokens, generation.num_beams = 50, 4, 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def test_whisper_transcribes_short_and_long_clips(tmp_path: Path) -> None:
    """Whisper reads 30 seconds at once: of a clip of 70 seconds no part is lost, and none is merged with another."""
    uri = str(write_speech(tmp_path / "long.mkv", seconds=70))
    transcriber = Transcriber(str(write_whisper(tmp_path / "asr")), torch.device("cpu"))
    try:
        assert transcriber.words(uri, 0.0, 20.0) == "hhhh"
        assert transcriber.words(uri, 0.0, 70.0) == "hhh" * 3  # one of four tokens is the time
    finally:
        transcriber.close()


@pytest.mark.parametrize("place", ["disk", "store"])
def test_a_killed_transcription_repeats_no_clip(
    configure, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    rows = [(f"{name}_0", name, "train", "1", "", f"{name}.mkv") for name in "abcde"]
    for name in "abcde":
        write_speech(tmp_path / f"{name}.mkv")
    out = str(tmp_path / "out") if place == "disk" else f"{s3}/transcribed"
    config = configure(write_list(tmp_path / "clips.csv", rows, HEADER), out)
    config = replace(config, clips=replace(config.clips, transcribe=str(write_recogniser(tmp_path / "asr"))))
    heard: list[str] = []
    words = Transcriber.words

    def interrupted(self: Transcriber, uri: str, start_s: float, end_s: float) -> str:
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(Path(uri).stem)
        return words(self, uri, start_s, end_s)

    with monkeypatch.context() as patch:
        patch.setattr(Transcriber, "words", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(config, quiet())
    saved = join(location(f"{out}.work"), "transcripts.jsonl")
    assert len(saved.read_text().splitlines()) == 2
    if place == "disk":  # the process was killed while it wrote
        saved.write_text(saved.read_text() + '{"clip_id": "c_0", "sha')
    monkeypatch.setattr(Transcriber, "words", lambda *given: (heard.append(Path(given[1]).stem), words(*given))[1])
    extract(config, quiet())
    assert heard == list("abcde")
    made = Dataset.open(location(out))
    assert list(made.column("train", "text")) == ["h"] * 5
    assert not location(f"{out}.work").exists() or not saved.is_file()


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
