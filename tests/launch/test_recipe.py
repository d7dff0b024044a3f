"""`launch.recipe` on chains of small programs that count how often they ran: nothing is trained."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# python -m make --out=FILE [--code=N] [--json=FILE]: writes a file. log: a line for each program that began.
MAKE = """
import sys
flags = dict(part.lstrip("-").split("=", 1) for part in sys.argv[1:])
open("log", "a").write(f"{flags['out']}\\n")
if flags.get("code"):
    sys.exit(int(flags["code"]))
open(flags["out"], "w").write("made")
if "json" in flags:
    open(flags["json"], "w").write('{"clips": 3, "psnr_db": 17.71234}')
"""
# python -m learn --workdir=DIR --steps=N: a line of metrics.jsonl a step; on SIGTERM it saves and exits with 143.
LEARN = """
import json, os, signal, sys, time
flags = dict(part.lstrip("-").split("=", 1) for part in sys.argv[1:])
workdir, steps, stop = flags["workdir"], int(flags["steps"]), []
if "deaf" not in flags:
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
open("log", "a").write(f"{workdir}\\n")
os.makedirs(f"{workdir}/checkpoints", exist_ok=True)
json.dump({"steps": steps, "log_every": 2}, open(f"{workdir}/config.json", "w"))
done = max(map(int, os.listdir(f"{workdir}/checkpoints")), default=0)
while done < steps and not stop:
    done += 1
    print(json.dumps({"step": done, "loss": 1 / done}), file=open(f"{workdir}/metrics.jsonl", "a"))
    time.sleep(0.05)
os.makedirs(f"{workdir}/checkpoints/{done}", exist_ok=True)
sys.exit(143 if stop else 0)
"""
# get_recipe(text): the words of `text` change it.
RECIPE = """
from launch.recipe_chain import Recipe, Step

def get_recipe(text=""):
    words = text.split(",")
    steps = "400" if "long" in words else "30" if "slow" in words else "4"
    code = ("--code=7",) if "fail" in words else ("--code=2",) if "refuse" in words else ()
    other = ("--other=1",) if "other" in words else ()
    deaf = ("--deaf=1",) if "deaf" in words else ()
    return Recipe((
        Step("data", ("make", "--out=data/a", *other), ("given",), ("data/a",), json="data/a.json"),
        Step("first", ("learn", "--workdir=runs/first", "--steps=" + steps, *deaf), ("data/a",), ("runs/first",), 1),
        Step("apart", ("make", "--out=data/apart"), (), ("data/apart",)),
        Step("second", ("learn", "--workdir=runs/second", "--steps=" + steps), ("runs/first",), ("runs/second",), 1),
        Step("end", ("make", "--out=out/end", *code), ("runs/second/metrics.jsonl", "data/apart"), ("out/end",)),
    ), given=("given",))
