"""Files of the Foundry resource: sent, read by the service, listed by page, fetched, deleted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import Response

from maas_client.simulator.foundry import operations, page, parts_of, refusal
from maas_client.simulator.replies import Reply
from maas_client.simulator.routing import Call
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

MOST_FILES = 100
MOST_BYTES = 512 * 1024 * 1024
PREFERENCE_KEYS = ("input", "preferred_output", "non_preferred_output")
_PAGE = 100
_FINE_TUNE, _RESULTS = "fine-tune", "fine-tune-results"


def create_file(call: Call) -> Reply:
    """POST of a file as a multipart form: 201 and pending; the service reads it afterwards."""
    parts = parts_of(call)
    purpose = parts.get("purpose", ("", b""))[1].decode()
    name, content = parts.get("file", ("", b""))
    if purpose != _FINE_TUNE:
        raise refusal(400, "invalidPayload", f"The purpose '{purpose}' is not offered by the simulator.")
    if not name:
        raise refusal(400, "invalidPayload", "The form has no part 'file' with a file name.")
    if not name.endswith(".jsonl"):
        raise refusal(400, "invalidPayload", "The file format must be jsonl.")
    if len(content) > MOST_BYTES:
        raise refusal(413, "invalidPayload", "The file is larger than 512 MB.")
    if len(call.world.store.members(_collection(call.world))) >= MOST_FILES:
        raise refusal(400, "quotaExceeded", f"The resource holds {MOST_FILES} files already.")
    made = keep_file(call.world, name, content, purpose=purpose)
    made["status"] = "pending"
    place = f"{call.world.base_url}{call.path}/{made['id']}"
    return Reply(201, shown_file(call.world, made), {"Location": place})


def keep_file(world: World, name: str, content: bytes, *, purpose: str = _RESULTS) -> Resource:
    """A new file that is there at once, such as the results of a job."""
    identity = f"file-{uuid.uuid4().hex}"
    path = content_path(world, identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    made = {
        "status": "processed",
        "bytes": len(content),
        "purpose": purpose,
        "filename": name,
        "id": identity,
        "created_at": int(world.clock.now()),
        "object": "file",
    }
    return world.store.put(f"{_collection(world)}/{identity}", made)


def shown_file(world: World, file: Resource) -> Resource:
    """The file as it is now: what was pending has been read after a while."""
    if file["status"] == "pending" and world.clock.now() >= file["created_at"] + world.timing.reading_s:
        problem = first_problem(content_path(world, file["id"]))
        file |= {"status": "error", "status_details": problem} if problem else {"status": "processed"}
    return dict(file)


def find_file(world: World, identity: str) -> Resource:
    """The file of this id, as it is now. Raises Refusal 404."""
    found = world.store.get(f"{_collection(world)}/{identity}")
    if found is None:
        raise refusal(404, "notFound", f"The file '{identity}' was not found.")
    return shown_file(world, found)


def content_path(world: World, identity: str) -> Path:
    """Where the content of a file lies on this machine."""
    return world.folder / "foundry" / "files" / identity


def rows_of(path: Path) -> Iterator[Any]:
    """The rows of a file, decoded, or the sentence that says what is wrong with a line."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError:
                yield f"Invalid file format. Line {number} is not valid JSON."


def first_problem(path: Path) -> str:
    """What the service says about the first line that is no row, "" where there is none."""
    for number, row in enumerate(rows_of(path), 1):
        if isinstance(row, str):
            return row
        is_chat = isinstance(row, dict) and isinstance(row.get("messages"), list)
        is_preference = isinstance(row, dict) and all(key in row for key in PREFERENCE_KEYS)
        if not is_chat and not is_preference:
            return f"Invalid file format. Example {number} has no key 'messages'."
    return ""


def get_file(call: Call) -> Reply:
    """GET of what is known of a file."""
    return Reply(200, find_file(call.world, call.params["file"]))


def get_content(call: Call) -> Response:
    """GET of the content itself."""
    found = find_file(call.world, call.params["file"])
    data = content_path(call.world, found["id"]).read_bytes()
    return Response(data, media_type="application/octet-stream")


def list_files(call: Call) -> Reply:
    """GET of the files, newest first (`order=asc`: oldest first), of one purpose or of all."""
    found = [shown_file(call.world, each) for each in call.world.store.members(_collection(call.world))]
    if purpose := call.query.get("purpose"):
        found = [each for each in found if each["purpose"] == purpose]
    if call.query.get("order", "desc") != "asc":
        found.reverse()
    return page(call, found, size=_PAGE)


def delete_file(call: Call) -> Reply:
    """DELETE of a file."""
    found = find_file(call.world, call.params["file"])
    call.world.store.delete(f"{_collection(call.world)}/{found['id']}")
    content_path(call.world, found["id"]).unlink(missing_ok=True)
    return Reply(200, {"object": "file", "deleted": True, "id": found["id"]})


def _collection(world: World) -> str:
    return f"{world.names.foundry_id}/openai-files"


OPERATIONS = [
    *operations("POST", "/files", create_file, blocking=True),
    *operations("GET", "/files", list_files),
    *operations("GET", "/files/{file}", get_file),
    *operations("GET", "/files/{file}/content", get_content, blocking=True),
    *operations("DELETE", "/files/{file}", delete_file),
]
