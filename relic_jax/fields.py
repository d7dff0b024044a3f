"""Frozen dataclasses as configuration: checks of their fields, and their way to and from ml_collections."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import ml_collections


class ConfigError(ValueError):
    """A configuration that can't be used; the message is one sentence for the person who wrote it."""


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with this message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def one_of(owner: Any, name: str, field: str, valid: Sequence[str]) -> None:
    """`owner`'s field is one of these; `name` is what the person calls the owner, as in "config.optimizer"."""
    value = getattr(owner, field)
    require(value in valid, f"{name}.{field}={value!r} is not one of {', '.join(valid)}")


def at_least(owner: Any, name: str, least: int | float, *fields: str) -> None:
    """These fields are finite and not below `least`."""
    for field in fields:
        value = getattr(owner, field)
        require(value >= least and _is_finite(value), f"{name}.{field}={value} must be at least {least}")


def above(owner: Any, name: str, bound: int | float, *fields: str) -> None:
    """These fields are finite and above `bound`."""
    for field in fields:
        value = getattr(owner, field)
        require(value > bound and _is_finite(value), f"{name}.{field}={value} must be above {bound}")


def within(owner: Any, name: str, low: int | float, high: int | float, *fields: str) -> None:
    """These fields lie in [low, high]."""
    for field in fields:
        value = getattr(owner, field)
        require(low <= value <= high, f"{name}.{field}={value} must lie between {low} and {high}")


LARGEST = 2**20  # of a size: checked before anything of it is made


def sizes(owner: Any, name: str, *fields: str, least: int = 1) -> None:
    """These fields, or all their entries, count something that is made: whole, from `least` to LARGEST."""
    for field in fields:
        value = getattr(owner, field)
        for size in value if isinstance(value, tuple) else (value,):
            require(
                isinstance(size, int) and not isinstance(size, bool) and least <= size <= LARGEST,
                f"{name}.{field}={value!r} must lie between {least} and {LARGEST}",
            )


def finite(owner: Any, name: str) -> None:
    """No number of a configuration, however deep, is NaN, infinite or beyond 64 bits."""
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            finite(getattr(owner, field.name), f"{name}.{field.name}")
    elif isinstance(owner, tuple | list):
        for index, value in enumerate(owner):
            finite(value, f"{name}[{index}]")
    elif isinstance(owner, float | int):
        require(_is_finite(owner), f"{name}={str(owner)[:40]} must be a finite number of 64 bits")


def _is_finite(value: float | int) -> bool:
    return -(2**63) <= value < 2**64 if isinstance(value, int) else math.isfinite(value)


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """A dataclass as a ConfigDict whose fields absl's `--config.a.b=` can override (tuples stay tuples)."""
    return ml_collections.ConfigDict(dataclasses.asdict(config), convert_dict=True)


def from_config_dict[T](cls: type[T], values: Any, path: str = "config") -> T:
    """The dataclass `cls` from a ConfigDict or nested dict.

    Raises:
      ConfigError: names the first field that does not exist, is missing a type's shape or has another type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(typing.cast(Any, cls))}
    kwargs = {}
    for key, value in dict(values).items():
        require(key in fields, f"{path}.{key} does not exist; {path} has {', '.join(sorted(fields))}")
        kwargs[key] = _coerce(hints[key], value, f"{path}.{key}")
    return cls(**kwargs)


def first_difference(old: Any, new: Any, path: str = "config") -> tuple[str, Any, Any] | None:
    """Where two configs of one kind first differ: the field's path and both values; None where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        found = (first_difference(old.get(name), new.get(name), f"{path}.{name}") for name in names)
        return next((difference for difference in found if difference is not None), None)
    if not dataclasses.is_dataclass(old) or type(old) is not type(new):
        return None if old == new else (path, old, new)
    fields = (field.name for field in dataclasses.fields(old))
    found = (first_difference(getattr(old, name), getattr(new, name), f"{path}.{name}") for name in fields)
    return next((difference for difference in found if difference is not None), None)


def _coerce(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_config_dict(typing.cast(type, hint), value, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _coerce(next(a for a in arguments if a is not type(None)), value, path)
    if origin is Literal:
        require(value in arguments, f"{path}={value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is dict:
        return {key: _coerce(arguments[1], v, f"{path}.{key}") for key, v in dict(value).items()}
    if hint is Any:
        return value
    if origin is tuple:
        require(isinstance(value, tuple | list), f"{path}={value!r} must be a sequence")
        return tuple(_coerce(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(
        isinstance(value, hint) and not (hint is int and isinstance(value, bool)),
        f"{path}={value!r} must be of type {hint.__name__}",
    )
    return value
