"""A run's model as MLflow's `transformers` flavor: what mlflow.transformers loads and Azure ML registers.

MLflow's own way to write it wants the model in memory and (with transformers 5) fails on a folder, so the
layout is made here from the files that the run saved, and its description by MLflow's Model:

    MLmodel  conda.yaml  python_env.yaml  requirements.txt  README.md
    model/ (full weights) or peft/ (an adapter, whose base is named, not copied)
    components/tokenizer/
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tuning import outcome
from tuning.card import CARD
from tuning.events import write_text

TEMPORARY = ".mlflow-model.tmp"
NEEDED = ("torch", "transformers", "accelerate", "safetensors", "peft")


@contextmanager
def flavored(output: Path, base: str, run_id: str) -> Iterator[tuple[Path, Any]]:
    """(folder, MLflow's Model) of the finished run in `output`; the folder is gone afterwards.

    Files are hard links where the disk can do that, so it takes no room. Raises OSError.
    """
    folder = output / TEMPORARY
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder, _write(folder, output / outcome.MODEL, base, run_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, source: Path, base: str, run_id: str) -> Any:
    import transformers
    from mlflow import pyfunc
    from mlflow.models import Model

    is_adapter = (source / "adapter_config.json").is_file()
    shutil.copytree(source, folder / ("peft" if is_adapter else "model"), copy_function=_link)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder / "components" / "tokenizer")
    shutil.copyfile(source / CARD, folder / CARD)
    place = str(Path(base).resolve()) if Path(base).is_dir() else base
    on_base = {"peft_adaptor": "peft", "local_base_model_path": place}
    model = Model(artifact_path="model", run_id=run_id, signature=_text_to_text())
    model.add_flavor(
        "transformers",
        transformers_version=transformers.__version__,
        code=None,
        task="text-generation",
        instance_type="TextGenerationPipeline",
        pipeline_model_type=_architecture(place if is_adapter else str(source)),
        source_model_name=base,
        components=["tokenizer"],
        tokenizer_type=type(tokenizer).__name__,
        **(on_base if is_adapter else {"model_binary": "model"}),
    )
    pyfunc.add_to_model(
        model, loader_module="mlflow.transformers", conda_env="conda.yaml", python_env="python_env.yaml"
    )
    _write_environment(folder)
    model.save(str(folder / "MLmodel"))
    return model


def _text_to_text() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    text = Schema([ColSpec("string")])
    return ModelSignature(inputs=text, outputs=text)


def _architecture(model: str) -> str:
    from transformers import AutoConfig

    return str((AutoConfig.from_pretrained(model).architectures or ["AutoModelForCausalLM"])[0])


def _write_environment(folder: Path) -> None:
    """What the model needs, in the three ways that MLflow asks for it. JSON is YAML."""
    packages = [f"mlflow=={version('mlflow-skinny')}"]
    for name in NEEDED:
        with suppress(PackageNotFoundError):
            packages.append(f"{name}=={version(name).partition('+')[0]}")
    python = platform.python_version()
    pip = {"pip": packages}
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", pip],
    }
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    write_text(folder / "requirements.txt", "\n".join(packages) + "\n")
    write_text(folder / "conda.yaml", json.dumps(conda, indent=2) + "\n")
    write_text(folder / "python_env.yaml", json.dumps(environment, indent=2) + "\n")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
