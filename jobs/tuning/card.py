"""The model card: what a model is, what it was made from, how good it is and how it is used.

The script puts one into every model it makes; a registry writes the same one for a version, with what it
knows besides. Only the standard library is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CARD = "README.md"
FRONT = "---"
TOKENIZER = 'tokenizer = AutoTokenizer.from_pretrained("model")'
WHOLE = 'model = AutoModelForCausalLM.from_pretrained("model")'
ON_BASE = 'base = AutoModelForCausalLM.from_pretrained("{base}")'
ADAPTER = 'model = PeftModel.from_pretrained(base, "model")'


def model_card(
    result: Mapping[str, Any], *, title: str, use: str, facts: Mapping[str, object] | None = None
) -> str:
    """The card as Markdown, from a run's result; `facts` are further rows of its first table.

    The same result gives the same card: it holds no time.
    """
    base = name_of(str(result.get("base_model") or "unknown"))
    method, task = str(result.get("method") or "unknown"), str(result.get("task") or "unknown")
    learned = ", from preferences (DPO)" if result.get("objective") == "dpo" else ""
    known = {
        "Base model": base,
        "License of the base": result.get("base_license") or "not stated there",
        "Task": task,
        "Method": f"{method} ({_kind(result)}){learned}",
        "Trained": _trained(result),
        **(facts or {}),
    }
    parts = [
        _front_matter(result, base),
        f"# {title}",
        f"A {task} model: {base} fine-tuned with {method}{learned}.",
        _table(("", ""), ((name, value) for name, value in known.items() if value)),
        "## Measured on held-out rows",
        _measured(result),
        *([f"## Mind\n\n{_list(result['warnings'])}"] if result.get("warnings") else []),
        "## Made from",
        _sources(result.get("hashes") or {}),
        "## Use",
        use,
    ]
    return "\n\n".join(parts) + "\n"


def use_by_python(result: Mapping[str, Any]) -> str:
    """How the model in a folder is used without this project."""
    code = ["from transformers import AutoModelForCausalLM, AutoTokenizer", "", TOKENIZER, WHOLE]
    if result.get("adapter"):
        base = name_of(str(result.get("base_model")))
        code = ["from peft import PeftModel", *code[:-1], ON_BASE.format(base=base), ADAPTER]
    lines = "\n".join(code)
    words = "With the bundled server (or merge.py, for full weights): `python serve.py --model model`."
    return f"```python\n{lines}\n```\n\n{words} It asks as the model was asked in training (task.json)."


def license_of(model: str) -> str | None:
    """The license that a base model's own card states; None where it states none."""
    try:
        text = (_card_of(model) or Path()).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = text.partition(f"\n{FRONT}")[0] if text.startswith(f"{FRONT}\n") else ""
    stated = [
        line.partition(":")[2].strip().strip("'\"")
        for line in head.split("\n")
        if line.startswith("license:")
    ]
    return stated[0] if stated and stated[0] else None


def name_of(model: str) -> str:
    """What a model is called elsewhere: the name of its folder, or its Hugging Face id."""
    return Path(model).resolve().name if Path(model).is_absolute() or Path(model).is_dir() else model


def _card_of(model: str) -> Path | None:
    if Path(model).is_dir():
        return Path(model) / CARD
    if model.count("/") != 1 or Path(model).is_absolute():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, CARD)
    return Path(found) if isinstance(found, str) else None


def _kind(result: Mapping[str, Any]) -> str:
    kind = "adapter" if result.get("adapter") else "full weights"
    packed = result.get("quantization") or "none"
    return kind if packed == "none" else f"{kind} on an {packed} base"


def _trained(result: Mapping[str, Any]) -> str:
    """What was trained, for how long, on how much."""
    said = []
    if result.get("trainable_parameters"):
        said.append(
            f"{result['trainable_parameters']:,} of {result['parameters']:,} parameters "
            f"({100 * result['trainable_share']:.3g} %)"
        )
    if result.get("steps"):
        rows = (result.get("rows") or {}).get("train")
        said.append(f"{result['steps']:,} steps" + (f" on {rows:,} rows" if rows else ""))
    if result.get("model_step") not in (None, result.get("steps")):
        said.append(f"the best model was that of step {result['model_step']:,}")
    return ", ".join(said)


def _measured(result: Mapping[str, Any]) -> str:
    before, after = result.get("before") or {}, result.get("after") or {}
    names = [*after, *(name for name in before if name not in after)]
    if not names:
        return "Nothing was measured."
    rows = ((name, _number(before.get(name)), _number(after.get(name))) for name in names)
    table = _table(("Metric", "Before", "After"), rows)
    return f"{table}\n\n{_change(result)}".rstrip()


def _change(result: Mapping[str, Any]) -> str:
    change = result.get("change")
    if not change:
        return ""
    rows = (result.get("rows") or {}).get("validation")
    on = f" on {rows:,} rows" if rows else ""
    better = "more" if result.get("direction") == "max" else "less"
    return (
        f"{result['metric']} changed by {change['difference']:+.4g}{on} ({better} is better); "
        f"{100 * change['level']:.0f} % interval {change['low']:+.4g} to {change['high']:+.4g}, by paired "
        "bootstrap over the rows."
    )


def _sources(hashes: Mapping[str, Any]) -> str:
    rows = [(name, f"`{value}`") for name, value in sorted(hashes.items()) if isinstance(value, str)]
    return _table(("What", "SHA-256"), rows) if rows else "No hashes were recorded."


def _front_matter(result: Mapping[str, Any], base: str) -> str:
    """What model hubs read."""
    tags = ["maas", result.get("task"), result.get("method"), result.get("objective")]
    told = {
        "base_model": base,
        "library_name": "peft" if result.get("adapter") else "transformers",
        "license": result.get("base_license"),
        "tags": [tag for tag in tags if tag],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items() if value]
    return "\n".join([FRONT, *lines, FRONT])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines])
