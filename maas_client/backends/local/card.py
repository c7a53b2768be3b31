"""The model card: what a version is, what it was made from, how good it is and how to talk to it."""

from __future__ import annotations

from datetime import UTC, datetime

from maas_client.model import RegisteredModel


def model_card(model: RegisteredModel) -> str:
    """The card as Markdown."""
    lineage = model.lineage
    made = datetime.fromtimestamp(model.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    kind = "LoRA adapter" if model.adapter else "full weights"
    hashes = [f"| {name} | `{value}` |" for name, value in sorted(lineage.hashes.items())]
    parts = [
        f"# {model.ref.name}, version {model.ref.version}",
        f"A {lineage.task} model: {lineage.base_model} fine-tuned with {lineage.method}.",
        _table(
            ("", ""),
            [
                f"| Base model | {lineage.base_model} |",
                f"| Task | {lineage.task} |",
                f"| Method | {lineage.method} ({kind}, {model.size_bytes:,} bytes) |",
                f"| Run | {lineage.run} |",
                f"| Made | {made} |",
            ],
        ),
        "## Measured on held-out rows",
        _metrics(model),
        "## Made from",
        _table(("What", "Hash"), hashes) if hashes else "No hashes were recorded.",
        "## Use",
        f'    maas deploy {model.ref}\n    maas chat {model.ref.name} -m "..."',
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(model: RegisteredModel) -> str:
    before, after = model.metrics["before"], model.metrics["after"]
    names = [*after, *(name for name in before if name not in after)]
    if not names:
        return "Nothing was measured."
    rows = [f"| {name} | {_number(before.get(name))} | {_number(after.get(name))} |" for name in names]
    return _table(("Metric", "Before", "After"), rows)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _table(head: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *rows])
