"""What is wrong with a source or a destination is said in one message; the exit code is 2 and nothing is left."""

import dataclasses
import json
import pickle
import resource
import shutil
import subprocess
import sys
from collections import namedtuple

import jax
import numpy as np
import pytest
import safetensors.numpy

from relic_jax.errors import InputError
from relic_jax.models import weights
from weights_convert import partial as partials
from weights_convert import store
from weights_convert.tables import MODELS
from weights_convert.to_relic import open_source, to_relic
from weights_convert.to_torch import to_torch

torch = pytest.importorskip("torch")

from tests.weights_convert import peers, sources  # noqa: E402 (peers imports torch)

SHARD = "diffusion_pytorch_model-00002-of-00003.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
EXTRA = "blocks.0.cross_attn.k_img.weight"


def rewrite(folder, change):
    state = safetensors.numpy.load_file(folder / SHARD)
    change(state)
    safetensors.numpy.save_file(state, folder / SHARD)


def put(name, value):
    """A change that replaces the first tensor whose name contains `name`, by what `value` makes of it."""

    def change(state):
        key = next(key for key in sorted(state) if name in key)
        state[key] = value(state[key])

    return lambda folder: rewrite(folder, change)


def with_number(number):
    def value(array):
        array = array.copy()
        array.flat[5] = number
        return array

    return value


def cut(folder):
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[: len(content) // 2])


def several(folder):
    put("ffn.0.weight", lambda x: x[:-1])(folder)
    rewrite(folder, lambda state: state.pop(next(key for key in sorted(state) if "cross_attn.o.weight" in key)))
    rewrite(folder, lambda state: state.update({EXTRA: np.zeros((2, 3), np.float32)}))


# What is done to a good source, and what the message must say.
SOURCES = {
    "a truncated shard": (cut, [SHARD, "not a readable safetensors file, perhaps cut short"]),
    "no index": (lambda f: (f / INDEX).unlink(), [INDEX, "does not exist; expected the index of 3 shards"]),
    "an index that is none": (lambda f: (f / INDEX).write_text("[]"), [INDEX, "is no index of safetensors files"]),
    "a missing shard": (lambda f: (f / SHARD).unlink(), ["names 3 files; missing", SHARD]),
    "missing, superfluous and misshapen": (
        several,
        [
            "doesn't fit the model wan-t2v-1.3b",
            "ffn.0.weight has shape [47, 32], expected [48, 32]",
            "cross_attn.o.weight is missing, expected shape [32, 32]",
            f"{EXTRA} of shape [2, 3] has no place in the model",
        ],
    ),
    "a NaN": (put("self_attn.q.weight", with_number(np.nan)), [SHARD, "self_attn.q.weight holds NaN or Inf"]),
    "an Inf": (put("modulation", with_number(-np.inf)), [SHARD, "modulation holds NaN or Inf"]),
    "integers": (put("ffn.2.bias", lambda x: x.astype(np.int32)), [SHARD, "ffn.2.bias is of dtype I32, expected"]),
    "one shard alone": (
        lambda f: [x.unlink() for x in f.iterdir() if x.name != SHARD],
        [INDEX, "does not exist; expected the index of 1 shards"],
    ),
    "nothing": (lambda f: [x.unlink() for x in f.iterdir()], ["holds no file of wan-t2v-1.3b; expected"]),
    "no source": (shutil.rmtree, ["does not exist; expected the weights of wan-t2v-1.3b"]),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Each source's folder and what the command line answered."""
    top = tmp_path_factory.mktemp("bad")
    good = sources.write_source(top / "good")
    config = top / "config.json"
    config.write_text(json.dumps(dataclasses.asdict(sources.CFG)))
    lines = []
    for number, (damage, _) in enumerate(SOURCES.values()):
        shutil.copytree(good, top / f"case{number}")
        damage(top / f"case{number}")
        lines.append(["--src", top / f"case{number}", "--dst", top / f"dst{number}", "--config", config])
    lines.append(["--src", good, "--dst", good, "--config", config])
    lines.append(["--src", good, "--dst", top / "dst"])
    lines.append(["--src", good / SHARD, "--dst", top / "dst", "--config", config])
    lines = [["to-relic", "--model", "wan-t2v-1.3b", *line] for line in lines]
    return top, dict(zip([*SOURCES, "taken", "larger", "shard"], peers.commands(*lines), strict=True))


@pytest.mark.parametrize("case", SOURCES)
def test_source(answers, case):
    top, results = answers
    code, _, err = results[case]
    assert code == 2
    message = err[err.index("error: ") :]
    assert "Traceback" not in err and all(word in message for word in SOURCES[case][1]), message
    assert not [path.name for path in top.iterdir() if "dst" in path.name]


def test_destination_or_file_on_the_command_line(answers):
    top, results = answers
    expected = {
        "taken": "good exists already; expected a new folder, nothing is overwritten",
        "larger": "good doesn't fit the model wan-t2v-1.3b; of ",
        "shard": f"{SHARD} is one of several shards; expected their folder or the index beside them",
    }
    for case, words in expected.items():
        code, _, err = results[case]
        assert code == 2 and words in err[err.index("error: ") :] and "Traceback" not in err
    assert len(list((top / "good").iterdir())) == 4


def test_a_file_is_read_as_what_it_is_whatever_its_name(tmp_path):
    state = sources.read_source(sources.write_source(tmp_path / "source"))
    safetensors.numpy.save_file(state, tmp_path / "really safetensors.pth")
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, tmp_path / "pytorch_model.bin")
    for file in (tmp_path / "really safetensors.pth", tmp_path / "pytorch_model.bin"):
        layout, source, plan = open_source("m", file, sources.MODEL)
        assert layout == "wan" and len(plan.tensors) == len(state)
        assert all(np.array_equal(value, state[name]) for name, value in source.read(state))


def test_a_file_of_torch_under_the_name_of_the_other_kind(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="x.safetensors is a file of torch.save; expected safetensors, or a name that"):
        open_source("m", tmp_path / "x.safetensors", sources.MODEL)


@pytest.mark.parametrize("layout", ["auto", "wan", "diffusers"])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights"])
def test_a_file_that_is_neither_kind(tmp_path, name, layout):
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version h'"),
        (b"", "it is empty"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            to_relic("wan-vae", tmp_path / name, tmp_path / "dst", model=MODELS["wan-vae"], layout=layout)
        assert str(caught.value) == f"{tmp_path / name} is neither a safetensors file nor one of torch.save: {words}"


def test_another_layout_than_the_flag_says_is_recognised(tmp_path):
    sources.write_hollow(tmp_path / "vae.safetensors", "wan-vae", "wan")
    with pytest.raises(InputError, match=r"doesn't fit the model wan-vae \(it is in the wan layout\)"):
        open_source("wan-vae", tmp_path / "vae.safetensors", MODELS["wan-vae"], "diffusers")
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "vae.safetensors", tmp_path / "folder" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InputError, match="folder holds no file of wan-vae; expected Wan2.1_VAE.pth or vae/"):
        open_source("wan-vae", tmp_path / "folder", MODELS["wan-vae"], "wan")


def test_a_truncated_pth(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "Wan2.1_VAE.pth")
    content = (tmp_path / "Wan2.1_VAE.pth").read_bytes()
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(content[:500])
    with pytest.raises(
        InputError, match="Wan2.1_VAE.pth can't be read as a PyTorch file of tensors, perhaps cut short"
    ):
        to_relic("wan-vae", tmp_path, tmp_path / "dst", model=MODELS["wan-vae"])


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_code_in_a_pth_is_never_run(tmp_path):
    trace = tmp_path / "it ran"
    torch.save({"conv1.weight": Hostile(str(trace))}, tmp_path / "Wan2.1_VAE.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv1.weight": Hostile(str(trace))}))
    for file in (tmp_path / "Wan2.1_VAE.pth", tmp_path / "plain.pth"):
        with pytest.raises(InputError, match="code in it is never run"):
            to_relic("wan-vae", file, tmp_path / "dst", model=MODELS["wan-vae"])
    assert not trace.exists()


