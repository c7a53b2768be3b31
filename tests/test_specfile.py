"""Job files: each error names file, line, key, what was found and what is accepted; all of them at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maas_client.errors import SpecError
from maas_client.jobschema import job_schema
from maas_client.spec import DeploySpec, JobSpec
from maas_client.specfile import deploy_spec, load_spec
from tests.conftest import JOB

WriteJob = Callable[..., Path]


def problems(path: Path, *overrides: str) -> list[str]:
    """The problems of a job file, without the folder of the file."""
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    assert caught.value.hint
    folder = str(path.parent)
    return [one.replace(f"{folder}/", "").replace(folder, "FOLDER") for one in caught.value.problems]


def refusal(path: Path) -> str:
    """The one sentence for a file that cannot be read as a job file at all."""
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert caught.value.problems == ()
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message.replace(f"{path.parent}/", "")


def test_a_small_file_gets_every_default(write_job: WriteJob) -> None:
    path = write_job()
    spec = load_spec(path)
    assert spec.data.train == path.parent / "rows.jsonl"
    assert (spec.backend, spec.method.name, spec.training.batch_size) == ("local", "lora", 8)
    assert spec.register_as is None


def test_every_problem_of_a_file_at_once(write_job: WriteJob, snapshot: Any) -> None:
    text = """\
name: Card Support
task: classificaton
data:
  train: row.jsonl
  validation: {split: 2, file: [a]}
method: {name: lora, rnk: 8, target_modules: {a: 1}}
training:
  epochs: 0
  epochs: two
  learning_rate: 5e-4x
  packing: yes
  gradient_checkpointing: sometimes
  seed: 1.5
