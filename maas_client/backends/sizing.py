"""What a run would take of memory and time, on GPUs of Azure or on this machine, and the smallest size.

The memory is the training script's own model (jobs/tuning/footprint.py). Nothing is asked and torch is not
imported. docs/memory.md says what is counted and how well it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from maas_client.backends.modelfiles import Weights
from maas_client.backends.trainables import Trainables
from maas_client.bundled import tuning_module
from maas_client.catalog import Gpu, Model, gpus, lookup, peak, price
from maas_client.errors import PlanError
from maas_client.estimate import RESIDENT, Estimate, Memory, size
from maas_client.spec import JobSpec

USABLE = 0.9
"""Of a GPU's memory: the rest goes to the driver, and to holes between tensors."""
UNKNOWN_MODEL = "the model is no folder here, and the catalog does not know its layers"
UNKNOWN_WIDTHS = "neither the model's config nor the catalog tells its widths"
NO_SIZE = "no size of machines is named that the catalog knows"
NO_SPEED = "how fast this processor computes shows in the run's first steps"


@dataclass(frozen=True)
class Machine:
    """What a run computes on: `bytes_each` for each of its processes, None where unknown; `has_bf16`: a GPU
    that multiplies bf16.
    """

    is_gpu: bool
    bytes_each: int | None
    has_bf16: bool = False


def size_up_gpus(
    spec: JobSpec, weights: Weights | None, trained: Trainables | None, gpu: Gpu | None
) -> Estimate:
    """The estimate for machines of Azure; `gpu` None: their size is unknown. Raises PlanError.

    That is where what a GPU must hold between steps is more than it has room for.
    """
    work = Work.of(spec, weights, trained)
    if work is None:
        return Estimate(UNKNOWN_MODEL, UNKNOWN_MODEL)
    machine = machine_of(gpu) if gpu else Machine(True, None, has_bf16=True)
    memory = replace(work.memory(machine), smallest=work.smallest())
    if gpu is None:
        return Estimate(memory, NO_SIZE)
    _require_room(memory, gpu, is_quantized=work.trained.quantization != "none")
    if not work.has_widths:
        return Estimate(memory, UNKNOWN_WIDTHS)
    from maas_client.backends.duration import time_of  # it reads rows, which not every plan needs

    return Estimate(memory, time_of(spec, work.shape, memory, gpu))


