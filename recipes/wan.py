"""The paper's chain at Wan 2.1's sizes: from its published weights and clips of 20 s to a student that streams.

Command:  python -m launch.recipe recipes/wan.py:14b --sbatch --nodes=8 | bash       # or wan.py:1_3b
          python -m launch.recipe recipes/wan.py:14b                                 # on one host that is large enough
Data:     weights/ by `python -m weights_convert` (its docstring): wan_14b/dit or wan_1_3b/dit, vae, text, and umT5's
          tokenizer.json; data/clips and data/clips_val, clips of 480 x 832 pixels and 317 frames.
Hardware: what each configuration says; 64 x H100 80 GB for 14B.
Result:   not run. No weights of these sizes exist, here or anywhere.
"""

from launch.recipe_chain import Recipe, Step, train
from relic_jax.config import ConfigError

SIZES = ("14b", "1_3b")
VAE, TEXT, TOKENIZER = "weights/vae", "weights/text", "weights/tokenizer.json"
CARD, PICTURE = "recipes/card.md", "relic_jax/assets/demo/room.png"
# Encoded once, the clips serve every length: each takes their start.
LATENTS = ("data/latents", "data/latents_val", VAE)


def get_recipe(size: str = "14b") -> Recipe:
    """The chain of one size, 14b or 1_3b."""
    if size not in SIZES:
        raise ConfigError(f"its argument is {size!r}, expected one of {', '.join(SIZES)}")
    model, bundle = f"--config=configs/relic_{size}.py", f"out/wan_{size}"

    def run(name: str) -> str:
        return f"runs/wan_{size}_{name}"

    def stage(name: str, inputs: tuple[str, ...], share: float = 0.0) -> Step:
        kind, _, length = name.rpartition("_") if name.endswith("s") else (name, "", "")
        argument = f"{size},{length}" if length else size
        return train(name, f"configs/wan_{kind}.py:{argument}", run(name), inputs, share=share)

    def latents(name: str, data: str, out: str, *more: str) -> Step:
        given = (f"--data={data}", f"--checkpoint={VAE}", f"--text={TEXT}", f"--tokenizer={TOKENIZER}", *more)
        command = ("launch.prepare_data", "latents", model, *given, f"--out={out}")
        return Step(name, command, (data, VAE, TEXT, TOKENIZER), (out,), json=f"{out}.json")

    def evaluate(name: str) -> Step:
        """On rendered rooms, the only scenes whose truth is known."""
        out = f"{bundle}_{name}"
        command = ("launch.evaluate", name, model, f"--checkpoint={bundle}", f"--out={out}")
        return Step(name, command, (bundle,), (out,), json=f"{out}.json")

    steps = (
        latents("latents", "data/clips", "data/latents", "--palindromes=0.5"),
        latents("latents_val", "data/clips_val", "data/latents_val"),
        stage("teacher_5s", (*LATENTS, f"weights/wan_{size}/dit"), share=15),
        stage("teacher_10s", (*LATENTS, run("teacher_5s")), share=7),
        stage("teacher_20s", (*LATENTS, run("teacher_10s")), share=70),
        stage("ode_data", ("data/latents", run("teacher_20s"))),  # of use only when all are there: no share
        stage("ode", (run("ode_data"), "data/latents_val", VAE, run("teacher_20s")), share=20),
        stage("distill_5s", (*LATENTS, run("teacher_5s"), run("ode")), share=3),
        stage("distill_10s", (*LATENTS, run("teacher_10s"), run("distill_5s")), share=3),
        stage("distill_20s", (*LATENTS, run("teacher_20s"), run("distill_10s")), share=7),
        Step(
            "bundle",
            (
                *("launch.export", "bundle", model, f"--dit={run('distill_20s')}", f"--vae={VAE}", f"--text={TEXT}"),
                *(f"--tokenizer={TOKENIZER}", f"--card={CARD}", "--dtype=bfloat16", f"--out={bundle}"),
            ),
            inputs=(run("distill_20s"), VAE, TEXT, TOKENIZER, CARD),
            outputs=(bundle,),
        ),
        evaluate("world"),
        evaluate("revisit"),
        Step(
            "demo",
            (
                *("launch.generate", model, f"--checkpoint={bundle}", f"--image={PICTURE}"),
                *("--prompt=A room with pictures on its walls", "--actions=w-16,l-48,j-48,d-24,a-23", "--seed=0"),
                *(f"--out={bundle}_demo.mp4", f"--sheet={bundle}_demo.png"),
            ),
            inputs=(bundle, PICTURE),
            outputs=(f"{bundle}_demo.mp4", f"{bundle}_demo.png"),
            json=f"{bundle}_demo.json",
        ),
    )
    given = (f"weights/wan_{size}/dit", VAE, TEXT, TOKENIZER, "data/clips", "data/clips_val", CARD, PICTURE)
    return Recipe(steps, given, root=f"runs/wan_{size}")
