"""The places that a project works with: each opened once, and asked what the settings name there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maas_client.errors import MaasError, PlanError, UsageError
from maas_client.targets import require_target

if TYPE_CHECKING:
    from maas_client.backend import Platform, Registry, Serving

LOCAL = "local"


class Places:
    """Platforms by name. Those that are given are used for their names; others are opened when needed."""

    def __init__(
        self, home: Path, *, clock: Callable[[], float], platforms: Mapping[str, Platform] | None = None
    ) -> None:
        self._home = home
        self._clock = clock
        self._opened: dict[str, Platform] = dict(platforms or {})
        self._given = frozenset(self._opened)

    def open(self, backend: str) -> Platform:
        """The platform behind a backend's name. Raises PlanError where it is not offered here."""
        if backend not in self._opened:
            from maas_client.backends import open_platform

            self._opened[backend] = open_platform(backend, home=self._home, clock=self._clock)
        return self._opened[backend]

    def is_service(self, backend: str) -> bool:
        """Whether a backend is somewhere else than on this machine."""
        return self.open(backend).targets is not None

    def targets(self, backend: str) -> tuple[str, ...]:
        """What the settings name on a backend now; nothing where they name nothing, or on this machine."""
        targets = self.open(backend).targets
        if targets is None:
            return ()
        try:
            return targets()
        except UsageError:
            return ()

    def only_target(self, backend: str) -> str:
        """What the settings name on a backend where that is one target, else ""."""
        named = self.targets(backend)
        return named[0] if len(named) == 1 else ""

    def require(self, backend: str, made_in: str, what: str) -> None:
        """Raise TargetError where something was made in another target than the settings name now."""
        if self.is_service(backend):
            require_target(what, made_in, self.targets(backend))

    def in_use(self, known: Iterable[str] = ()) -> list[str]:
        """This machine, the services that the settings name, and those that are `known` to be used."""
        from maas_client.backends import INSTALLED

        wanted = set(known)
        names = dict.fromkeys([LOCAL, *self._given, *INSTALLED, *sorted(wanted)])
        return [name for name in names if name == LOCAL or name in wanted or self._is_named(name)]

    def _is_named(self, backend: str) -> bool:
        try:
            return not self.is_service(backend) or bool(self.targets(backend))
        except MaasError:
            return False

    def registry(self, backend: str) -> Registry:
        """The model registry of a backend. Raises PlanError where it keeps none."""
        registry = self.open(backend).models
        if registry is None:
            raise PlanError(f"Backend {backend} keeps no models.", hint="Leave out register.")
        return registry

    def serving(self, backend: str) -> Serving:
        """The endpoints of a backend. Raises PlanError where it serves none."""
        serving = self.open(backend).endpoints
        if serving is None:
            raise PlanError(f"Backend {backend} serves no models.", hint="Leave out deploy.")
        return serving


def at_once(ask: Callable[[str], None], backends: Sequence[str]) -> None:
    """Ask every backend, several of them at the same time. Raises what asking raises."""
    if len(backends) < 2:
        for backend in backends:
            ask(backend)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(backends)) as pool:
        for asked in [pool.submit(ask, backend) for backend in backends]:
            asked.result()


def split_place(text: str, known: Collection[str]) -> tuple[str | None, str]:
    """`backend://name` as both; a plain name with None. Raises UsageError for a backend that is unknown."""
    backend, found, name = text.partition("://")
    if not found:
        return None, text
    if backend not in known or not name:
        raise UsageError(f"{text!r} names no place.", hint=f"Backends are {', '.join(sorted(known))}.")
    return backend, name