def test_a_pth_of_something_else(tmp_path):
    torch.save({"step": 3, "optimizer": [torch.zeros(2)]}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        to_relic("wan-vae", tmp_path / "model.pt", tmp_path / "dst", model=MODELS["wan-vae"])


@pytest.mark.parametrize("layout", ["wan", "diffusers"])
def test_another_model_than_the_flag_says_is_recognised(tmp_path, layout):
    sources.write_hollow(tmp_path / "diffusion_pytorch_model.safetensors", "wan-t2v-1.3b", layout)
    for flag in ("wan-t2v-14b", "wan-vae"):
        with pytest.raises(InputError) as caught:
            to_relic(flag, tmp_path, tmp_path / "dst", model=MODELS[flag])
        assert f"doesn't fit the model {flag} (it is wan-t2v-1.3b)" in str(caught.value)
        assert str(caught.value).count("\n") == 13
    assert not (tmp_path / "dst").exists()


def test_an_existing_destination_is_left_alone(tmp_path):
    source = sources.write_source(tmp_path / "source")
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst" / "mine").write_text("precious")
    for convert in (
        lambda: to_relic("m", source, tmp_path / "dst", model=sources.MODEL),
        lambda: to_torch(source, tmp_path / "dst", model=sources.MODEL),
    ):
        with pytest.raises(InputError, match="dst exists already; expected a new folder"):
            convert()
    assert [(x.name, x.read_text()) for x in (tmp_path / "dst").iterdir()] == [("mine", "precious")]


def test_too_little_space_is_seen_before_writing(tmp_path, monkeypatch):
    source = sources.write_source(tmp_path / "source")
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(partials.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"has 0.0 GB free, the result needs 0.0 GB"):
        to_relic("m", source, tmp_path / "dst", model=sources.MODEL)
    assert not (tmp_path / "dst").exists()


def test_a_disk_that_fills_up_can_be_gone_on_from(tmp_path):
    source = sources.write_source(tmp_path / "source")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # as good as a full disk: larger files fail
    try:
        with pytest.raises(InputError, match="can't be written") as caught:
            to_relic("m", source, tmp_path / "dst", model=sources.MODEL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value) and not (tmp_path / "dst").exists()
    to_relic("m", source, tmp_path / "dst", model=sources.MODEL, verify=True)


@pytest.mark.parametrize("name", ["wan-t2v-1.3b", "wan-vae"])
def test_a_disk_that_fills_up_during_an_export_can_be_gone_on_from(tmp_path, name):
    """As shards, and as a file of torch.save."""
    model = dataclasses.replace(MODELS[name], config=peers.CONFIGS[name])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), model.leaves())
    weights.save_safetensors(tmp_path / "ours.safetensors", params)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(InputError, match="can't be written") as caught:
            to_torch(tmp_path / "ours.safetensors", tmp_path / "dst", model=model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value) and not (tmp_path / "dst").exists()
    done = to_torch(tmp_path / "ours.safetensors", tmp_path / "dst", model=model)
    assert sorted(done.files) == sorted(x.name for x in (tmp_path / "dst").iterdir() if x.suffix != ".json")


