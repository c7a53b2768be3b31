"""Where the weights of a base model come from, for machines that are not this one."""

from __future__ import annotations

import re
from pathlib import Path

from maas_client.catalog import Model, find_model, lookup
from maas_client.cloudpath import CloudPath
from maas_client.command import model_source
from maas_client.errors import PlanError

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_IN_CLOUD = "azureml://datastores/"


def weights_of(name: str) -> Path | CloudPath | str:
    """A shipped or local folder, a place in a datastore, or the Hugging Face id of any other model.

    Raises PlanError for a name that is none of these, and for a model whose weights are not open.
    """
    source = model_source(name)
    if isinstance(source, Path):
        return source
    if name.startswith(_IN_CLOUD):
        return CloudPath(name)
    if (model := lookup(name)) is not None:
        return _open_weights(model)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        hint = "A local model is a folder with config.json; maas models list shows the others."
        raise PlanError(f"There is no model folder {name}.", hint=hint)
    return name if _HUB_ID.fullmatch(name) else _open_weights(find_model(name))


def _open_weights(model: Model) -> str:
    if model.hugging_face_id.value and model.open_weights.value:
        return model.hugging_face_id.value
    routes = ", ".join(route.name for route in model.routes) or "none"
    raise PlanError(
        f"The weights of {model.name} are not known to be open: only its publisher's service can tune it.",
        hint=f"Take a model with open weights (maas models list); routes of {model.name}: {routes}.",
    )
