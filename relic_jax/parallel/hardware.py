"""GPUs that programs can be compiled for on a machine that has none, and how fast they are at best.

The figures are the makers' (NVIDIA's data sheets: dense, without sparsity). XLA needs a description of the chip to
compile for it; the text made here is what its own `GpuTargetConfigProto` holds, as OpenXLA's
`backends/gpu/target_config/specs` has for the same chips.
"""

from __future__ import annotations

import dataclasses
import os

import jax

from relic_jax.errors import InputError
from relic_jax.parallel.mesh import MeshShape

_CUDNN = (9, 8)
_TOOLKIT = "12.8.0"


@dataclasses.dataclass(frozen=True)
class GPU:
    """One kind of device. Rates are per second and device; links are what a device sends one way."""

    name: str
    memory_bytes: int
    reserved_bytes: int  # CUDA context, NCCL buffers, fragmentation: not for the program
    memory_rate: float
    bf16_flops: float
    fp8_flops: float
    f32_flops: float  # TF32, XLA's default for float32 products
    link_rate: float  # inside a machine (NVLink)
    network_rate: float  # between machines (one 400 Gb/s adapter a GPU; 200 for A100)
    machine: int  # GPUs in a machine
    capability: tuple[int, int]
    cores: int
    fpus_per_core: int
    clock_ghz: float
    l2_bytes: int
    shared_bytes: int  # a block may ask for
    shared_core_bytes: int

    def flops(self, dtype: str) -> float:
        """Peak rate of matrix products with factors of this type."""
        if dtype.startswith("f8"):
            return self.fp8_flops
        return self.bf16_flops if dtype in ("bf16", "f16") else self.f32_flops

    @property
    def usable_bytes(self) -> int:
        return self.memory_bytes - self.reserved_bytes

    def description(self) -> str:
        """The chip as the text of XLA's `GpuTargetConfigProto`."""
        major, minor = self.capability
        features = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_core_bytes}
  shared_memory_per_block_optin: {self.shared_bytes}
  threads_per_core_limit: 2048
  core_count: {self.cores}
  fpus_per_core: {self.fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {int(self.memory_rate)}
  l2_cache_size: {self.l2_bytes}
  clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {self.memory_bytes}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {features} }}
  name: "{self.name}"
  driver_version: "{_TOOLKIT}"
  runtime_version: "{_TOOLKIT}"
  compile_time_toolkit_version: "{_TOOLKIT}"
  dnn_version: "{_CUDNN[0]}.{_CUDNN[1]}.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: {_CUDNN[0]} minor: {_CUDNN[1]} }}
device_description_str: "{self.name}"
"""


_HOPPER = dict(
    reserved_bytes=3 * 2**30, bf16_flops=989e12, fp8_flops=1979e12, f32_flops=494e12, link_rate=450e9,
    network_rate=50e9, machine=8, capability=(9, 0), cores=132, fpus_per_core=128, clock_ghz=1.98,
    l2_bytes=52428800, shared_bytes=232448, shared_core_bytes=233472,
)  # fmt: skip

GPUS = {
    "a100": GPU(
        "NVIDIA A100-SXM4-80GB", memory_bytes=85100068864, memory_rate=2.039e12, reserved_bytes=3 * 2**30,
        bf16_flops=312e12, fp8_flops=312e12, f32_flops=156e12, link_rate=300e9, network_rate=25e9, machine=8,
        capability=(8, 0), cores=108, fpus_per_core=64, clock_ghz=1.41, l2_bytes=41943040, shared_bytes=166912,
        shared_core_bytes=167936,
    ),
    "h100": GPU("NVIDIA H100 80GB HBM3", memory_bytes=84942979072, memory_rate=3.352e12, **_HOPPER),
    "h200": GPU("NVIDIA H200", memory_bytes=151397597184, memory_rate=4.8e12, **_HOPPER),
    "b200": GPU(
        "NVIDIA B200", memory_bytes=191514411008, memory_rate=7.672e12, reserved_bytes=3 * 2**30,
        bf16_flops=2250e12, fp8_flops=4500e12, f32_flops=1125e12, link_rate=900e9, network_rate=50e9, machine=8,
        capability=(10, 0), cores=148, fpus_per_core=128, clock_ghz=1.965, l2_bytes=132644864, shared_bytes=232448,
        shared_core_bytes=233472,
    ),
}  # fmt: skip


def find(name: str) -> GPU:
    """The GPU of this name.

    Raises:
      InputError: there is none.
    """
    if name not in GPUS:
        raise InputError(f"device {name!r} is not one of {', '.join(GPUS)}")
    return GPUS[name]


def absent_devices(gpu: GPU, shape: MeshShape) -> list[jax.Device]:
    """Devices to compile for, as many as the mesh has; none of them is there.

    Raises:
      InputError: JAX's CUDA plugin is not installed.
    """
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # its versions are checked against a driver
    from jax.experimental import topologies

    count = shape.devices
    machines, each = (count // gpu.machine, gpu.machine) if count % gpu.machine == 0 else (1, count)
    try:
        topology = topologies.get_topology_desc(
            gpu.name, "cuda", topology=f"1x{machines}x{each}", target_config=gpu.description()
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        if "target_config" in str(error):
            raise
        raise InputError(
            f"compiling for {gpu.name} needs JAX's CUDA plugin: pip install 'relic-jax[cuda12]' (no GPU is needed)"
        ) from error
    return list(topology.devices)