def test_a_destination_that_is_being_written(tmp_path):
    source = sources.write_source(tmp_path / "source")
    with partials.partial(tmp_path / "dst", {}, 0):
        with pytest.raises(InputError, match="dst is being written by another conversion"):
            to_relic("m", source, tmp_path / "dst", model=sources.MODEL)


def test_a_destination_below_a_file(tmp_path):
    source = sources.write_source(tmp_path / "source")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file can't be made or written to: File exists"):
        to_relic("m", source, tmp_path / "file" / "dst", model=sources.MODEL)


def test_verify_finds_a_bit_that_changed(tmp_path, monkeypatch):
    source = sources.write_source(tmp_path / "source")
    read = store.Reader.read

    def flipped(self, name, index):
        value = read(self, name, index).copy()
        if name == "blocks.ffn.fc2.kernel" and index == 1:
            value.view(np.uint32).flat[7] ^= 1
        return value

    monkeypatch.setattr(store.Reader, "read", flipped)
    with pytest.raises(InputError, match=r"blocks.ffn.fc2.kernel\[1\] isn't blocks.1.ffn.2.weight of .* bit for bit"):
        to_relic("m", source, tmp_path / "dst", model=sources.MODEL, verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


_INTERRUPTED = """
import os, signal, sys
from weights_convert import __main__ as program, store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
write, count = store.Writer.write, 0
def slow(self, *arguments):
    global count
    count += 1
    if count == 60:
        os.kill(os.getpid(), signal.SIGINT)
    write(self, *arguments)
store.Writer.write = slow
sys.argv[0] = "weights_convert"
program.main()
"""


def test_ctrl_c_says_how_to_go_on(tmp_path):
    source = sources.write_source(tmp_path / "source")
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(sources.CFG)))
    arguments = ["to-relic", "--model=wan-t2v-1.3b", f"--config={tmp_path / 'config.json'}", f"--src={source}"]
    arguments.append(f"--dst={tmp_path / 'dst'}")
    command = [sys.executable, "-c", _INTERRUPTED, *arguments]
    done = subprocess.run(command, cwd=sources.ROOT, env=sources.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: interrupted; ") and "goes on" in done.stderr
    assert not (tmp_path / "dst").exists()
    again = [sys.executable, "-m", "weights_convert", *arguments, "--verify"]
    done = subprocess.run(again, cwd=sources.ROOT, env=sources.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "every bit as in the source" in done.stdout, done.stderr


def test_flags_that_do_not_fit(tmp_path):
    (tmp_path / "config.json").write_text('{"width": 3}')
    line = ["--src", tmp_path, "--dst", tmp_path / "dst"]
    expected = {
        ("to-relic", "--model", "umt5-xxl", "--layout", "taehv"): "umt5-xxl is published as wan, diffusers",
        ("to-relic", "--model", "umt5-xxl", "--config", str(tmp_path / "config.json")): "config.width does not exist",
        ("to-torch", "--model", "umt5-xxl", "--config", str(tmp_path / "none.json")): "none.json",
        ("to-torch", "--model", "umt5"): "--model",
    }
    for (code, _, err), message in zip(
        peers.commands(*[[*f, *line] for f in expected]), expected.values(), strict=True
    ):
        assert code == 2 and message in err and "Traceback" not in err, err


def test_to_torch_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="holds no weights; expected a folder of to-relic or of a training run"):
        to_torch(tmp_path, tmp_path / "dst", model=sources.MODEL)
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="x.safetensors is not a readable safetensors file"):
        to_torch(tmp_path / "x.safetensors", tmp_path / "dst", model=sources.MODEL)
    source = sources.write_source(tmp_path / "source")
    to_relic("m", source, tmp_path / "relic", model=sources.MODEL)
    with pytest.raises(InputError, match="relic doesn't fit the config: .* has shape"):
        to_torch(tmp_path / "relic", tmp_path / "dst", model=MODELS["wan-t2v-1.3b"])
    assert not (tmp_path / "dst").exists()
