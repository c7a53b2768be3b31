"""The model registry of a workspace: versions of tuned models, each with the run that it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from maas_client.cloudpath import CloudPath
from maas_client.errors import ConflictError, NotFoundError, RejectedError, ServiceError, UsageError
from maas_client.model import Lineage, ModelRef, RegisteredModel, parse_model
from maas_client.transport.members import mapping_at, text_at, time_at
from maas_client.workspace.datastores import parse_place
from maas_client.workspace.lineage import TAG_RUN, properties_of, read_record, tags_of

if TYPE_CHECKING:
    from maas_client.run import Artifact
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace

Body = Mapping[str, Any]
API_VERSION = "2024-10-01"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_SHELF = re.compile(r"/models/([^/]+)/versions/[^/]+$", re.IGNORECASE)
_TRIES = 10
_AT_ONCE = 8


class WorkspaceModels:
    """The Registry of a workspace. `workspace` is opened, and `files` used, when they are first needed.

    `model_type` is what Azure ML calls the format of the folder: custom_model is read as it is.
    """

    def __init__(
        self,
        workspace: Callable[[], Workspace],
        *,
        files: Callable[[], Files] | None = None,
        model_type: str = "custom_model",
    ) -> None:
        self._open = workspace
        self._open_files = files
        self._model_type = model_type

    @cached_property
    def _workspace(self) -> Workspace:
        return self._open()

    @cached_property
    def _files(self) -> Files:
        if self._open_files is not None:
            return self._open_files()
        from maas_client.workspace.files import Files

        return Files(self._workspace)

    # -- the contract

    def register(self, name: str, artifact: Artifact, lineage: Lineage) -> RegisteredModel:
        """Register the artifact's folder as the next version; nothing is copied.

        The same run registered again returns its version, also where two do so at once: they choose the same
        number for the same folder, and who meets another run's version there takes the next one. Raises
        ConflictError for an artifact that is not in the cloud, UsageError for a name that Azure ML refuses.
        """
        shelf, source = _named(name), artifact.model
        if not isinstance(source, CloudPath):
            hint = "Only what a run left in the workspace's storage can be registered there."
            raise ConflictError(
                f"{source} is not in {self._workspace.target}.", operation="register", hint=hint
            )
        body = self._body(artifact, lineage, source)
        for _ in range(_TRIES):
            versions = self._versions(shelf, archived=True)
            if (there := _of_run(versions, lineage.run)) is not None:
                return self._read(there)
            number = max((_number(each) or 0 for each in versions), default=0) + 1
            if self._put(ModelRef(shelf, number), body, lineage.run):
                return self._first_of_run(shelf, number, lineage.run)
        words = f"Others register versions of {shelf} faster than this run could be."
        raise ConflictError(words, operation="register", hint="Try again.")

    def adopt(self, ref: ModelRef, artifact: Artifact, lineage: Lineage) -> RegisteredModel | None:
        """Write a run's lineage on a version that the service registered by itself; may be repeated.

        None where that version is another run's. Raises NotFoundError.
        """
        there = self._get(ref)
        if not _run_of(there):
            was = mapping_at(there, "properties")
            body = self._body(artifact, lineage, CloudPath(text_at(was, "modelUri")))
            body["modelType"] = text_at(was, "modelType") or body["modelType"]
            for key in ("tags", "properties"):
                body[key] = {**mapping_at(was, key), **body[key]}
            self._put(ref, body, lineage.run)
            there = self._get(ref)
        return self._read(there) if _run_of(there) == lineage.run else None

    def list(self, name: str | None = None) -> tuple[RegisteredModel, ...]:
        """All versions that maas registered (of one name), newest first; archived ones are left out."""
        if name is not None:
            shelf = parse_model(name)[0]
            found = self._versions(shelf) if _NAME.fullmatch(shelf) else ()
        else:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                found = tuple(each for some in pool.map(self._versions, self._shelves()) for each in some)
        models = [self._read(each) for each in found if _run_of(each) and _number(each) is not None]
        return tuple(sorted(models, key=lambda model: (model.created_at, model.ref.version), reverse=True))

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version, also of those that maas did not register; the newest of maas when None.

        Raises NotFoundError.
        """
        shelf = parse_model(name)[0]
        if version is None:
            found = self.list(shelf)
            if found:
                return max(found, key=lambda model: model.ref.version)
            raise NotFoundError(
                f"There is no model {shelf} in {self._workspace.target}.",
                operation="get",
                hint="maas register makes one.",
            )
        try:
            return self._read(self._get(ModelRef(shelf, version)))
        except NotFoundError as error:
            there = ", ".join(str(model.ref) for model in self.list(shelf))
            hint = f"There is {there}." if there else "maas register makes one."
            words = f"There is no model {shelf}:{version} in {self._workspace.target}."
            raise NotFoundError(
                words, operation="get", hint=hint, status=404, request_id=error.request_id
            ) from None

    def arm_id(self, ref: ModelRef) -> str:
        """The id of a version in Azure Resource Manager: what a deployment names."""
        return self._path(ref)

    def uri_of(self, ref: ModelRef) -> str:
        """Where the files of a version are, by the service's own URI. Raises NotFoundError."""
        return text_at(self._get(ref), "properties", "modelUri")

    # -- versions at the service

    def _path(self, ref: ModelRef) -> str:
        return self._workspace.path("models", ref.name, "versions", str(ref.version))

    def _body(self, artifact: Artifact, lineage: Lineage, source: CloudPath) -> dict[str, Any]:
        result = artifact.result
        metrics = {"before": dict(result.get("before") or {}), "after": dict(result.get("after") or {})}
        size_bytes = self._size_bytes(source)
        tags = tags_of(lineage, metrics, adapter=artifact.is_adapter)
        if not size_bytes:
            tags["maas-size"] = "unknown"
        return {
            "modelType": self._model_type,
            "modelUri": source.uri,
            "description": f"{lineage.base_model} tuned by {lineage.method} for {lineage.task}",
            "tags": tags,
            "properties": properties_of(lineage, metrics, adapter=artifact.is_adapter, size_bytes=size_bytes),
        }

    def _size_bytes(self, source: CloudPath) -> int:
        """Bytes of the files at a place in a datastore, in one listing; 0 where that cannot be learned."""
        try:
            return sum(blob.size_bytes for blob in self._files.list(parse_place(source.uri)))
        except (UsageError, ServiceError):
            return 0

    def _put(self, ref: ModelRef, body: Body, run: str) -> bool:
        """Make a version; False where another run's is there."""
        operation = f"register {ref}"
        try:
            answer = self._workspace.arm.put(
                self._path(ref),
                {"properties": body},
                params={"api-version": API_VERSION},
                operation=operation,
            )
        except (ConflictError, RejectedError):
            try:
                return _run_of(self._get(ref)) == run
            except NotFoundError:
                pass
            raise
        return _run_of(answer.mapping) == run

    def _first_of_run(self, shelf: str, number: int, run: str) -> RegisteredModel:
        """The version just made, unless somebody made one for the same run before: then ours goes again."""
        first = _of_run(self._versions(shelf, archived=True), run)
        if first is None or _number(first) == number:
            return self._read(first or self._get(ModelRef(shelf, number)))
        self._workspace.arm.delete(
            self._path(ModelRef(shelf, number)),
            params={"api-version": API_VERSION},
            operation=f"remove the double {shelf}:{number}",
        )
        return self._read(first)

    def _get(self, ref: ModelRef) -> Body:
        params = {"api-version": API_VERSION}
        return self._workspace.arm.get(self._path(ref), params=params, operation=f"get model {ref}").mapping

    def _versions(self, shelf: str, *, archived: bool = False) -> Sequence[Body]:
        """Every version of a name; none where there is no such name."""
        params = {"api-version": API_VERSION, "listViewType": "All" if archived else "ActiveOnly"}
        path = self._workspace.path("models", shelf, "versions")
        try:
            return list(
                self._workspace.arm.paging(path, params=params, operation=f"list versions of {shelf}")
            )
        except NotFoundError:
            return []

    def _shelves(self) -> Iterator[str]:
        params = {"api-version": API_VERSION}
        for each in self._workspace.arm.paging(
            self._workspace.path("models"), params=params, operation="list models"
        ):
            if name := text_at(each, "name"):
                yield name

    def _read(self, body: Body) -> RegisteredModel:
        ref = _ref_of(body)
        facts = self._workspace.facts
        place = f"azureml://locations/{facts.location}/workspaces/{facts.guid}/models/{ref.name}/versions"
        return RegisteredModel(
            ref=ref,
            place=CloudPath(f"{place}/{ref.version}"),
            created_at=time_at(body, "systemData", "createdAt") or 0.0,
            **read_record(
                mapping_at(body, "properties", "properties"), mapping_at(body, "properties", "tags")
            ),
        )


