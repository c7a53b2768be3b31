"""The capsule of a run: a small file with all that its first losses follow from, and these losses.

Whoever has the same rows and the same base model can take the first steps again and compare (replay.py).
Equal losses say that data, model, code and packages are what they were; and where they are not equal, the
capsule names what is not as it was.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tuning.data import sha256_of
from tuning.errors import InputError

if TYPE_CHECKING:
    from tuning.run import Files, Run

CAPSULE, FORMAT = "capsule.json", 1
CODE = Path(__file__).parent.parent
PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "peft", "accelerate", "numpy"),
    *("bitsandbytes", "deepspeed", "liger-kernel"),
)
OF_A_MODEL = ("*.json", "*.safetensors", "*.jinja", "*.model")


def capsule_of(run: Run) -> dict[str, Any]:
    """What the capsule of a run holds. Reads the base model's files once, for their hashes."""
    config, progress = run.config, run.progress
    files = {name: str(path.absolute()) for name, path in run.files.sources.items()}
    return {
        "format": FORMAT,
        "seed": config.training.seed,
        "first_losses": progress.first_losses,
        "hashes": hashes_of(run.files),
        "surroundings": surroundings(run.processes.device, run.processes.count, run.batches.parts),
        "files": {**files, "model": place_of(run.files.model)},
        "chosen": {"precision": run.precision, "threads": torch.get_num_threads()},
        "config": asdict(config),
    }


def read_capsule(path: Path) -> dict[str, Any]:
    """A capsule that `capsule_of` made. Raises InputError for anything else."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != FORMAT or not value["first_losses"]:
            raise KeyError("format")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not the capsule of a run ({error}); give its {CAPSULE}.") from error
    return value


def hashes_of(files: Files) -> dict[str, str]:
    """The SHA-256 of each file of rows and of the template, and of the base model as a whole."""
    return {
        **{name: sha256_of(path) for name, path in files.sources.items()},
        "model": hash_of_model(files.model),
    }


def hash_of_model(model: str) -> str:
    """The SHA-256 over the files of a model folder, or the commit that Hugging Face's cache has of an id."""
    if not Path(model).is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "config.json")
        return f"commit {Path(found).parent.name}" if isinstance(found, str) else "unknown"
    return _hash_of(Path(model), sorted({path for kind in OF_A_MODEL for path in Path(model).glob(kind)}))


def surroundings(device: torch.device, processes: int, parts: int) -> dict[str, str]:
    """Where the losses were computed, and with what: what may change their last digits.

    `parts`: into so many the micro-batches are cut, for want of memory.
    """
    is_gpu = device.type == "cuda"
    code = [CODE / "train.py", *CODE.glob("tuning/**/*.py")]
    return {
        "code": _hash_of(CODE, sorted(code)),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version_of(name))},
        "device": torch.cuda.get_device_name(device) if is_gpu else "cpu",
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "processes": str(processes),
        "parts of a micro-batch": str(parts),
    }


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, a sentence each."""
    return [
        f"{name} was {_short(then.get(name))} and is {_short(now.get(name))}"
        for name in dict.fromkeys((*then, *now))
        if then.get(name) != now.get(name)
    ]


def place_of(model: str) -> str:
    """A model's folder with its whole path, or its id."""
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def _hash_of(folder: Path, paths: list[Path]) -> str:
    named = [f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in paths]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _short(value: str | None) -> str:
    return "absent" if value is None else value[:12] if len(value) == 64 else value