"""
ORDER = ["data/a", "runs/first", "data/apart", "runs/second", "out/end"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in {"make.py": MAKE, "learn.py": LEARN, "recipe.py": RECIPE, "given": ""}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def command(arguments: tuple[str, ...], text: str) -> dict:
    source = f"recipe.py:{text}" if text else "recipe.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return {"args": [sys.executable, "-m", "launch.recipe", source, *arguments], "env": environment, "text": True}


def start(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess:
    if "--curves" not in arguments:  # JAX would be started for them
        arguments = (*arguments, "--nocurves")
    return subprocess.run(**command(arguments, text), cwd=folder, capture_output=True, timeout=100)


def begin(folder: Path) -> subprocess.Popen:
    """Started, and left when the first run has made a few steps."""
    with (folder / "said").open("w") as said:
        running = subprocess.Popen(**command(("--nocurves",), "slow"), cwd=folder, stdout=said, stderr=said)
    wait_for(lambda: steps_of(folder, "first") >= 3)
    return running


def wait_for(ready) -> None:
    until = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


def steps_of(folder: Path, run: str) -> int:
    lines = folder / "runs" / run / "metrics.jsonl"
    return len(lines.read_text().splitlines()) if lines.exists() else 0


def ran(folder: Path) -> list[str]:
    """What began since this was last asked."""
    log = folder / "log"
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def states(folder: Path, text: str = "") -> dict[str, str]:
    """By --list."""
    done = start(folder, "--list", text=text)
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["step", "state", "outputs", "inputs"]
    return {line.split("  ")[0].strip(): line.split("  ", 1)[1].strip().split("  ")[0] for line in lines}


def report(folder: Path) -> dict[str, dict]:
    values = json.loads((folder / "runs/recipe_report/report.json").read_text())
    return {row["name"]: row for row in values["steps"]}


def test_a_chain_runs_once(folder):
    assert set(states(folder).values()) == {"missing"} and not (folder / "runs").exists()
    done = start(folder)
    assert done.returncode == 0, done.stderr
    assert ran(folder) == ORDER
    assert "== second (4 of 5): python -m learn --workdir=runs/second --steps=4" in done.stdout
    assert done.stdout.endswith("recipe.py: all done; runs/recipe_report/report.md\n")
    assert set(states(folder).values()) == {"done"}
    done = start(folder)
    assert (done.returncode, ran(folder)) == (0, [])
    assert start(folder, "--dry-run").stdout == "\n"


def test_the_report(folder):
    start(folder, "--curves")
    rows = report(folder)
    assert list(rows) == ["data", "first", "apart", "second", "end"]
    assert {row["state"] for row in rows.values()} == {"done"}
    assert (rows["first"]["steps"], rows["first"]["of"]) == (4, 4)
    assert rows["first"]["loss"] == pytest.approx((1 / 3 + 1 / 4) / 2)  # of the last two steps, as log_every says
    assert rows["first"]["wall_s"] > 0.2 and rows["first"]["cpu_s"] > 0
    assert rows["data"]["figures"] == {"clips": 3, "psnr_db": 17.71234}
    text = (folder / "runs/recipe_report/report.md").read_text()
    assert "| first | done | 0 s | 0.00 | 4 of 4 | 0.2917 |" in text and "| psnr_db | 17.71 |" in text
    pytest.importorskip("matplotlib")
    assert "(curves.png)" in text and (folder / "runs/recipe_report/curves.png").exists()
    assert start(folder, "--report=elsewhere/x").returncode == 0 and (folder / "elsewhere/x/report.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_program_which_saves_and_goes_on(folder, number, code):
    running = begin(folder)
    running.send_signal(number)
    assert running.wait(30) == code
    if number == signal.SIGTERM:  # on Ctrl-C this program just ends
        assert os.listdir(folder / "runs/first/checkpoints") != []
    said = (folder / "said").read_text()
    assert said.endswith("stopped: in step first; to go on: python -m launch.recipe recipe.py:slow\n")
    assert ran(folder) == ORDER[:2]
    assert states(folder, "slow") == {"data": "done", "first": "started"} | dict.fromkeys(
        ("apart", "second", "end"), "missing"
    )
    assert report(folder)["first"]["state"] == "started"
    assert start(folder, text="slow").returncode == 0
    assert ran(folder) == ORDER[1:]


def test_killed_in_the_middle_it_does_what_is_missing(folder):
    running = begin(folder)
    running.kill()
    running.wait()
    refused = start(folder, text="slow")  # its program goes on alone, and two must not write into one folder
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "another run of this recipe has not ended: step first is running as process" in refused.stderr
    assert ran(folder) == ORDER[:2]
    wait_for(lambda: start(folder, text="slow").returncode != 2)
    assert ran(folder) == ORDER[1:]
    assert set(states(folder, "slow").values()) == {"done"}


def test_a_step_that_fails_ends_the_chain(folder):
    done = start(folder, text="fail")
    assert (done.returncode, ran(folder)) == (7, ORDER)
    assert done.stderr == (
        "error: step end ended with exit code 7; once it is put right, go on with: "
        "python -m launch.recipe recipe.py:fail\n"
    )
    assert states(folder, "fail")["end"] == "started"
    assert start(folder).returncode == 0
    assert ran(folder) == ["out/end"]


def test_another_command_runs_again_with_what_depends_on_it(folder):
    start(folder)
    ran(folder)
    now = {"data": "changed (it ran with another command)", "first": "stale (data is to run first)", "apart": "done"}
    assert states(folder, "other").items() >= now.items()
    done = start(folder, text="other")
    assert (done.returncode, ran(folder)) == (0, ["data/a", "runs/first", "runs/second", "out/end"])
    assert "note: data runs again: changed (it ran with another command)" in done.stdout
    assert "to make all of it anew, stop this and first: rm -r data/a runs/first runs/second out/end" in done.stdout
    assert set(states(folder, "other").values()) == {"done"}


def test_a_program_that_refuses_what_is_there(folder):
    start(folder)
    done = start(folder, text="refuse")
    assert done.returncode == 2
    assert "(if it refuses what another configuration made, first: rm -r out/end)" in done.stderr


def test_an_output_that_is_gone_is_made_again(folder):
    start(folder)
    ran(folder)
    (folder / "data/apart").unlink()
    assert states(folder)["apart"] == "missing (data/apart is gone)"
    done = start(folder)
    assert (done.returncode, ran(folder)) == (0, ["data/apart", "out/end"])
    assert "note: apart runs again: missing (data/apart is gone)" in done.stdout
    assert "note: end runs again: stale (apart is to run first)" in done.stdout


def test_what_depends_on_a_remade_step_runs_even_after_a_stop(folder):
    start(folder)
    (folder / "data/apart").unlink()
    start(folder, text="fail")  # apart is made again, end is not
    ran(folder)
    assert start(folder).returncode == 0
    assert ran(folder) == ["out/end"]


def test_from_a_step(folder):
    start(folder)
    ran(folder)
    assert start(folder, "--from=second", "--dry-run").stdout.count("python -m") == 2
    done = start(folder, "--from=second")
    assert (done.returncode, ran(folder)) == (0, ["runs/second", "out/end"])
    assert "note: second runs again: asked for by --from" in done.stdout
    assert start(folder, "--from=third").stderr == (
        "error: there is no step 'third'; the recipe has data, first, apart, second, end\n"
    )


def test_minutes_are_shared_and_what_was_cut_goes_on(folder):
    done = start(folder, "--minutes=0.04", text="long")
    assert done.returncode == 0, done.stderr
    assert ran(folder) == ORDER
    assert states(folder, "long") == dict.fromkeys(("data", "apart", "end"), "done") | dict.fromkeys(
        ("first", "second"), "cut"
    )
    assert "as far as the minutes went" in done.stdout
    rows = report(folder)
    assert 0 < rows["first"]["steps"] < 400 and rows["first"]["of"] == 400
    assert rows["first"]["wall_s"] == pytest.approx(1.2, abs=0.5)  # half of 2.4 s, less what data took
    assert sum(row["wall_s"] for row in rows.values()) < 4

    assert start(folder, "--minutes=0.04", text="long").returncode == 0
    assert ran(folder) == []  # these minutes are spent
    done = start(folder, "--minutes=0.08", text="long")
    assert (done.returncode, ran(folder)) == (0, ["runs/first", "runs/second"])
    again = report(folder)
    assert all(again[name]["steps"] > rows[name]["steps"] for name in ("first", "second"))
    assert states(folder, "long")["second"] == "cut (made before first went on)"
    assert states(folder, "long")["end"] == "done (made before first, second went on)"
    assert "note: end is done (made before first, second went on)" in done.stdout
    assert start(folder, "--from=end", "--minutes=0.08", text="long").returncode == 0
    assert states(folder, "long")["end"] == "done (made before first went on)"  # second still is of the old first


def test_minutes_that_are_too_few(folder):
    done = start(folder, "--minutes=0.0001", text="long")
    sentence = "error: --minutes=0.0001 are over before step first; give more of them\n"
    assert (done.returncode, done.stderr) == (1, sentence)
    done = start(folder, "--minutes=0.05", text="long,deaf")  # it dies before it has a checkpoint
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "s were too short for step first to save anything; give more --minutes" in done.stderr
    (folder / "runs/first/checkpoints/3").mkdir()
    assert start(folder, "--minutes=0.1", text="long,deaf").returncode == 0
    assert states(folder, "long,deaf")["first"] == "cut"


def test_an_output_that_a_program_does_not_write(folder):
    text = RECIPE.replace('("out/end",)', '("out/end", "out/other")')
    (folder / "recipe.py").write_text(text)
    done = start(folder)
    assert done.returncode == 1
    assert done.stderr == "error: step end ended well without out/other; the recipe names other outputs\n"
    assert states(folder)["end"] == "started"


def test_a_given_file_that_is_not_there(folder):
    (folder / "given").unlink()
    done = start(folder)
    assert (done.returncode, ran(folder)) == (2, [])
    assert done.stderr == "error: step data needs given, which the recipe takes as given; it isn't there\n"


def test_the_plain_commands_run_by_themselves(folder):
    done = start(folder, "--dry-run")
    assert done.stdout.splitlines()[:2] == ["mkdir -p data out runs", "python -m make --out=data/a --json=data/a.json"]
    script = done.stdout.replace("python ", f"{sys.executable} ")
    subprocess.run(["bash", "-e"], input=script, cwd=folder, text=True, check=True)
    assert ran(folder) == ORDER and not (folder / "runs/recipe.json").exists()


SBATCH = """#!/bin/bash
printf '%s\\n' "$*" >> jobs
wc -l < jobs
"""


def test_the_chain_on_slurm(folder):
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    text = RECIPE.replace('("learn", ', '("launch.train", ')
    (folder / "recipe.py").write_text(text)
    script = start(folder, "--sbatch", "--nodes=4").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash"], input=script, cwd=folder, text=True, check=True, env=environment)
    data, first, apart, second, end = (folder / "jobs").read_text().splitlines()
    wrapped = '--wrap="${PYTHON:-.venv/bin/python}" -m make'
    assert data == f"--parsable --job-name=data --output=%x-%j.log {wrapped} --out=data/a --json=data/a.json"
    waits, then = (
        "--dependency=afterok:{} --kill-on-invalid-dep=yes",
        "--nodes=4 launch/slurm/train.sbatch --workdir=runs",
    )
    assert first == f"--parsable --job-name=first {waits.format(1)} {then}/first --steps=4"
    assert "--dependency" not in apart
    assert second == f"--parsable --job-name=second {waits.format(2)} {then}/second --steps=4"
    assert waits.format("3:4") in end


def test_only_what_is_left_goes_to_slurm(folder):
    start(folder, text="fail")
    script = start(folder, "--sbatch").stdout
    assert script.count("$(sbatch") == 1 and "--dependency" not in script


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: expected a recipe after the program's name, such as recipes/tiny.py"),
        (["--list"], "error: expected a recipe after the program's name, such as recipes/tiny.py"),
        (["none.py"], "error: none.py: expected a recipe, a Python file with get_recipe()"),
        (["given"], "error: given: expected a recipe, a Python file with get_recipe()"),
        (["make.py"], "error: make.py can't be used: KeyError: 'out'"),
        (["broken.py"], "error: broken.py can't be used: SyntaxError: "),
        (["empty.py"], "error: empty.py can't be used: AttributeError: module 'recipe' has no attribute 'get_recipe'"),
        (["number.py"], "error: number.py: get_recipe() gives a int, expected a launch.recipe_chain.Recipe"),
        (["number.py:x"], "error: number.py:x can't be used: TypeError: "),
        (["twice.py"], "error: twice.py can't be used: two steps are called a"),
        (["recipe.py", "stray"], "error: 'stray' is no flag; flags look like --name=value"),
        (["recipe.py", "--minutes=0"], "error: --minutes=0: expected a number above 0"),
        (["recipe.py", "--nodes=2"], "error: --nodes=2 is for --sbatch"),
        (["recipe.py", "--list", "--sbatch"], "error: --list, --dry-run and --sbatch exclude each other"),
        (["recipe.py", "--sbatch", "--minutes=1"], "error: --minutes can't be shared among Slurm's jobs"),
        (["recipe.py", "--report=given"], "error: the output folder given can't be made"),
    ],
)
def test_bad_input_is_one_sentence(folder, arguments, sentence):
    files = {
        "broken.py": "def", "empty.py": "", "number.py": "def get_recipe(): return 1",
        "twice.py": "from launch.recipe_chain import *\nget_recipe = lambda: Recipe((Step('a', ('m',)),) * 2)",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text)
    called = command((), "") | {"args": [sys.executable, "-m", "launch.recipe", *arguments]}
    done = subprocess.run(**called, cwd=folder, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1
    assert ran(folder) == []


def test_a_ledger_that_is_broken(folder):
    (folder / "runs").mkdir()
    (folder / "runs/recipe.json").write_text("{")
    done = start(folder)
    assert done.returncode == 2 and done.stderr.startswith("error: runs/recipe.json can't be read")
