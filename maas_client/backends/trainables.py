"""What a method would train of a model, counted without torch, and methods that cannot train as the job says.

The counting and the refusals are the training script's own (jobs/tuning): plan and run cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maas_client.backends.modelfiles import Weights
from maas_client.bundled import tuning_module
from maas_client.catalog import Model, lookup
from maas_client.errors import PlanError
from maas_client.plan import PlanStep
from maas_client.spec import JobSpec


@dataclass(frozen=True)
class Trainables:
    """How many numbers a method trains of how many, and the number format of the rest."""

    method: str
    quantization: str
    trained: int
    parameters: int

    @property
    def share(self) -> float:
        """The part of all numbers that is trained, from 0 to 1."""
        return self.trained / self.parameters

    def step(self) -> PlanStep:
        """The line of a plan."""
        base = "" if self.quantization == "none" else f" on an {self.quantization} base"
        share = f"{100 * self.share:.3g} %"
        return PlanStep(
            "train", f"{self.method}{base}", f"{self.trained:,} of {self.parameters:,} parameters, {share}"
        )


def check_method(spec: JobSpec, weights: Weights | None) -> Trainables | None:
    """What would be trained; None for a model that is neither at hand nor in the catalog.

    Raises PlanError for parts of the job that do not work together, and for target modules that the model
    does not have, or not in every block.
    """
    config = tuning_module("config").parse_config(spec.script_config())
    if reason := tuning_module("combinations").refusal(config):
        raise _refused(reason)
    methods = tuning_module("methods")
    method = methods.METHODS[config.method.name]
    try:
        anatomy = _of_files(weights) if weights else _of_catalog_name(spec)
        trained = method.count(anatomy, config.method) if anatomy else 0
    except tuning_module("errors").InputError as error:
        raise _refused(str(error)) from None
    if anatomy is None:
        return None
    return Trainables(
        method=config.method.name,
        quantization=methods.quantization_of(config.method),
        trained=trained,
        parameters=anatomy.parameters + (trained if method.is_adapter else 0),
    )


def _refused(sentence: str) -> PlanError:
    """The script's sentence as the client says it: what is wrong, and what to do about it."""
    what, _, remedy = sentence.partition("; ")
    return PlanError(f"{what.rstrip('.')}.", hint=remedy[:1].upper() + remedy[1:])


def _of_catalog_name(spec: JobSpec) -> Any:
    """The anatomy of a model that the catalog knows well, None of another one.

    Names of layers are checked as far as the catalog knows them: it has no full names. Raises InputError.
    """
    model, wanted = lookup(spec.model), spec.method.target_modules
    if model is None:
        return None
    known = model.linear_modules.value
    if known and isinstance(wanted, list):
        tuning_module("anatomy").resolve_targets(known, [name.rpartition(".")[2] for name in wanted])
        if any("." in name for name in wanted):
            return None
    return _of_catalog(model)


def _of_files(weights: Weights) -> Any:
    """The anatomy of a model folder, from its config and the headers of its weights."""
    module, config = tuning_module("anatomy"), weights.config
    blocks = int(config.get("num_hidden_layers") or 0)
    return module.Anatomy(
        linear=weights.linear_layers(),
        parameters=weights.parameters,
        hidden=int(config.get("hidden_size") or 0),
        kv_width=module.kv_width(config),
        blocks=blocks,
        frozen=module.frozen_sizes(weights.sizes(), blocks),
    )


def _of_catalog(model: Model) -> Any:
    """The anatomy of a model that only the catalog knows; None where it does not know enough."""
    facts: dict[str, Any] = {name: fact.value for name, fact in model.facts.items()}
    needed = ("parameters", "linear_modules", "hidden_size", "layers", "attention_heads", "intermediate_size")
    if not all(facts[name] for name in needed):
        return None
    shapes = _shapes(facts)
    if not all(name in shapes for name in facts["linear_modules"]):
        return None
    module = tuning_module("anatomy")
    linear = {
        f"layers.{block}.{name}": shapes[name]
        for block in range(facts["layers"])
        for name in facts["linear_modules"]
    }
    return module.Anatomy(
        linear=linear,
        parameters=facts["parameters"],
        hidden=facts["hidden_size"],
        kv_width=shapes["k_proj"][0],
        blocks=facts["layers"],
        frozen=dict(_frozen_of_catalog(facts, linear)),
    )


def _shapes(facts: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(out, in) of a block's linear layers by the names that models of the Llama and Phi kind give them."""
    hidden, inner, heads = facts["hidden_size"], facts["intermediate_size"], facts["attention_heads"]
    shared = (facts["key_value_heads"] or heads) * (hidden // heads)
    return {
        "q_proj": (hidden, hidden),
        "k_proj": (shared, hidden),
        "v_proj": (shared, hidden),
        "qkv_proj": (hidden + 2 * shared, hidden),
        "o_proj": (hidden, hidden),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "gate_up_proj": (2 * inner, hidden),
        "down_proj": (hidden, inner),
    }


def _frozen_of_catalog(
    facts: Mapping[str, Any], linear: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """(number of first blocks, parameters in them and in the embedding), two norms a block counted in."""
    blocks, hidden = facts["layers"], facts["hidden_size"]
    block = sum(out * into for out, into in linear.values()) // blocks + 2 * hidden
    for count in range(1, blocks):
        yield count, (facts["vocabulary_size"] or 0) * hidden + count * block
