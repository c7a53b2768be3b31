"""Permissions as Azure lists them: wildcards, what a role leaves out, several roles, conditions."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.workspace import rights
from maas_client.workspace.rights import Grant, Permissions, Right, read_permissions

ML = "Microsoft.MachineLearningServices/workspaces"
OWNER = {"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}
READER = {"actions": ["*/read"], "notActions": [], "dataActions": [], "notDataActions": []}
CONTRIBUTOR = {
    "actions": ["*"],
    "notActions": [
        "Microsoft.Authorization/*/Delete",
        "Microsoft.Authorization/*/Write",
        "Microsoft.Authorization/elevateAccess/Action",
    ],
}
SCIENTIST = {
    "actions": [f"{ML}/*/{verb}" for verb in ("read", "action", "delete", "write")],
    "notActions": [
        f"{ML}/delete",
        f"{ML}/write",
        f"{ML}/computes/*/write",
        f"{ML}/computes/*/delete",
        f"{ML}/computes/listKeys/action",
        f"{ML}/listKeys/action",
        f"{ML}/hubs/write",
    ],
}
BLOB_CONTRIBUTOR = {
    "actions": ["Microsoft.Storage/storageAccounts/blobServices/containers/read"],
    "dataActions": [
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
    ],
}
EVERY_RIGHT = [
    right
    for value in vars(rights).values()
    if isinstance(value, tuple) and value and isinstance(value[0], Right)
    for right in value
]


def permissions(*roles: dict[str, Any]) -> Permissions:
    return read_permissions(roles)


# -- roles of Azure


@pytest.mark.parametrize("right", EVERY_RIGHT, ids=lambda right: right.action)
def test_what_owners_and_readers_may_do(right: Right) -> None:
    assert permissions(OWNER).gives(right) is (not right.is_data)
    assert permissions(OWNER, {"dataActions": ["*"]}).gives(right) is True
    assert permissions(CONTRIBUTOR).gives(right) is (not right.is_data)
    assert permissions(READER).gives(right) is (right.action.endswith("/read") and not right.is_data)
    assert permissions().gives(right) is False
    assert right.role
    assert right.action.startswith("Microsoft.")


def test_a_data_scientist_runs_registers_and_serves_but_may_not_be_able_to_make_clusters() -> None:
    role = permissions(SCIENTIST)
    for right in (*rights.RUN_JOBS, *rights.SEND_CODE, *rights.REGISTER_MODELS, *rights.SERVE_ONLINE):
        assert role.gives(right) is True
    for right in (*rights.SERVE_SERVERLESS, *rights.READ_SECRETS):
        assert role.gives(right) is True
    assert role.gives(rights.MAKE_CLUSTERS[0]) is None
    assert permissions(SCIENTIST, CONTRIBUTOR).gives(rights.MAKE_CLUSTERS[0]) is True
    assert role.allows(f"{ML}/write") is False
    assert role.allows(f"{ML}/listKeys/action") is False


def test_blobs_are_a_matter_of_data_actions() -> None:
    assert [permissions(BLOB_CONTRIBUTOR).gives(right) for right in rights.WRITE_BLOBS] == [True, True]
    assert permissions(CONTRIBUTOR).gives(rights.WRITE_BLOBS[0]) is False


def test_what_one_role_leaves_out_another_may_grant() -> None:
    narrow = {"actions": ["*"], "notActions": [f"{ML}/jobs/*"]}
    assert permissions(narrow).allows(f"{ML}/jobs/write") is False
    assert permissions(narrow, {"actions": [f"{ML}/jobs/write"]}).allows(f"{ML}/jobs/write") is True


def test_a_condition_leaves_it_open() -> None:
    assert (
        permissions({**OWNER, "condition": "(@Resource[...] StringEquals 'x')"}).allows("A.B/c/read") is None
    )
    assert permissions({**OWNER, "condition": "x"}, OWNER).allows("A.B/c/read") is True
    assert permissions({**OWNER, "condition": None}).allows("A.B/c/read") is True


@pytest.mark.parametrize("row", [None, "x", 3, [], {"actions": "*"}, {"actions": None}, {"actions": 5}, {}])
def test_rows_that_say_nothing_grant_nothing(row: Any) -> None:
    assert read_permissions([row]).allows(f"{ML}/jobs/write") is False


# -- properties

WORD = st.text("abAB.", min_size=1, max_size=3)
ACTION = st.lists(WORD, min_size=1, max_size=4).map("/".join)
PATTERN = st.lists(st.one_of(WORD, st.just("*"), WORD.map(lambda word: f"{word}*")), min_size=1, max_size=4)
PATTERNS = st.lists(PATTERN.map("/".join), max_size=3).map(tuple)
GRANT = st.builds(Grant, PATTERNS, PATTERNS, st.just(()), st.just(()), st.booleans())
GRANTS = st.lists(GRANT, max_size=4).map(tuple)
ORDER = {False: 0, None: 1, True: 2}


@given(ACTION, PATTERNS)
def test_wildcards_mean_any_text(action: str, patterns: tuple[str, ...]) -> None:
    exact = any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)
    found = Permissions((Grant(patterns),)).allows(action)
    assert found is True if exact else found in (False, None)
    if not any("/*/" in pattern for pattern in patterns):
        assert found is exact


@given(ACTION, GRANTS)
def test_everything_is_granted_by_a_star(action: str, grants: tuple[Grant, ...]) -> None:
    assert Permissions((*grants, Grant(("*",)))).allows(action) is True
    assert Permissions(tuple(Grant(("*",), ("*",)) for _ in grants)).allows(action) is False


@given(ACTION, GRANTS, GRANT)
def test_another_role_never_takes_away(action: str, grants: tuple[Grant, ...], more: Grant) -> None:
    before, after = Permissions(grants).allows(action), Permissions((*grants, more)).allows(action)
    assert ORDER[after] >= ORDER[before]


@given(ACTION, GRANT, PATTERN.map("/".join))
def test_another_exception_never_adds(action: str, grant: Grant, pattern: str) -> None:
    narrower = Grant(grant.actions, (*grant.not_actions, pattern), (), (), grant.is_conditional)
    before, after = Permissions((grant,)).allows(action), Permissions((narrower,)).allows(action)
    assert ORDER[after] <= ORDER[before]


@given(ACTION, GRANTS)
def test_order_and_letter_case_do_not_matter(action: str, grants: tuple[Grant, ...]) -> None:
    found = Permissions(grants).allows(action)
    assert Permissions(grants[::-1]).allows(action) is found
    assert Permissions(grants).allows(action.upper()) is found


@given(ACTION, GRANT)
def test_data_actions_are_judged_alike(action: str, grant: Grant) -> None:
    turned = Grant((), (), grant.actions, grant.not_actions, grant.is_conditional)
    assert Permissions((turned,)).allows_data(action) is Permissions((grant,)).allows(action)
    assert Permissions((turned,)).allows(action) is False
