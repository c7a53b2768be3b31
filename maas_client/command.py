"""The command that a job runs, with its inputs and outputs: the same on the laptop and on a cluster.

`${{inputs.x}}` and `${{outputs.y}}` stand in the command line alone, as Azure ML defines them, and are
replaced by the place where the backend put the input or wants the output.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maas_client.bundled import jobs_folder, model_folder
from maas_client.cloudpath import CloudPath
from maas_client.errors import PlanError
from maas_client.spec import JobSpec
from maas_client.trainingspec import DistributedSpec

_BINDING = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")


@dataclass(frozen=True)
class JsonFile:
    """An input file that the client writes: `value` as JSON."""

    value: Mapping[str, Any]


Input = Path | JsonFile | CloudPath | str
"""A local file or folder, text written to a file, what is in the cloud already, or a plain value."""


@dataclass(frozen=True)
class CommandJob:
    """A command line with bindings, the folder of its code, and what its inputs are.

    `inputs` maps a name to its source; a plain value (str) is a word such as a Hugging Face id. `outputs` are
    names of folders that the command fills. The command's working directory is the code folder.
    """

    command: str
    code: Path
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]


def training_command(spec: JobSpec) -> CommandJob:
    """The bundled training script on this spec. Its output, `run`, is the folder that the script fills."""
    inputs: dict[str, Input] = {
        "config": JsonFile(spec.script_config()),
        "train": spec.data.train,
        "model": model_source(spec.model),
    }
    words = ["train.py", "--config ${{inputs.config}}", "--train ${{inputs.train}}"]
    if spec.data.validation.file is not None:
        inputs["validation"] = spec.data.validation.file
        words.append("--validation ${{inputs.validation}}")
    if spec.data.chat_template is not None:
        inputs["chat_template"] = spec.data.chat_template
        words.append("--chat-template ${{inputs.chat_template}}")
    words += ["--model ${{inputs.model}}", "--output ${{outputs.run}}"]
    return CommandJob(" ".join([_launcher(spec), *words]), jobs_folder(), inputs, ("run",))


def evaluation_command(spec: JobSpec, model: Path | CloudPath, data: Path, *, is_adapter: bool) -> CommandJob:
    """The bundled scoring script on a tuned model. Its output, `run`, holds result.json and samples.jsonl.

    `model` is a folder with an adapter (whose base is the spec's model) or full weights; `data` are rows to
    score. What was learned from preferences is measured against the base.
    """
    alone = {"distributed": DistributedSpec().model_dump(mode="json")}
    inputs: dict[str, Input] = {
        "config": JsonFile(spec.script_config() | alone),
        "model": model,
        "data": data,
    }
    words = ["python evaluate.py", "--config ${{inputs.config}}", "--model ${{inputs.model}}"]
    if is_adapter or spec.training.objective == "dpo":
        inputs["base"] = model_source(spec.model)
        words.append("--base ${{inputs.base}}")
    words += ["--data ${{inputs.data}}", "--output ${{outputs.run}}"]
    return CommandJob(" ".join(words), jobs_folder(), inputs, ("run",))


def _launcher(spec: JobSpec) -> str:
    """Plain python for one process, and in Azure, which starts the processes itself; several are torchrun's.

    torchrun runs as python -m of the same python.
    """
    processes = spec.distributed.processes
    if processes == 1 or spec.backend != "local":
        return "python"
    return f"python -m torch.distributed.run --standalone --nproc-per-node {processes}"


def model_source(model: str) -> Path | str:
    """A shipped model or a local folder as a Path, anything else as the name that it is."""
    if shipped := model_folder(model):
        return shipped
    return Path(model) if Path(model).is_dir() else model


def bind(job: CommandJob, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> list[str]:
    """The command's words with every binding replaced. Raises PlanError for a binding that nothing fills."""
    places = {f"inputs.{name}": place for name, place in inputs.items()}
    places |= {f"outputs.{name}": place for name, place in outputs.items()}

    def place(match: re.Match[str]) -> str:
        if match[1] not in places:
            known = f"The job has {', '.join(sorted(places)) or 'no inputs and no outputs'}."
            raise PlanError(f"The command uses {match[0]}, which the job does not have.", hint=known)
        return places[match[1]]

    try:
        words = shlex.split(_BINDING.sub(lambda match: "${{" + match[1] + "}}", job.command))
    except ValueError as error:
        what = f"The command {job.command!r} cannot be split into words: {error}."
        raise PlanError(what, hint="Check its quotes.") from error
    return [_BINDING.sub(place, word) for word in words]
