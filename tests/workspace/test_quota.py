"""Cores that are needed and left, from rows as the service and its contract show them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.check import Check
from maas_client.workspace.offers import judge_machines
from maas_client.workspace.quota import (
    Machines,
    Size,
    Usage,
    Use,
    cores_needed,
    family_key,
    read_sizes,
    read_usages,
    rows_for,
)

SHARED = Path(__file__).parents[3] / "shared/azure"
EXAMPLES = (
    SHARED / "azure-rest-api-specs/specification/machinelearningservices/resource-manager"
    "/Microsoft.MachineLearningServices/preview/2024-10-01-preview/examples"
)
RECORDING = SHARED / "azure-powershell/Get-AzMLServiceUsage.excerpt.json"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the recordings are not here")
A100 = Size("Standard_NC24ads_A100_v4", "standardNCADSA100v4Family", 24, True, ("AmlCompute",))
D8 = Size("Standard_D8s_v5", "standardDSv5Family", 8, True, ("AmlCompute", "ComputeInstance"))


def example(name: str) -> list[Any]:
    return json.loads((EXAMPLES / name).read_text())["responses"]["200"]["body"]["value"]  # type: ignore[no-any-return]


def judge(machines: Machines, size: Size, usages: list[Usage]) -> list[Check]:
    return list(judge_machines([machines], {size.name.lower(): size}, usages, "eastus"))


# -- cores


@pytest.mark.parametrize(
    ("size", "instances", "use", "cores"),
    [
        (D8, 1, "dedicated", 8),
        (D8, 1, "low", 8),
        (D8, 1, "endpoint", 16),
        (D8, 3, "endpoint", 32),
        (D8, 5, "endpoint", 48),
        (D8, 10, "endpoint", 96),
        (A100, 1, "endpoint", 24),
        (A100, 3, "endpoint", 72),
    ],
)
def test_cores_that_machines_take(size: Size, instances: int, use: Use, cores: int) -> None:
    assert cores_needed(Machines(size.name, instances, use), size) == cores


@given(st.integers(1, 1000), st.integers(1, 200))
def test_an_endpoint_takes_a_fifth_more_in_whole_machines(instances: int, cores: int) -> None:
    size = Size("Standard_X", "f", cores, True, ())
    need = cores_needed(Machines(size.name, instances, "endpoint"), size)
    assert need == math.ceil(instances * 6 / 5) * cores or (instances * 6) % 5 == 0
    assert need == -(-instances * 6 // 5) * cores


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("standardNCADSH100v5Family", "Standard NCADSH100v5 Family Cluster Dedicated vCPUs"),
        ("StandardNDISRH200V5Family", "Standard NDISRH200V5 Family Cluster LowPriority vCPUs"),
        ("standardDSv2Family", "Standard DSv2 Family Cluster Dedicated vCPUs"),
        ("standardNCFamily", "Standard NC Family Cluster Low Priority vCPUs"),
    ],
)
def test_one_family_under_two_names(one: str, other: str) -> None:
    assert family_key(one) == family_key(other)
    assert family_key(one)


# -- what the service lists


@needs_shared
def test_rows_of_the_contract() -> None:
    usages = read_usages(example("Usage/list.json"))
    sizes = read_sizes(example("VirtualMachineSize/list.json"))
    two = sizes["standard_ds2_v2"]
    assert (two.cores, two.family, two.low_priority) == (2, "standardDSv2Family", True)
    dedicated = {one.name: (one.used, one.limit) for one in rows_for(usages, two, "dedicated")}
    assert dedicated == {
        "Total Cluster Dedicated Regional vCPUs": (14, 24),
        "Standard DSv2 Family Cluster Dedicated vCPUs": (2, 24),
    }
    low = {one.name: (one.used, one.limit) for one in rows_for(usages, two, "low")}
    assert low == {
        "Total Cluster LowPriority Regional vCPUs": (18, 50),
        "Standard DSv2 Family Cluster LowPriority vCPUs": (0, None),
    }
    machines = [Machines("STANDARD_DS2_V2", 5, "dedicated"), Machines("Standard_DS2_v2", 6, "dedicated")]
    machines += [Machines("Standard_DS2_v2", 16, "low"), Machines("Standard_DS2_v2", 17, "low")]
    quota = [one for one in judge_machines(machines, sizes, usages, "eastus") if one.name.startswith("Quota")]
    assert [one.ok for one in quota] == [True, False, True, False]
    assert quota[1].detail == (
        "needs 12 cores; 10 of 24 are left in Total Cluster Dedicated Regional vCPUs (eastus)"
    )
    assert quota[3].hint


@needs_shared
def test_rows_of_a_recording_name_families_that_the_catalog_knows() -> None:
    from maas_client import catalog

    rows = json.loads(RECORDING.read_text())["Entries"][0]["ResponseBody"]["value"]
    usages = read_usages(rows)
    assert len(usages) == len(rows)
    assert all(one.is_low and one.limit is None and one.family for one in usages)
    families = {family_key(gpu.quota_family) for gpu in catalog.gpus() if gpu.quota_family}
    assert len(families & {one.family for one in usages}) >= 3


@pytest.mark.parametrize("row", [None, "x", {}, {"type": "x"}, {"type": "Microsoft.X/vmFamily/usages"}])
def test_rows_that_say_nothing(row: Any) -> None:
    assert all(one.limit is None for one in read_usages([row]))
    assert read_sizes([row]) == {}


# -- judgments


def test_a_size_that_is_not_there_says_so() -> None:
    (check,) = judge_machines([Machines("Standard_ND96isr_H100_v5", 1, "dedicated")], {}, [], "eastus")
    assert (check.ok, check.detail) == (False, "not offered in eastus")
    assert "maas models gpus" in check.hint


def test_sizes_that_cannot_be_used_that_way() -> None:
    always = Size("Standard_A", "standardAFamily", 4, False, ("ComputeInstance",))
    assert judge(Machines("Standard_A", 1, "low"), always, [])[0].ok is False
    assert judge(Machines("Standard_A", 1, "dedicated"), always, [])[0].ok is False
    assert judge(Machines("Standard_A", 1, "endpoint"), always, [])[0].ok is True


def test_a_family_without_a_row_is_unknown_and_never_fine() -> None:
    total = Usage("Total Cluster Dedicated Regional vCPUs", "", False, 0, 1000)
    size, quota = judge(Machines(A100.name, 1, "dedicated"), A100, [total])
    assert (size.ok, quota.ok) == (True, None)
    assert "standardNCADSA100v4Family" in quota.detail
    _, quota = judge(Machines(A100.name, 1, "low"), A100, [])
    assert quota.ok is None


USAGES = st.builds(
    Usage,
    st.just("row"),
    st.sampled_from(["", "ncadsa100v4", "other"]),
    st.booleans(),
    st.integers(0, 300),
    st.one_of(st.none(), st.integers(0, 300)),
)


@given(st.lists(USAGES, max_size=6), st.integers(1, 9), st.sampled_from(["dedicated", "low", "endpoint"]))
def test_the_tightest_row_decides(usages: list[Usage], instances: int, use: Use) -> None:
    machines = Machines(A100.name, instances, use)
    _, quota = judge(machines, A100, usages)
    mine = [one for one in usages if one.is_low == (use == "low") and one.family in ("", "ncadsa100v4")]
    left = [max(0, one.limit - one.used) for one in mine if one.limit is not None]
    if quota.ok is True:
        assert min(left) >= 24 * instances
    if quota.ok is False:
        assert min(left) < 24 * instances
    if quota.ok is None:
        assert not left or not any(one.family for one in mine)
