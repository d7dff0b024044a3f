import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relic_jax.config import DiTConfig, RelicConfig, TextConfig, VAEConfig, VideoConfig
from relic_jax.data import augment, builder, latents, loader, shards, workers
from relic_jax.errors import InputError
from relic_jax.models import module, text, tokenizer, vae
from relic_jax.models.umt5 import text_encoder

CFG = RelicConfig(
    video=VideoConfig(height=16, width=32),
    dit=dataclasses.replace(DiTConfig.tiny(), latent_channels=4, text_len=24, text_dim=16),
    vae=VAEConfig(
        latent_channels=4, base_dim=8, multipliers=(1, 1, 1), res_blocks=1, temporal_down=(True, True), patch_size=2
    ),
    text=TextConfig(vocab=200, dim=16, attention_dim=16, ffn_dim=32, heads=2, layers=1, length=24),
)
CLIPS = 3
RECIPE = builder.Recipe(frames=13, height=16, width=32, seed=0)


@pytest.fixture(scope="module")
def params() -> module.Params:
    rng = np.random.default_rng(0)
    expected = {"vae": module.abstract(vae.VAE, CFG.vae), "text": module.abstract(text_encoder, CFG.text)}
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), leaf.dtype), expected)


@pytest.fixture(scope="module")
def tokens() -> tokenizer.Tokenizer:
    return tokenizer.train([RECIPE.clip(i).caption for i in range(CLIPS)], CFG.text.vocab)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> loader.Clips:
    split = shards.Split(tmp_path_factory.mktemp("clips"), "val", CLIPS)
    shards.claim(split, dataclasses.asdict(RECIPE))
    RECIPE.write(split, 0, lambda: None)
    shards.finish(split.directory, builder.features(16, 32), "test")
    return loader.Clips(split.directory)


def write(directory, clips, params, tokens, made_from="a", cfg=CFG, processes=1) -> int:
    encoding = latents.Encoding(str(clips.directory), params, cfg, tokens, {"weights": made_from})
    return workers.write(shards.Split(directory, "val", len(clips)), encoding, processes)


def test_streamed_latents_are_the_whole_video_s(params, clips):
    video = clips[0].video
    whole = vae.encode_video(params["vae"], CFG.vae, jnp.asarray(video[None], jnp.float32) / 127.5 - 1)
    np.testing.assert_allclose(latents.encode_frames(params["vae"], CFG.vae, video), whole[0], atol=1e-5)
    with pytest.raises(InputError, match="video has 12 frames, expected 4 L"):
        latents.encode_frames(params["vae"], CFG.vae, video[:12])


def test_a_data_set_of_latents(tmp_path, params, tokens, clips):
    assert write(tmp_path, clips, params, tokens) == CLIPS
    assert write(tmp_path, clips, params, tokens) == 0
    with pytest.raises(InputError, match="weights='a', this one has weights='b'"):
        write(tmp_path, clips, params, tokens, made_from="b")
    batch = next(loader.latent_batches(tmp_path, batch=CLIPS, seed=0, latents=3))
    assert {name: array.shape[1:] for name, array in batch.items()} == {
        "latents": (3, 2, 4, 4),
        "rotations": (9, 3, 3),
        "positions": (9, 3),
        "actions": (9, 13),
        "unit": (),
        "text": (24, 16),
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.float32)}
    expected = latents.encode_frames(params["vae"], CFG.vae, clips[0].video)[:3]
    row = int(np.argmin([np.abs(one - expected).max() for one in batch["latents"]]))
    np.testing.assert_array_equal(batch["latents"][row], expected.astype(np.float16))
    np.testing.assert_array_equal(batch["actions"][row], clips[0].actions[:9])
    words = text.embed(params["text"], CFG.text, tokens, [clips[0].caption])[0]
    np.testing.assert_array_equal(batch["text"][row], np.asarray(words).astype(np.float16))
    with pytest.raises(InputError, match="expected clips of 5 latents, got one of 4"):
        next(loader.latent_batches(tmp_path, batch=1, seed=0, latents=5))


def test_palindromes_are_encoded_from_pixels_in_their_order(tmp_path, params, tokens, clips):
    encoding = latents.Encoding(str(clips.directory), params, CFG, tokens, {"weights": "a"}, palindromes=1.0)
    workers.write(shards.Split(tmp_path, "val", CLIPS), encoding, 1)
    records = loader.Latents(tmp_path, 4)
    for number in range(CLIPS):
        record, clip = records[number], clips[number]
        (pivot,) = (
            p for p in range(6, 12) if np.allclose(augment.palindrome(clip, p).actions, record["actions"], atol=1e-6)
        )
        made = augment.palindrome(clip, pivot)
        expected = latents.encode_frames(params["vae"], CFG.vae, made.video).astype(np.float16)
        np.testing.assert_array_equal(record["latents"], expected)
        np.testing.assert_array_equal(record["positions"], made.positions)


def test_balanced_batches_go_on_exactly(tmp_path, params, tokens, clips):
    write(tmp_path, clips, params, tokens)

    def batches():
        return loader.latent_batches(tmp_path, batch=2, seed=5, latents=3, balanced=True)

    ours, again = batches(), batches()
    first = [next(ours)["actions"] for _ in range(9)]
    for _ in range(4):
        next(again)
    fresh = batches()
    fresh.set_state(json.loads(json.dumps(again.get_state())))
    for expected in first[4:]:
        np.testing.assert_array_equal(next(fresh)["actions"], expected)


def test_clips_of_another_size_are_refused(tmp_path, params, tokens, clips):
    other = dataclasses.replace(CFG, video=VideoConfig(height=32, width=32))
    with pytest.raises(InputError, match="clips are of 16x32 pixels, the config has 32x32"):
        write(tmp_path, clips, params, tokens, cfg=other)


def test_fingerprints_tell_weights_apart(params):
    changed = jax.tree.map(lambda x: x + 1e-6, params)
    assert latents.fingerprint(params) == latents.fingerprint(jax.tree.map(lambda x: x + 0, params))
    assert latents.fingerprint(params) != latents.fingerprint(changed)
