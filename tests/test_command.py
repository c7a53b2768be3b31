"""Commands: the words that run, with every binding in its place."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.bundled import jobs_folder, model_folder
from maas_client.command import CommandJob, JsonFile, bind, evaluation_command, training_command
from maas_client.errors import PlanError
from maas_client.spec import DataSpec, JobSpec, ValidationSpec
from maas_client.trainingspec import DistributedSpec, Task

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
PLACES = st.text(min_size=1, max_size=30)
BLANKS = st.sampled_from(["", " ", "  "])


def job(command: str) -> CommandJob:
    return CommandJob(command, Path("code"), {}, ())


def spec(model: str = "tiny-phi3", **more: object) -> JobSpec:
    facts = {"name": "ab", "task": Task.CHAT, "data": DataSpec(train=Path("rows.jsonl")), **more}
    return JobSpec.model_validate({"model": model, **facts})


@given(inputs=st.dictionaries(NAMES, PLACES), outputs=st.dictionaries(NAMES, PLACES), blank=BLANKS)
def test_every_binding_becomes_its_place_whole(
    inputs: dict[str, str], outputs: dict[str, str], blank: str
) -> None:
    words = ["python"] + [f"${{{{{blank}inputs.{name}{blank}}}}}" for name in inputs]
    words += [f"--out=${{{{{blank}outputs.{name}{blank}}}}}/x" for name in outputs]
    bound = bind(job(" ".join(words)), inputs, outputs)
    assert bound == ["python", *inputs.values(), *(f"--out={place}/x" for place in outputs.values())]


@given(words=st.lists(PLACES.filter(lambda word: "${{" not in word)))
def test_quoted_words_stay_words(words: list[str]) -> None:
    assert bind(job(shlex.join(words)), {}, {}) == words


@given(place=st.sampled_from(["${{inputs.a}}", "$(id)", "`id`", "a b", "'", '"', "\\", "a;b", "\n", "*"]))
def test_a_place_is_never_read_again(place: str) -> None:
    assert bind(job('"${{ inputs.a }}" ${{inputs.a}}x'), {"a": place}, {}) == [place, f"{place}x"]


@pytest.mark.parametrize(
    ("command", "binding"),
    [
        ("run ${{inputs.other}}", "${{inputs.other}}"),
        ("run ${{outputs.data}}", "${{outputs.data}}"),
        ("run ${{ search_space.lr }}", "${{search_space.lr}}"),
        ("run ${{}}", "${{}}"),
        ("run '${{ inputs. data }}'", "${{inputs. data}}"),
    ],
)
def test_a_binding_that_nothing_fills(command: str, binding: str) -> None:
    with pytest.raises(PlanError) as caught:
        bind(job(command), {"data": "x"}, {"run": "y"})
    assert caught.value.message == f"The command uses {binding}, which the job does not have."
    assert caught.value.hint == "The job has inputs.data, outputs.run."


@pytest.mark.parametrize("command", ["run 'x", 'run "x', "run x\\"])
def test_a_command_with_a_quote_too_few(command: str) -> None:
    with pytest.raises(PlanError, match="cannot be split into words"):
        bind(job(command), {}, {})


def test_the_training_command_of_a_shipped_model() -> None:
    made = training_command(spec())
    assert made.code == jobs_folder()
    assert made.inputs["model"] == model_folder("tiny-phi3")
    assert made.inputs["train"] == Path("rows.jsonl")
    assert isinstance(made.inputs["config"], JsonFile)
    words = bind(made, {"config": "c.json", "train": "a b.jsonl", "model": "m"}, {"run": "o"})
    assert shlex.join(words) == "python train.py --config c.json --train 'a b.jsonl' --model m --output o"


def test_a_model_from_elsewhere_is_a_name_and_a_folder_is_a_path(tmp_path: Path) -> None:
    assert (
        training_command(spec("microsoft/Phi-4-mini-instruct")).inputs["model"]
        == "microsoft/Phi-4-mini-instruct"
    )
    assert training_command(spec(str(tmp_path))).inputs["model"] == tmp_path


def test_held_out_rows_and_processes_are_part_of_the_command() -> None:
    data = DataSpec(train=Path("a"), validation=ValidationSpec(file=Path("b")))
    made = training_command(spec(data=data, distributed=DistributedSpec(strategy="ddp", processes=2)))
    assert "--nproc-per-node 2 train.py " in made.command
    assert "--validation ${{inputs.validation}}" in made.command
    assert made.inputs["validation"] == Path("b")


def test_scoring_names_the_base_only_for_an_adapter(tmp_path: Path) -> None:
    full = evaluation_command(spec(), tmp_path, Path("rows"), is_adapter=False)
    assert "--base" not in full.command
    adapter = evaluation_command(spec(), tmp_path, Path("rows"), is_adapter=True)
    assert "--base ${{inputs.base}}" in adapter.command
    assert adapter.inputs["base"] == model_folder("tiny-phi3")
    places = dict.fromkeys(adapter.inputs, "p")
    assert "${{" not in " ".join(bind(adapter, places, {"run": "o"}))


def test_azure_starts_the_processes_itself(tmp_path: Path) -> None:
    parts = {"distributed": DistributedSpec(strategy="ddp", processes=2), "compute": {"instances": 2}}
    made = training_command(spec(backend="azureml", **parts))
    assert made.command.startswith("python train.py ")
    assert isinstance(made.inputs["config"], JsonFile)
    assert made.inputs["config"].value["distributed"]["processes"] == 4


def test_one_process_scores_however_many_trained(tmp_path: Path) -> None:
    many = spec(distributed=DistributedSpec(strategy="ddp", processes=2))
    made = evaluation_command(many, tmp_path, Path("rows"), is_adapter=False)
    assert isinstance(made.inputs["config"], JsonFile)
    assert made.inputs["config"].value["distributed"] == DistributedSpec().model_dump()


def test_a_chat_template_is_an_input_of_the_training(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    data = DataSpec(train=Path("rows.jsonl"), chat_template=own)
    made = training_command(spec(data=data))
    assert made.inputs["chat_template"] == own
    assert "--chat-template ${{inputs.chat_template}}" in made.command
    assert "chat_template" not in str(made.inputs["config"])
    assert "--chat-template" not in training_command(spec()).command
