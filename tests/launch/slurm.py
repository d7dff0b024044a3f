"""A Slurm of one node on this machine, for as long as a test needs it: munged, slurmctld and slurmd in one folder.

Debian and Ubuntu: apt-get install slurm-wlm munge. The daemons must be started by root.
"""

import os
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_HOST = socket.gethostname().split(".")[0]

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} Gres=gpu:8 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """Slurm can't run here; says why."""


class Slurm:
    """A context manager.

    Raises:
      Unavailable: on entering.
    """

    def __init__(self, folder):
        self.folder, self._daemons = folder, []
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}

    def __enter__(self):
        missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
        if missing:
            raise Unavailable(f"{', '.join(missing)} is not installed")
        if os.getuid():
            raise Unavailable("its daemons must be started by root")
        self._configure()
        try:
            key, munge = self.folder / "munge.key", self.folder / "munge.socket"
            files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("log", "pid", "seed")]
            self._start("munged", "--foreground", "--force", f"--socket={munge}", f"--key-file={key}", *files)
            self._wait("munged", munge.exists)
            self._start("slurmctld", "-D", "-c")
            self._wait("slurmctld", lambda: self.run("scontrol", "ping").returncode == 0)
            self._start("slurmd", "-D", "-N", _HOST)
            self._wait("slurmd", lambda: "State=IDLE" in self.run("scontrol", "show", "node", _HOST).stdout)
        except Unavailable:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        if len(self._daemons) == 3:  # what jobs have started would outlive the daemons
            self.run("scancel", "--state=RUNNING", f"--nodelist={_HOST}")
            self.run("scancel", "--state=PENDING", "--partition=main")
            until = time.monotonic() + 60
            while self.run("squeue", "--noheader").stdout.strip() and time.monotonic() < until:
                time.sleep(0.5)
        for _, daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def run(self, *command, **environment):
        """A command of Slurm, with its output."""
        given = self.environment | environment
        return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)

    def show(self, job):
        """What Slurm knows of a job, by name."""
        words = self.run("scontrol", "show", "job", job).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self, name, lines=15):
        file = self.folder / f"{name}.log"
        return "\n".join(file.read_text().splitlines()[-lines:]) if file.exists() else ""

    def _configure(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        ports = {"port": _free_port(), "node_port": _free_port()}
        config = _CONFIG.format(folder=self.folder, host=_HOST, cpus=os.cpu_count(), **ports)
        (self.folder / "slurm.conf").write_text(config)
        for index in range(8):  # as many GPUs as the template wants; Slurm only looks whether their files are there
            (self.folder / f"gpu{index}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-7]\n")

    def _start(self, name, *arguments):
        with (self.folder / f"{name}.out").open("w") as out:
            daemon = subprocess.Popen([shutil.which(name, path=_PATH), *arguments], env=self.environment,
                                      stdout=out, stderr=out)  # fmt: skip
        self._daemons.append((name, daemon))

    def _wait(self, name, ready, timeout_s=60):
        until, (_, daemon) = time.monotonic() + timeout_s, self._daemons[-1]
        while not ready():
            if daemon.poll() is not None or time.monotonic() > until:
                said = (self.folder / f"{name}.out").read_text().strip() or self.log(name)
                raise Unavailable(f"{name} did not start: {said[-1500:]}")
            time.sleep(0.2)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