distributed: {processes: 4}
deploy: {ttl: 4hours, port: 99999}
regster: {name: x}
"""
    assert problems(write_job(text)) == snapshot


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("traning: {}", "job.yaml:6: traning: unknown key 'traning'; accepted: name, task"),
        ("backend: azure", "backend: found 'azure'; accepted: local, azureml, foundry, kaito"),
        ("backend: azurml", "; did you mean azureml?"),
        ("method: lora", "method: found 'lora'; accepted: keys name, rank"),
        ("method: {rank: 8.0}", "method.rank: found 8.0; accepted: a whole number, at least 1, at most 1024"),
        ('method: {rank: "8"}', "method.rank: found '8'; accepted: a whole number"),
        ("method: {rank: true}", "method.rank: found true; accepted: a whole number"),
        ("method: {target_modules: []}", "method.target_modules: found an empty list; accepted: all-linear"),
        (
            "method: {target_modules: [1]}",
            "method.target_modules: found a list; accepted: all-linear, a list",
        ),
        ("method:", "method: found nothing; accepted: keys name"),
        ("register: {name: X}", "register.name: found 'X'; accepted: 2 to 32 lower-case letters"),
        ("register_as: {name: x1}", "unknown key 'register_as'; accepted: "),
        ("deploy: {name: x1}", "deploy: found no register beside it; accepted: register: {name: ...}"),
        ("distributed: {processes: 2}", "distributed.processes: found 2 with strategy none; accepted: 1, or"),
        ("evaluation: {max_rows: .inf}", "evaluation.max_rows: found inf; accepted: a whole number"),
        ("7: x", "job.yaml:6: 7: found a key that is not text"),
    ],
)
def test_one_problem(write_job: WriteJob, line: str, message: str) -> None:
    found = problems(write_job(JOB + line + "\n"))
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("job.yaml:6: ")


@pytest.mark.parametrize(
    "value",
    ["1_000", "1:30", "yes", "0x10", ".nan", ".inf", "-1", "0", "1e400", "[1]", "9" * 400, "2026-11-24"],
)
def test_what_is_not_a_learning_rate(write_job: WriteJob, value: str) -> None:
    found = problems(write_job(), f"training.learning_rate={value}")
    assert len(found) == 1
    assert found[0].startswith("--set: training.learning_rate: found ")
    assert "accepted: a number, more than 0, at most 1" in found[0]


@pytest.mark.parametrize(("value", "number"), [("5e-4", 5e-4), ("5.0e-4", 5e-4), (".5", 0.5), ("1", 1.0)])
def test_what_is_a_learning_rate(write_job: WriteJob, value: str, number: float) -> None:
    assert load_spec(write_job(), [f"training.learning_rate={value}"]).training.learning_rate == number


@pytest.mark.parametrize(
    "encode", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")]
)
def test_marks_of_other_systems_are_taken(write_job: WriteJob, encode: Callable[[bytes], bytes]) -> None:
    path = write_job()
    path.write_bytes(encode(path.read_bytes()))
    assert load_spec(path).name == "card-support"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"name: a\n\ttask: b\n",
            "job.yaml:2: not valid YAML: while scanning for the next token, found char",
        ),
        (b"name: 'a\n", "job.yaml:2: not valid YAML: while scanning a quoted scalar, found unexpected end"),
        (b"a: 1\n---\nb: 1\n", "job.yaml:2: not valid YAML: expected a single document in the stream, but"),
        (b"\x00\x01\x02PNG", "job.yaml is not valid YAML: unacceptable character #x0000"),
        (b"\x89PNG\r\n\x1a\n", "job.yaml is not UTF-8 text (byte 0)."),
        (b"name: caf\xe9\n", "job.yaml is not UTF-8 text (byte 9)."),
        (b"name: x\n" * 300_000, "job.yaml is larger than 64 KiB: that is not a job file."),
        (b"[" * 60_000, "job.yaml is not valid YAML: it is nested too deep."),
        (b"a: !!python/name:os.system x\n", "job.yaml:1: not valid YAML: could not determine a constructor"),
    ],
)
def test_files_that_are_no_job_files(write_job: WriteJob, content: bytes, message: str) -> None:
    path = write_job()
    path.write_bytes(content)
    began = time.perf_counter()
    assert refusal(path).startswith(message)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("content", ["", "\ufeff", "# nothing\n", "[name, task]\n", "hello\n"])
def test_files_without_keys_say_what_is_missing_too(write_job: WriteJob, content: str) -> None:
    found = problems(write_job(content))
    assert found[0].startswith("job.yaml:1: ")
    assert "accepted: keys such as name, task, model, data" in found[0]


def test_a_file_that_is_not_there_gets_a_close_match(write_job: WriteJob) -> None:
    path = write_job()
    with pytest.raises(SpecError, match="There is no job file") as caught:
        load_spec(path.with_name("jobb.yaml"))
    assert caught.value.hint == f"Did you mean {path}?"
    with pytest.raises(SpecError) as caught:
        load_spec(path.parent / "nowhere" / "x.yaml")
    assert caught.value.hint == "maas init writes one."


@pytest.mark.parametrize("name", [".", "/dev/zero", "job.yaml/deeper", "n" * 300])
def test_paths_that_are_no_files(write_job: WriteJob, name: str) -> None:
    path = write_job().parent / name
    assert refusal(path)


def test_a_data_file_that_is_not_there_gets_a_close_match(write_job: WriteJob) -> None:
    path = write_job(JOB.replace("rows.jsonl", "row.jsonl"))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert caught.value.problems == (
        f"{path}:4: data.train: found 'row.jsonl', which does not exist; "
        f"accepted: a file, relative to {path.parent}; did you mean rows.jsonl?",
    )


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (".", "is a folder"),
        ("''", "is a folder"),
        ("~nobody-here/x", "does not exist"),
        ("x/" * 3000, "does not exist"),
        ("n" * 300, "does not exist"),
        ('"a\\0b"', "does not exist"),
        ('"\\ud800"', ""),
        ("${HOME}/x", "found '${HOME}/x', which does not exist"),
    ],
)
def test_odd_data_paths(write_job: WriteJob, value: str, what: str) -> None:
    found = problems(write_job(), f"data.train={value}")
    assert len(found) == 1
    assert what in found[0]


def test_paths_are_relative_to_the_file_and_home_is_known(
    write_job: WriteJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_job(JOB.replace("rows.jsonl", "sub/../rows.jsonl") + "register: {name: aa}\n")
    (path.parent / "sub").mkdir()
    (path.parent / "base").mkdir()
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.chdir(tmp_path)
    spec = load_spec(Path("job/job.yaml"), ["data.validation.file=~/rows.jsonl", "model=base"])
    assert spec.data.train == path.parent / "sub/../rows.jsonl"
    assert spec.data.validation.file == path.parent / "rows.jsonl"
    assert spec.model == str(path.parent / "base")


@pytest.mark.parametrize("model", ["microsoft/Phi-4-mini-instruct", "tiny-phi3", "no/such/folder"])
def test_a_model_that_is_no_folder_stays_as_it_is(write_job: WriteJob, model: str) -> None:
    assert load_spec(write_job(), [f"model={model}"]).model == model


def test_variables_are_not_expanded(write_job: WriteJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "other")
    assert load_spec(write_job(), ["model=${MODEL}"]).model == "${MODEL}"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.epochs=2", "training.epochs", 2),
        ("training.epochs = 2", "training.epochs", 2),
        ("training.max_steps=null", "training.max_steps", None),
        ("training.max_steps=", "training.max_steps", None),
        ("training={epochs: 2}", "training.epochs", 2),
        ("evaluation.max_rows=5", "evaluation.max_rows", 5),
        ("method.target_modules=[a, b]", "method.target_modules", ["a", "b"]),
        ("model='a=b'", "model", "a=b"),
        ("model=a=b", "model", "a=b"),
        ('model="8"', "model", "8"),
        ("register.name=kept", "register_as.name", "kept"),
        ("training.gradient_checkpointing=false", "training.gradient_checkpointing", False),
    ],
)
def test_overrides_win(write_job: WriteJob, override: str, key: str, value: object) -> None:
    place: Any = load_spec(write_job(), [override])
    for part in key.split("."):
        place = getattr(place, part)
    assert place == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "found --set 'training.epochs'; accepted: --set key.path=value"),
        ("=3", "found --set '=3'; accepted: --set key.path=value"),
        ("training..epochs=3", "accepted: --set key.path=value"),
        ("model=[", "model: found a value that is not YAML: '['; accepted: a plain value, or one in quotes"),
        (
            "model=@x",
            "model: found a value that is not YAML: '@x'; accepted: a plain value, or one in quotes",
        ),
        (
            "training.epoch=3",
            "training.epoch: unknown key 'epoch'; accepted: objective, beta, epochs, max_steps",
        ),
        ("name.first=3", "name: found keys first; accepted: 2 to 32"),
        (
            "training.epochs=three",
            "training.epochs: found 'three'; accepted: a number, more than 0, at most 1000",
        ),
    ],
)
def test_overrides_that_are_wrong(write_job: WriteJob, override: str, message: str) -> None:
    found = problems(write_job(), override)
    assert len(found) == 1
    assert found[0].startswith("--set: ")
    assert message in found[0]


def test_an_override_below_an_alias_changes_one_place(write_job: WriteJob) -> None:
    path = write_job(JOB + "register: &n {name: aa}\ndeploy: *n\n")
    spec = load_spec(path, ["deploy.ttl=1h", "deploy.name=bb"])
    assert spec.register_as is not None
    assert spec.deploy is not None
    assert (spec.register_as.name, spec.deploy.name, spec.deploy.ttl_s) == ("aa", "bb", 3600)


@pytest.mark.parametrize(
    ("name", "ttl", "port", "message"),
    [
        ("Bad Name", "4h", 0, "--name: found 'Bad Name'; accepted: 2 to 32 lower-case letters"),
        ("ok", "4 hours", 0, "--ttl: found '4 hours'; accepted: a number and s, m, h or d"),
        ("ok", "99999999d", 0, "--ttl: found '99999999d'"),
        ("ok", "4h", 70000, "--port: found 70000; accepted: a whole number, at least 0, at most 65535"),
    ],
)
def test_words_of_the_command_line(name: str, ttl: str, port: int, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        deploy_spec(name, ttl=ttl, port=port)
    assert caught.value.message.startswith(message)


def test_a_deployment_of_the_command_line_takes_the_defaults_of_what_is_not_said() -> None:
    words = {"ttl": "1h", "port": None, "size": "Standard_DS3_v2", "instances": 2, "sku": None}
    assert deploy_spec("card", **words) == DeploySpec(
        name="card", ttl="1h", size="Standard_DS3_v2", instances=2
    )
    with pytest.raises(SpecError, match="--capacity: found 0; accepted: a whole number, at least 1"):
        deploy_spec("card", capacity=0)


# -- whatever stands in a file, the answer is a JobSpec or a SpecError

KEYS = st.sampled_from(
    [*JobSpec.model_fields, "register", "training.epochs", "train", "split", "rank", "", "x"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["lora", "chat"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5) | st.integers(), inner)
    ),
    max_leaves=15,
)
VALID: dict[str, Any] = {
    "name": "card-support",
    "task": "chat",
    "model": "tiny-phi3",
    "data": {"train": "rows.jsonl", "validation": {"split": 0.2}},
    "method": {"name": "lora", "target_modules": ["qkv_proj"]},
    "training": {"epochs": 2, "learning_rate": 5e-4, "max_steps": 4, "gradient_checkpointing": False},
    "evaluation": {"max_rows": 3},
    "distributed": {"strategy": "ddp", "processes": 2},
    "register": {"name": "kept"},
    "deploy": {"name": "served", "ttl": "30m", "port": 8000},
}
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, text: str) -> JobSpec | SpecError:
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    answer: JobSpec | SpecError
    try:
        answer = load_spec(path)
    except SpecError as error:
        answer = error
    assert all("\n" not in problem for problem in getattr(answer, "problems", ()))
    return answer


@MANY
@given(data=ANYTHING)
def test_any_structure(write_job: WriteJob, data: Any) -> None:
    answer = read(write_job(), yaml.dump(data, allow_unicode=True))
    assert isinstance(answer, SpecError)


def places(data: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in nested dicts."""
    below = data.items() if isinstance(data, dict) else ()
    return [above, *(path for key, value in below for path in places(value, (*above, key)))]


