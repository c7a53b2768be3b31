"""What is about to bill is said first, and asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maas_client.cli.output import ask, say

if TYPE_CHECKING:
    from maas_client.plan import Plan


def confirm_plan(made: Plan, *, yes: bool) -> None:
    """Say what a plan warns of and what it will cost, and ask where that is not nothing."""
    for warning in made.warnings:
        say(f"warning: {warning}", style="yellow")
    say(f"Cost: {made.cost}")
    if not made.is_free:
        ask(f"Start {made.run_id} on {made.target}?", yes=yes)


def confirm_cost(cost: str, question: str, *, yes: bool) -> None:
    """Say what something costs, and ask; neither where it costs nothing (`cost` is empty)."""
    if cost:
        say(f"Cost: {cost}")
        ask(question, yes=yes)
