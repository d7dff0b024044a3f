"""Fetches published weights from huggingface.co, or says what to fetch by hand."""

from __future__ import annotations

from pathlib import Path

from relic_jax.errors import InputError
from weights_convert.tables import Layout, Model


def patterns(form: Layout) -> list[str]:
    """The files of a layout, as huggingface_hub's patterns."""
    names = [form.file] if form.is_pickle else [f"{form.file}*.safetensors", f"{form.file}.safetensors.index.json"]
    names += [] if form.is_pickle else ["config.json"]
    return [f"{form.folder}/{name}".lstrip("/") for name in names]


def download(name: str, dst: Path, *, model: Model, layout: str) -> Path:
    """Downloads into `dst`, where the same call goes on with what is missing; returns `dst`.

    Raises:
      InputError: there is no network or the site refuses: what to fetch by hand, and the next command.
    """
    form = model.layouts[layout]
    try:
        import huggingface_hub

        huggingface_hub.snapshot_download(form.repository, allow_patterns=patterns(form), local_dir=dst)
    except ImportError as error:
        raise InputError(
            f'downloading takes huggingface_hub: pip install "relic-jax[convert]"; {_by_hand(name, dst, form)}'
        ) from error
    except Exception as error:  # its errors for a missing network have no common class
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{form.repository} can't be downloaded: {reason}; {_by_hand(name, dst, form)}") from error
    return dst


def _by_hand(name: str, dst: Path, form: Layout) -> str:
    files = ", ".join(patterns(form))
    return (
        f"where there is a network, fetch {files} from https://huggingface.co/{form.repository}/tree/main, keep the "
        f"folders, and run: python -m weights_convert to-relic --model {name} --src {dst} --dst DIR"
    )
