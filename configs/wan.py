"""What the experiments at Wan's two sizes share: configs/wan_1_3b_*.py and configs/wan_14b_*.py. None was ever run.

Weights come from `python -m weights_convert` (its docstring): weights/<size>/dit, weights/vae, weights/text. Clips of
480 x 832 pixels and 20 s are expected in data/clips; encoded, they serve every length, for each takes their start:

    python -m launch.prepare_data latents --data=data/clips --out=data/latents --palindromes=0.5 \
        --checkpoint=weights/vae --text=weights/text --tokenizer=weights/tokenizer.json --config=configs/relic_14b.py
"""

from relic_jax.config import RelicConfig
from relic_jax.train.stage import DistillOptions, OdeOptions, TeacherOptions, TrainConfig
from relic_jax.train.trajectories import TrajectoryConfig

SIZES = {"wan_1_3b": RelicConfig.wan_1_3b(), "wan_14b": RelicConfig.wan_14b()}
FRAMES = {5: 81, 10: 157, 20: 317}
STEPS = {5: 5000, 10: 1000, 20: 4000}  # of the teacher (SPEC 3)
ROLLOUT = {5: 77, 10: 157, 20: 317}  # frames of whole blocks of latents
DISTILL_STEPS = {5: 250, 10: 150, 20: 150}  # SPEC 6
LONGEST = 20  # seconds

VAE = "weights/vae"
# What training of every stage at these sizes has in common. Precision is the model's: bf16 products, f32 weights.
_COMMON = dict(
    data_val="data/latents_val",
    learning_rate=1e-5,
    warmup=100,
    schedule="constant",
    betas=(0.9, 0.999),
    recompute=True,
    sample_every=500,
    save_every=250,
)


# Of distillation, from the Self-Forcing lineage (SPEC 6).
_DISTILL = dict(
    batch=64,
    learning_rate=2e-6,
    warmup=0,
    betas=(0.0, 0.999),
    clip=10.0,
    ema=0.99,
    sample_every=50,
    save_every=25,
)


def model(size: str, seconds: int) -> RelicConfig:
    """The model with RoPE stretched to so many seconds."""
    return SIZES[size].stretched(SIZES[size].vae.latents_of(FRAMES[seconds]))


def teacher(size: str, seconds: int, *, batch: int, mesh: str) -> TrainConfig:
    """One stretch of the teacher's curriculum: from Wan's own weights, then from the stretch before."""
    before = {5: f"weights/{size}/dit", 10: f"runs/{size}_teacher", 20: f"runs/{size}_teacher_10s"}
    return TrainConfig(
        stage="teacher",
        model=model(size, seconds),
        data="data/latents",
        init_from=before[seconds],
        steps=STEPS[seconds],
        batch=batch,
        frames=FRAMES[seconds],
        balance_actions=True,
        mesh=mesh,
        teacher=TeacherOptions(vae=VAE, pose_drop=0.0),
        **_COMMON,
    )


def ode_data(size: str) -> TrajectoryConfig:
    """Trajectories of the 20 s teacher."""
    return TrajectoryConfig(
        stage="ode_data",
        model=model(size, LONGEST),
        teacher=f"runs/{size}_teacher_20s",
        data="data/latents",
        frames=FRAMES[LONGEST],
        clips=2048,
    )


def ode(size: str, *, batch: int, mesh: str) -> TrainConfig:
    """The student's start."""
    return TrainConfig(
        stage="ode",
        model=model(size, LONGEST),
        data=f"runs/{size}_ode_data",
        init_from=f"runs/{size}_teacher_20s",
        steps=2000,
        batch=batch,
        frames=FRAMES[LONGEST],
        mesh=mesh,
        ode=OdeOptions(vae=VAE, pose_drop=0.0),
        **_COMMON,
    )


def distill(size: str, seconds: int, *, micro_batch: int, mesh: str) -> TrainConfig:
    """One stretch of distillation: from stage `ode`, then from the stretch before, judged by the teacher of its length.

    RoPE is the student's own at every length, stretched to 20 s; each teacher keeps that of its length.
    """
    before = {5: f"runs/{size}_ode", 10: f"runs/{size}_distill_5s", 20: f"runs/{size}_distill_10s"}
    teachers = {5: f"runs/{size}_teacher", 10: f"runs/{size}_teacher_10s", 20: f"runs/{size}_teacher_20s"}
    return TrainConfig(
        stage="distill",
        model=model(size, LONGEST),
        data="data/latents",
        init_from=before[seconds],
        steps=DISTILL_STEPS[seconds],
        frames=ROLLOUT[seconds],
        balance_actions=True,
        mesh=mesh,
        distill=DistillOptions(
            vae=VAE,
            teacher=teachers[seconds],
            teacher_dit=model(size, seconds).dit,
            critic_learning_rate=4e-7,
            micro_batch=micro_batch,
            ema_start=200 if seconds == 5 else 0,
        ),
        **{**_COMMON, **_DISTILL},
    )