def _named(name: str) -> str:
    """The name of a model without a version. Raises UsageError where Azure ML takes no such name."""
    shelf = parse_model(name)[0]
    if not _NAME.fullmatch(shelf):
        raise UsageError(
            f"Azure ML keeps no model named {shelf!r}.", hint="Use letters, digits, hyphens and underscores."
        )
    return shelf


def _run_of(body: Body) -> str:
    """The run that a version came from, "" where maas did not make it."""
    return text_at(body, "properties", "tags", TAG_RUN)


def _ref_of(body: Body) -> ModelRef:
    """Which version a body shows. Raises ServiceError where it shows none."""
    shelf, number = _SHELF.search(text_at(body, "id")), _number(body)
    if shelf is None or number is None:
        raise ServiceError(
            "Azure ML shows a version of a model without its name and number.",
            hint="Look at the models in the Azure ML studio.",
            operation="look at models",
            code="UnexpectedAnswer",
        )
    return ModelRef(shelf[1], number)


def _number(body: Body) -> int | None:
    """The version's number; None for one that others gave another name."""
    name = text_at(body, "name")
    return int(name) if name.isdecimal() and name.isascii() else None


def _of_run(versions: Sequence[Body], run: str) -> Body | None:
    """The first version that was made for a run."""
    found = [each for each in versions if _run_of(each) == run and _number(each) is not None]
    return min(found, key=lambda each: _number(each) or 0, default=None)