def changed(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> Any:
    """A copy of nested dicts with one value replaced."""
    if not path:
        return value
    return {**data, path[0]: changed(data[path[0]], path[1:], value)}


@MANY
@given(path=st.sampled_from(places(VALID)), value=ANYTHING)
def test_a_valid_file_with_one_value_replaced(write_job: WriteJob, path: tuple[str, ...], value: Any) -> None:
    file = write_job()
    answer = read(file, yaml.dump(changed(VALID, path, value), allow_unicode=True, sort_keys=False))
    if isinstance(answer, SpecError) and path and not isinstance(value, dict | list):
        assert any(path[0] in problem for problem in answer.problems)
    if isinstance(answer, JobSpec):
        answer.model_dump_json()


@MANY
@given(cut=st.integers(0, 400), size=st.integers(0, 20), insert=st.text(max_size=6))
def test_a_valid_file_with_characters_replaced(write_job: WriteJob, cut: int, size: int, insert: str) -> None:
    text = yaml.safe_dump(VALID, sort_keys=False)
    read(write_job(), text[:cut] + insert + text[cut + size :])


# -- what is read can be written

NAMES = st.from_regex(r"[ -~\u00a1-\u024f]{1,8}", fullmatch=True)
PARTS = st.fixed_dictionaries(
    {"epochs": st.floats(0.1, 1000), "learning_rate": st.floats(1e-6, 1), "packing": st.booleans()},
    optional={"max_steps": st.none() | st.integers(1, 10**6), "seed": st.integers(0, 2**32 - 1)},
)


@MANY
@given(training=PARTS, modules=st.just("all-linear") | st.lists(NAMES, min_size=1))
def test_a_spec_written_as_json_which_is_yaml_is_the_same_spec(
    write_job: WriteJob, training: Any, modules: Any
) -> None:
    file = write_job()
    first = read(file, json.dumps({**VALID, "training": training, "method": {"target_modules": modules}}))
    assert isinstance(first, JobSpec), first
    assert read(file, first.model_dump_json(indent=2)) == first


def test_the_schema_accepts_what_is_read(write_job: WriteJob) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(job_schema())
    assert list(validator.iter_errors(VALID)) == []
    assert isinstance(read(write_job(), yaml.safe_dump(VALID)), JobSpec)
    for path in places(VALID)[1:]:
        wrong = changed(VALID, path, {"no": "such"})
        assert list(validator.iter_errors(wrong)), path
        assert isinstance(read(write_job(), yaml.safe_dump(wrong)), SpecError), path


def test_a_chat_template_is_found_beside_the_job_file(write_job: WriteJob) -> None:
    text = JOB.replace("train: rows.jsonl,", "train: rows.jsonl, chat_template: own.jinja,")
    path = write_job(text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert "data.chat_template: found 'own.jinja', which does not exist" in caught.value.problems[0]
    (path.parent / "own.jinja").write_text("{{ messages }}")
    assert load_spec(path).data.chat_template == path.parent / "own.jinja"
