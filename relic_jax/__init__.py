"""relic-jax: RELIC (arXiv 2512.04040), the interactive video world model with long-horizon memory, in JAX.

    from relic_jax import Session, RelicConfig, load

Names are imported when they are used: a program that only asks for a version needn't wait for JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relic_jax.config import RelicConfig
    from relic_jax.models.bundle import load
    from relic_jax.stream.session import Session

__all__ = ["RelicConfig", "Session", "load"]

_MODULES = {"RelicConfig": "relic_jax.config", "Session": "relic_jax.stream.session", "load": "relic_jax.models.bundle"}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
