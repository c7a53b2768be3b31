"""Foundry's two ways to fine-tune, and which of them a job file takes.

classic is a FineTuning job of a hub-based project or workspace, openai one of a Foundry resource. Each lives
in a package of its own with `is_configured(settings)` and `open_route(settings, home, clock)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maas_client.catalog import RouteName, find_model, lookup
from maas_client.errors import SettingsError

if TYPE_CHECKING:
    from maas_client.backend import Platform
    from maas_client.settings import Settings
    from maas_client.spec import JobSpec

Word = Literal["classic", "openai"]
WORDS: tuple[Word, ...] = ("classic", "openai")
CATALOG_NAMES: Mapping[Word, RouteName] = {"classic": "foundry-classic", "openai": "foundry-openai-v1"}
_MODULES: Mapping[Word, str] = {
    "classic": "maas_client.backends.foundry.classic",
    "openai": "maas_client.backends.foundry.openai_v1",
}
_UNSET_HINT = (
    "Set AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME for a hub-based project or "
    "workspace, or FOUNDRY_PROJECT_ENDPOINT for a Foundry project."
)


class Routes:
    """The routes, each opened when it is first used. Settings are read once, when they are first needed."""

    def __init__(self, home: Path, clock: Callable[[], float]) -> None:
        self._home = home
        self._clock = clock
        self._opened: dict[Word, Platform] = {}

    @cached_property
    def settings(self) -> Settings:
        """The environment and .env."""
        from maas_client.settings import settings

        return settings()

    def is_configured(self, word: Word) -> bool:
        """Whether the settings name what the route works on."""
        return bool(_module(word).is_configured(self.settings))

    def configured(self) -> list[Word]:
        """The routes that the settings name. Raises SettingsError where that is none."""
        found = [word for word in WORDS if self.is_configured(word)]
        if not found:
            raise SettingsError("No place in Azure AI Foundry is set.", hint=_UNSET_HINT)
        return found

    def open(self, word: Word) -> Platform:
        """The platform of a route. Sends nothing; raises SettingsError where the settings do not name it."""
        if word not in self._opened:
            self._opened[word] = _module(word).open_route(self.settings, self._home, self._clock)
        return self._opened[word]

    def targets(self) -> tuple[str, ...]:
        """What the settings name now, each as a plan's target says it. Raises SettingsError for nothing."""
        named = [self.open(word).targets for word in self.configured()]
        return tuple(target for targets in named if targets is not None for target in targets())

    def choose(self, spec: JobSpec, on: date) -> Word:
        """The route of a job file: as it says, else the first that takes the model on that day.

        Routes that the settings name go first, then the catalog's order. A model that no route takes goes to
        the one that the catalog speaks of, which refuses it with the reason. Raises PlanError for a name that
        the catalog does not know, unless it is a registry's id.
        """
        if spec.foundry.route != "auto":
            return spec.foundry.route
        if spec.model.startswith("azureml://") and lookup(spec.model) is None:
            return "classic"
        model = find_model(spec.model)
        words = {name: word for word, name in CATALOG_NAMES.items()}
        named = [words[route.name] for route in model.routes if route.name in words]
        open_on_day = [words[route.name] for route in model.routes_on(on) if route.name in words]
        if len(open_on_day) > 1:
            open_on_day.sort(key=lambda word: not self.is_configured(word))
        return next(iter([*open_on_day, *named]), "classic")


def _module(word: Word) -> Any:
    return importlib.import_module(_MODULES[word])
