"""RELIC's streaming student in plain NumPy, float64: SPEC 1, 2 and 4 once more, with nothing of the library.

It is slow and remembers everything in lists, so that it can be read beside the paper: a block is denoised in a few
evaluations that see compressed memory, the window and the block itself; one more evaluation, at t = 0, makes its keys
and values; and the block that leaves the window is pooled into memory. `test_reference.py` holds the stream to it.

Letters: B videos, L latents, N tokens, D width, K heads, d = D / K.
"""

import dataclasses
import math

import numpy as np

LONGEST = 1e4  # period of RoPE and of the timestep's features, over 2 pi


@dataclasses.dataclass(frozen=True)
class Model:
    """What the parameters don't say (SPEC 0 and 4)."""

    heads: int
    patch: int
    block: int
    window: int  # latents at full resolution, the block that is denoised included
    horizon: int  # the window and the compressed latents
    schedule: tuple[int, ...]
    freq_dim: int
    timesteps: tuple[float, ...]
    translation_unit: float
    rotation_unit: float
    compress: str = "latent"  # or "kv"
    keep_picture: bool = True
    stretch: float = 1.0  # s of YaRN
    beta_fast: float = 1.0
    beta_slow: float = 0.6
    eps: float = 1e-6


# --- layers -----------------------------------------------------------------------------------------------------------


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mlp(p, x, activation):
    return linear(p["fc2"], activation(linear(p["fc1"], x)))


