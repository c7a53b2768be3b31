"""The registered models of a project, on whatever backend they are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from maas_client.errors import MaasError, NotFoundError, PlanError, UsageError
from maas_client.places import LOCAL, Places, at_once, split_place
from maas_client.traces import registering_backends

if TYPE_CHECKING:
    from maas_client.ledger import Ledger
    from maas_client.model import RegisteredModel


@dataclass(frozen=True)
class ModelList:
    """The versions that one backend keeps, newest first; with an `error` it could not be asked."""

    backend: str
    models: tuple[RegisteredModel, ...]
    error: MaasError | None = None


class Shelves:
    """Models by `name`, `name:version` or `backend://name[:version]`."""

    def __init__(self, places: Places, ledger: Ledger) -> None:
        self._places = places
        self._ledger = ledger

    def lists(self, name: str | None = None) -> list[ModelList]:
        """What each backend keeps: this machine, and every service that the settings or the ledger name."""
        backends = self._places.in_use(registering_backends(self._ledger.actions(), name))
        keeping = [backend for backend in backends if self._keeps(backend)]
        found: dict[str, ModelList] = {}

        def ask(backend: str) -> None:
            found[backend] = self._list(backend, name)

        at_once(ask, keeping)
        return self._each_once([found[backend] for backend in keeping])

    def _each_once(self, lists: list[ModelList]) -> list[ModelList]:
        """The lists with each model on one backend: that of its run, else the first.

        Two backends may work on the same workspace, and so list the same models.
        """
        makers = {run.id: run.backend for run in self._ledger.runs()}
        owners: dict[str, str] = {}
        for listed in lists:
            for model in listed.models:
                place = str(model.place)
                if place not in owners or makers.get(model.lineage.run) == listed.backend:
                    owners[place] = listed.backend
        return [
            replace(
                one, models=tuple(model for model in one.models if owners[str(model.place)] == one.backend)
            )
            for one in lists
        ]

    def _keeps(self, backend: str) -> bool:
        try:
            return self._places.open(backend).models is not None
        except MaasError:
            return True

    def _list(self, backend: str, name: str | None) -> ModelList:
        try:
            return ModelList(backend, self._places.registry(backend).list(name))
        except PlanError:  # its packages are not installed: nothing was registered there from here
            return ModelList(backend, ())
        except MaasError as error:
            return ModelList(backend, (), error)

    def find(self, text: str) -> tuple[str, RegisteredModel]:
        """The backend that keeps a model, and the version. The ledger is asked first, then every backend.

        Raises NotFoundError, and UsageError for a name that is kept on several backends.
        """
        from maas_client.backends import KNOWN
        from maas_client.model import parse_model

        backend, words = split_place(text, KNOWN)
        name, version = parse_model(words)
        if backend is not None:
            return backend, self._places.registry(backend).get(name, version)
        known = registering_backends(self._ledger.actions(name), name)
        found = self._keeping([LOCAL, *(one for one in known if one != LOCAL)], name, version)
        if not found:
            found = self._keeping([one for one in self._places.in_use() if one != LOCAL], name, version)
        found = self._one_of_each(found)
        if len(found) > 1:
            places = [place for place, _ in found]
            choices = " or ".join(f"{place}://{words}" for place in places)
            raise UsageError(f"Model {name} is kept on {' and '.join(places)}.", hint=f"Write {choices}.")
        if not found:
            hint = "maas models registered shows all; maas register makes one."
            raise NotFoundError(f"There is no model {words}.", operation="find model", hint=hint)
        return found[0]

    def _one_of_each(self, found: list[tuple[str, RegisteredModel]]) -> list[tuple[str, RegisteredModel]]:
        lists = self._each_once([ModelList(backend, (model,)) for backend, model in found])
        return [(one.backend, model) for one in lists for model in one.models]

    def _keeping(
        self, backends: list[str], name: str, version: int | None
    ) -> list[tuple[str, RegisteredModel]]:
        found = []
        for backend in backends:
            if self._places.open(backend).models is None:
                continue
            try:
                found.append((backend, self._places.registry(backend).get(name, version)))
            except (NotFoundError, PlanError):  # the latter where its packages are not installed
                continue
        return found