def size_up_here(
    spec: JobSpec, weights: Weights | None, trained: Trainables | None, memory_bytes: int
) -> Estimate:
    """The estimate for this machine's processors and its whole memory."""
    work = Work.of(spec, weights, trained)
    if work is None:
        return Estimate(UNKNOWN_MODEL, NO_SPEED)
    machine = Machine(False, memory_bytes // spec.distributed.processes)
    return Estimate(replace(work.memory(machine), smallest=work.smallest()), NO_SPEED)


def memory_warnings(estimate: Estimate, room: float, where: str) -> Iterator[str]:
    """A sentence where a device has less `room` than the run takes; `where` says what room there is."""
    memory = estimate.memory
    if isinstance(memory, str) or memory.peak <= room:
        return
    instead = f"; the smallest size of Azure for it is {memory.smallest}" if memory.smallest else ""
    need = f"{'at least' if memory.at_least else 'about'} {size(memory.peak)} of memory a {memory.device}"
    yield (
        f"Training takes {need}, and {where}: the run may end for want of memory, however small the script "
        f"cuts its micro-batches{instead}."
    )


def _require_room(memory: Memory, gpu: Gpu, *, is_quantized: bool) -> None:
    if memory.resident <= USABLE * gpu.bytes_each:
        return
    ways = [f"take {memory.smallest}, the smallest size for this job"] if memory.smallest else []
    if not is_quantized:
        ways += ["take method qlora", "split the model over GPUs with distributed.strategy zero3"]
    raise PlanError(
        f"{gpu.name} is too small: a GPU has {size(gpu.bytes_each)}, and parameters, gradients and optimizer "
        f"of this job alone take {size(memory.resident)}.",
        hint=f"One way out: {'; or '.join(ways or ['take a smaller model'])}.",
    )


def machine_of(gpu: Gpu) -> Machine:
    """A GPU of a size, as far as a run depends on it."""
    known = peak(gpu.gpu_model)
    has_bf16 = known is not None and known.bf16_tflops is not None
    return Machine(True, gpu.bytes_each, has_bf16)


@dataclass(frozen=True)
class Work:
    """A job ready to be put on machines; without widths, `shape` only counts the weights."""

    spec: JobSpec
    config: Any
    shape: Any
    trained: Trainables
    is_lean: bool
    has_widths: bool

    @classmethod
    def of(cls, spec: JobSpec, weights: Weights | None, trained: Trainables | None) -> Work | None:
        """None for a model of which nothing is known."""
        if trained is None:
            return None
        model = lookup(spec.model)
        if weights is not None:
            config, parameters, names = weights.config, weights.parameters, list(weights.linear_layers())
        elif model is not None:
            config, parameters = _config_of(model), int(model.parameters.value or 0)
            names = list(model.linear_modules.value or ())
        else:
            return None
        kind = tuning_module("footprint").Shape
        shape = kind.of(config, parameters)
        is_fused = any(name.endswith("gate_up_proj") for name in names)
        told = tuning_module("config").parse_config(spec.script_config())
        return cls(spec, told, shape or kind.of_weights(parameters), trained, is_fused, shape is not None)

    def memory(self, machine: Machine) -> Memory:
        """What it takes there, in parts and with recomputation as the script will choose them."""
        module = tuning_module("footprint")
        load, shape = self._load(machine), self.shape
        there = module.footprint(shape, replace(load, tokens=0, targets=0))

        def took(parts: int, recomputes: bool) -> Any:
            part, more = -(-load.tokens // parts), {"recomputes": recomputes}
            more["accumulates"] = load.accumulates or parts > 1
            return module.footprint(shape, replace(load, tokens=part, targets=part, **more))

        def need(parts: int, recomputes: bool) -> int:
            return int(took(parts, recomputes).peak - there.runtime - there.parameters)

        usable = USABLE if machine.is_gpu else 1.0
        room = machine.bytes_each
        chosen = tuning_module("fitting").fit(
            need,
            None if room is None else max(0, round(usable * room) - there.runtime - there.parameters),
            wanted=self.spec.training.gradient_checkpointing,
            can_recompute=tuning_module("methods").METHODS[self.spec.method.name].recomputes,
            most_parts=tuning_module("fitting").most_parts(self.config),
        )
        found = took(chosen.parts, chosen.recomputes)
        return Memory(
            device="GPU" if machine.is_gpu else "process",
            peak=found.peak,
            parts=found.parts() if self.has_widths else {name: vars(found)[name] for name in RESIDENT},
            precision=load.precision,
            micro_batch_parts=chosen.parts,
            recomputes=chosen.recomputes,
            available=room,
            usable=usable,
            offloaded=found.offloaded,
            at_least=not self.has_widths,
        )

    def smallest(self) -> str | None:
        """The GPU size of least memory, and of these the cheapest, on which it fits."""
        fitting = [gpu for gpu in gpus() if self.has_widths and self._fits(gpu)]
        return min(fitting, key=_order).name if fitting else None

    def _fits(self, gpu: Gpu) -> bool:
        if gpu.gpus < self.spec.distributed.processes:
            return False
        memory = self.memory(machine_of(gpu))
        in_ram = memory.offloaded * self.spec.distributed.processes
        return memory.fits and in_ram <= USABLE * (gpu.ram_gib << 30)

    def _load(self, machine: Machine) -> Any:
        """The job as jobs/tuning/footprint.py takes it: sequences as long as may be, all tokens with loss."""
        spec, training = self.spec, self.spec.training
        method = tuning_module("methods").METHODS[spec.method.name]
        virtual = spec.method.virtual_tokens if not method.is_mergeable and method.is_adapter else 0
        rows = training.batch_size * (2 if training.objective == "dpo" else 1)
        prefers_bf16 = training.precision == "auto" and machine.has_bf16
        is_sharded = spec.distributed.strategy in tuning_module("sharding").SHARDS_MODEL
        return tuning_module("footprint").Load(
            method=spec.method.name,
            trained=self.trained.trained,
            tokens=rows * training.max_length,
            targets=rows * training.max_length,
            rows=rows,
            virtual_tokens=virtual,
            masked=training.max_length + virtual if virtual else 0,
            rank=spec.method.rank,
            dropout=spec.method.dropout > 0,
            quantization=self.trained.quantization,
            precision="bf16" if prefers_bf16 or training.precision == "bf16" else "fp32",
            fp32_base=method.fp32_base,
            moments=method.moments,
            accumulates=training.gradient_accumulation > 1,
            all_logits=is_sharded or training.objective == "dpo",
            lean=self.is_lean and spec.distributed.strategy != "zero3",
            device="cuda" if machine.is_gpu else "cpu",
            strategy=spec.distributed.strategy,
            processes=self.config.distributed.processes,
            offload=spec.distributed.offload if machine.is_gpu else "none",
        )


def _order(gpu: Gpu) -> tuple[float, ...]:
    found = price(gpu.name)
    return (gpu.gpu_memory_gib, found.usd_per_hour if found else float("inf"), gpu.vcpus)


def _config_of(model: Model) -> Mapping[str, Any]:
    """The facts of the catalog by the names of a config.json; unknown ones are left out."""
    facts = {
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.key_value_heads,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocabulary_size,
    }
    return {name: fact.value for name, fact in facts.items() if fact.value is not None}