def layer_norm(x, eps):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def rms_norm(p, x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * p["scale"]


def sinusoidal(t, width):
    angle = t[..., None] * LONGEST ** -(np.arange(width // 2) / (width // 2))
    return np.concatenate([np.cos(angle), np.sin(angle)], -1)


def attention(q, k, v):
    """[B, N, K, d] queries, [B, S, K, d] keys and values."""
    logits = np.einsum("bnkd,bskd->bkns", q, k) / math.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bkns,bskd->bnkd", weights / weights.sum(-1, keepdims=True), v)


# --- rotary positions: time, row and column of a token; YaRN on time (SPEC 1, 3) --------------------------------------


def rotate(model, x, time, row, column):
    """[B, N, K, d] turned by each token's position [N]; d / 2 interleaved complex pairs, split over the three axes."""
    pairs = x.shape[-1] // 2
    side = x.shape[-1] // 6
    widths = (pairs - 2 * side, side, side)
    of_time, of_row, of_column = (LONGEST ** -(np.arange(w) / w) for w in widths)

    def index_of(turns):  # of the frequency that turns so often within the 21 latents that Wan was trained on
        return widths[0] * math.log(21 / (turns * 2 * math.pi)) / math.log(LONGEST)

    low, high = max(math.floor(index_of(model.beta_fast)), 0), min(math.ceil(index_of(model.beta_slow)), widths[0] - 1)
    ramp = np.clip((np.arange(widths[0]) - low) / max(high - low, 1e-3), 0, 1)
    of_time = of_time * (1 - ramp) + of_time / model.stretch * ramp
    angle = np.concatenate([np.outer(time, of_time), np.outer(row, of_row), np.outer(column, of_column)], -1)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


# --- the camera (SPEC 2) ----------------------------------------------------------------------------------------------


def turn(yaw, pitch, roll):
    """World-to-camera rotation of a camera that pans right, then tilts up, then rolls clockwise, in degrees."""
    y, p, r = np.deg2rad([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).T


def walk(model, rotation, position, actions):
    """The pose after each action [T, 13], going on from one: dR_t R_{t-1} and P_{t-1} + R_{t-1}^T dP_t."""
    poses = []
    for (
        forward,
        backward,
        left,
        right,
        up,
        down,
        tilt_up,
        tilt_down,
        pan_left,
        pan_right,
        clockwise,
        counter,
        _,
    ) in actions:
        move = np.array([right - left, down - up, forward - backward]) * model.translation_unit
        position = position + rotation.T @ move
        turned = np.array([pan_right - pan_left, tilt_up - tilt_down, clockwise - counter]) * model.rotation_unit
        rotation = turn(*turned) @ rotation
        poses.append((rotation, position))
    return poses


# --- the transformer --------------------------------------------------------------------------------------------------


def patchify(x, patch):
    """[B, L, H, W, C] to tokens [B, L, rows columns, patch patch C]."""
    b, length, h, w, c = x.shape
    x = x.reshape(b, length, h // patch, patch, w // patch, patch, c).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, length, (h // patch) * (w // patch), -1)


def unpatchify(tokens, patch, height, width):
    b, length = tokens.shape[:2]
    x = tokens.reshape(b, length, height // patch, width // patch, patch, patch, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, length, height, width, -1)


def layer_of(tree, index):
    """The parameters of one layer: all have a leading axis of layers."""
    return {name: layer_of(leaf, index) if isinstance(leaf, dict) else leaf[index] for name, leaf in tree.items()}


def transformer(model, params, tokens, owner, place, t, told, past):
    """Velocity [B, N, P] of tokens; and of every layer their keys as they are, their rotated keys and their values.

    Args:
      tokens: [B, N, P]. owner: [N], which of the L latents each belongs to. place: their time, row, column, [N] each.
      t: [L], the timestep of each latent.
      told: text [B, M, Dt]; actions [B, L, 52] and poses [B, L, 48] of the same latents.
      past: of every layer rotated keys and values [B, S, K, d], which the tokens see beside their own.
    """
    text, actions, poses = told
    eps = model.eps

    def split(x):
        return x.reshape(*x.shape[:2], model.heads, -1)

    text = mlp(params["text_embedding"], text, gelu)
    action = silu(mlp(params["conditioner"]["action"], actions, silu))
    pose = silu(mlp(params["conditioner"]["pose"], poses, silu))
    time = mlp(params["time_embedding"], sinusoidal(t, model.freq_dim), silu)  # [L, D]
    six = linear(params["time_projection"], silu(time)).reshape(len(t), 6, -1)
    x = linear(params["patch_embedding"], tokens)
    kept = []
    for index, (past_k, past_v) in enumerate(past):
        layer = layer_of(params["blocks"], index)
        shift1, scale1, gate1, shift2, scale2, gate2 = np.moveaxis((six + layer["modulation"])[owner], 1, 0)

        own, h = layer["self_attention"], layer_norm(x, eps) * (1 + scale1) + shift1
        bias = linear(layer["pose"]["proj"], pose)[:, owner]  # the pose joins Q and K before their norm, and never V
        q = split(rms_norm(own["norm_q"], linear(own["q"], h) + bias, eps))
        plain = split(rms_norm(own["norm_k"], linear(own["k"], h) + bias, eps))
        v, rotated = split(linear(own["v"], h)), rotate(model, plain, *place)
        seen_k, seen_v = np.concatenate([past_k, rotated], 1), np.concatenate([past_v, v], 1)
        attended = attention(rotate(model, q, *place), seen_k, seen_v)
        x = x + gate1 * linear(own["o"], attended.reshape(x.shape))

        x = x + linear(layer["action"]["proj"], action)[:, owner]  # the action joins the tokens after self-attention

        cross = layer["cross_attention"]
        h = layer_norm(x, eps) * layer["norm"]["scale"] + layer["norm"]["bias"]
        q = split(rms_norm(cross["norm_q"], linear(cross["q"], h), eps))
        k = split(rms_norm(cross["norm_k"], linear(cross["k"], text), eps))
        x = x + linear(cross["o"], attention(q, k, split(linear(cross["v"], text))).reshape(x.shape))

        h = layer_norm(x, eps) * (1 + scale2) + shift2
        x = x + gate2 * mlp(layer["ffn"], h, gelu)
        kept.append((plain, rotated, v))
    shift, scale = np.moveaxis((time[:, None] + params["head_modulation"])[owner], 1, 0)
    return linear(params["head"], layer_norm(x, eps) * (1 + scale) + shift), kept


# --- memory (SPEC 4) --------------------------------------------------------------------------------------------------


def pool(x, factor, unit):
    """[B, H, W, ...] averaged over cells; sides are first filled up by their last row or column."""
    sides = [(0, -side % (factor * unit)) for side in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *sides] + [(0, 0)] * (x.ndim - 3), mode="edge")
    b, h, w = x.shape[:3]
    return x.reshape(b, h // factor, factor, w // factor, factor, *x.shape[3:]).mean((2, 4))


def centres(factor, rows, columns):
    """Row and column of each pooled token, the middle of its cell, within the grid."""
    across = [np.minimum(factor * np.arange(-(-n // factor)) + (factor - 1) / 2, n - 1) for n in (rows, columns)]
    row, column = np.meshgrid(*across, indexing="ij")
    return row.ravel(), column.ravel()


@dataclasses.dataclass
class Shown:
    """A block that has been shown: what its keys and values in memory are made of."""

    first: int  # its first latent's number
    latents: np.ndarray  # [B, L, H, W, C], clean
    actions: np.ndarray  # [B, L, 52]
    poses: np.ndarray
    layers: list  # of every layer: keys as they are, rotated keys, values


class Stream:
    """A session: `step` makes a block of latents of a block of actions.

    Args:
      params: a nested dict of float64 arrays. picture: [B, H, W, C], the first latent. text: [B, M, Dt].
    """

    def __init__(self, model, params, picture, text):
        self.model, self.params, self.picture, self.text = model, params, picture, text
        self.rotation, self.position, self.last = np.eye(3), np.zeros(3), 0
        self.window: list[Shown] = []
        self.memory: list[tuple[int, list]] = []  # of each latent its number and, of every layer, keys and values
        self.layers = len(params["blocks"]["modulation"])
        self.rows, self.columns = (side // model.patch for side in picture.shape[1:3])

    def step(self, actions, noise):
        """The next block.

        Args:
          actions: [4 L, 13], of all videos. noise: [B, L, H, W, C] for each evaluation.
        """
        model, poses = self.model, walk(self.model, self.rotation, self.position, actions)
        self.rotation, self.position = poses[-1]
        numbers = np.stack([np.concatenate([r.ravel(), p / 10]) for r, p in poses])
        told = [np.stack([x.reshape(model.block, -1)] * len(self.picture)) for x in (actions, numbers)]
        x = self.with_picture(noise[0])
        for i, t in enumerate(model.timesteps):
            level = np.full(model.block, t / 1000)
            level[: self.last == 0] = 0
            velocity, _ = self.evaluate(x, 1000 * level, told, self.past())
            clean = self.with_picture(x - level[:, None, None, None] * velocity)
            if i + 1 < len(model.timesteps):
                level = model.timesteps[i + 1] / 1000
                x = self.with_picture((1 - level) * clean + level * noise[i + 1])
        _, layers = self.evaluate(clean, np.zeros(model.block), told, self.past())
        self.window.append(Shown(self.last, clean, *told, layers))
        self.last += model.block
        if len(self.window) == model.window // model.block:
            self.remember(self.window.pop(0))
        return clean

    def with_picture(self, x):
        return np.concatenate([self.picture[:, None], x[:, 1:]], 1) if self.last == 0 else x

    def evaluate(self, x, t, told, past):
        """The block's velocity, and its keys and values."""
        model, per = self.model, self.rows * self.columns
        owner = np.repeat(np.arange(model.block), per)
        row, column = (np.tile(a, model.block) for a in centres(1, self.rows, self.columns))
        tokens = patchify(x, model.patch).reshape(len(x), model.block * per, -1)
        place = self.last + owner, row, column
        out, kept = transformer(model, self.params, tokens, owner, place, t, (self.text, *told), past)
        return unpatchify(out.reshape(len(x), model.block, per, -1), model.patch, *x.shape[2:4]), kept

    def past(self, window=True):
        """Of every layer the keys and values that the next block sees: memory, then the window."""
        shape = (
            len(self.picture),
            0,
            self.model.heads,
            self.params["patch_embedding"]["bias"].size // self.model.heads,
        )
        shown = self.window if window else []
        return [
            [
                np.concatenate(
                    [np.zeros(shape), *(m[i][n] for _, m in self.memory), *(s.layers[i][n + 1] for s in shown)], 1
                )
                for n in range(2)
            ]
            for i in range(self.layers)
        ]

    def remember(self, shown):
        """Pools a block that leaves the window into memory, and forgets the oldest latents beyond the horizon."""
        model = self.model
        factors = [model.schedule[(shown.first + i) % len(model.schedule)] for i in range(model.block)]
        at = [centres(factor, self.rows, self.columns) for factor in factors]
        owner = np.concatenate([np.full(len(row), i) for i, (row, _) in enumerate(at)])
        row, column = np.concatenate(at, 1)
        place = shown.first + owner, row, column
        if model.compress == "latent":  # the latents are pooled, and asked for their keys and values at t = 0
            pooled = [pool(shown.latents[:, i], s, model.patch)[:, None] for i, s in enumerate(factors)]
            tokens = np.concatenate([patchify(x, model.patch)[:, 0] for x in pooled], 1)
            told = (self.text, shown.actions, shown.poses)
            none = np.zeros(model.block)
            _, kept = transformer(model, self.params, tokens, owner, place, none, told, self.past(window=False))
            layers = [(rotated, v) for _, rotated, v in kept]
        else:  # the keys are pooled before they are rotated, and the values
            layers = [
                (rotate(model, self.pooled(k, factors), *place), self.pooled(v, factors)) for k, _, v in shown.layers
            ]
        for i in range(model.block):
            own = [tuple(x[:, owner == i] for x in layer) for layer in layers]
            self.memory.append((shown.first + i, own))
        stays = self.memory[-1][0] - (model.horizon - model.window)  # what is newer than this
        self.memory = [(n, own) for n, own in self.memory if n > stays or (n == 0 and model.keep_picture)]

    def pooled(self, x, factors):
        """Keys or values [B, N, K, d] of a block, each latent pooled by its factor."""
        x = x.reshape(len(x), self.model.block, self.rows, self.columns, *x.shape[2:])
        parts = [pool(x[:, i], s, 1) for i, s in enumerate(factors)]
        return np.concatenate([p.reshape(len(x), -1, *p.shape[3:]) for p in parts], 1)
