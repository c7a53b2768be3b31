"""Files up and down beside azure-storage-blob's own parallel client: the same file, the same Azurite, in
turns, in one run.

    python bench/transfer.py                     # 1 GiB, four rounds, some minutes
    python bench/transfer.py --mib 256 --rounds 2

`ours` is Files.upload and Files.download with all that they do besides: ask Azure for the datastore and its
signed URL, look what is there, hash, check what arrived, keep what a cut leaves. `theirs` is upload_blob and
download_blob(...).readinto(file) with four connections and blocks of 8 MiB, as ours, and nothing besides.
Each runs in a process of its own, for a peak memory of its own; imports are not timed. The two of a pair run
one right after the other. Whoever goes first has the harder time, so their order turns in each next round and
the ratio is that of two rounds together (their geometric mean). Exits 1 where the median ratio of throughputs
is below 0.9 or the peak memory of ours is not below 200 MB. Give it an idle machine: the hash needs a part of
a core that the package alone leaves unused. In a short file the questions beforehand count for more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RATIO_BOUND, MEMORY_BOUND_MB = 0.9, 200.0
WAYS = ("up", "down")
SIDES = ("ours", "theirs")
MIB = 2**20
BLOCK_BYTES, CONNECTIONS = 8 * MIB, 4
ACCOUNT = "MAAS_BENCH_ACCOUNT"
"""Variable with the URL, name, key and container of the account, for `theirs`."""
SHARED_BLOB = "bench/down/file"


def ours(way: str, file: Path, blob: str) -> float:
    """Seconds of one transfer by Files."""
    from maas_client.settings import Settings
    from maas_client.workspace.datastores import DEFAULT, Place
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import open_workspace

    warm_up()
    files = Files(open_workspace(Settings()))
    began = time.perf_counter()
    if way == "up":
        files.upload(file, Place(DEFAULT, blob))
    else:
        files.download(Place(DEFAULT, blob), file.parent)
    return time.perf_counter() - began


def theirs(way: str, file: Path, blob: str) -> float:
    """Seconds of one transfer by the package alone."""
    from azure.storage.blob import BlobClient

    warm_up()
    account = json.loads(os.environ[ACCOUNT])
    client = BlobClient(
        account["url"],
        account["container"],
        blob,
        credential={"account_name": account["name"], "account_key": account["key"]},
        max_block_size=BLOCK_BYTES,
        max_single_put_size=BLOCK_BYTES,
        max_single_get_size=BLOCK_BYTES,
        max_chunk_get_size=BLOCK_BYTES,
    )
    began = time.perf_counter()
    if way == "up":
        with file.open("rb") as stream:
            client.upload_blob(
                stream, length=file.stat().st_size, overwrite=True, max_concurrency=CONNECTIONS
            )
    else:
        with file.open("wb") as stream:
            client.download_blob(max_concurrency=CONNECTIONS).readinto(stream)
    return time.perf_counter() - began


def warm_up() -> None:
    """Load what both will use, so that it is not timed."""
    import azure.core
    import azure.identity
    import azure.storage.blob
    import httpx

    assert azure.core
    assert azure.identity
    assert azure.storage.blob
    assert httpx


def contend(side: str, way: str, file: Path, blob: str) -> None:
    """Be one of the compared; prints seconds and peak memory in MB."""
    seconds = (ours if side == "ours" else theirs)(way, file, blob)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))


def measure(side: str, way: str, file: Path, blob: str, environment: dict[str, str]) -> dict[str, float]:
    """Run one contender in a process of its own."""
    os.sync()  # what the one wrote must not slow the next
    words = [sys.executable, str(Path(__file__).resolve()), "--contender", side, way, str(file), blob]
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, cwd=file.parent, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} {way} failed:\n{done.stderr[-2000:]}")
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts


def run_rounds(
    rounds: int, source: Path, environment: dict[str, str]
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """All rounds, the two of a pair in turned order; what each contender took, by (side, way)."""
    measure("ours", "up", source, SHARED_BLOB, environment)  # what both will fetch
    results: dict[tuple[str, str], list[dict[str, float]]] = {
        (side, way): [] for side in SIDES for way in WAYS
    }
    size_mib = source.stat().st_size / MIB
    for number in range(rounds):
        for way in WAYS:
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                place = source.parent / f"{side}-{number}"
                place.mkdir(exist_ok=True)
                file = source if way == "up" else place / "file"
                blob = f"bench/{side}/{number}/file" if way == "up" else SHARED_BLOB
                facts = measure(side, way, file, blob, environment)
                results[side, way].append(facts)
                speed = size_mib / facts["seconds"]
                print(
                    f"round {number + 1} {way:4} {side:6} {speed:6.0f} MiB/s, peak {facts['peak_mb']:.0f} MB",
                    flush=True,
                )
                if way == "down":
                    check_and_remove(file, source)
    return results


def check_and_remove(file: Path, source: Path) -> None:
    """Both must have brought the whole file."""
    assert file.stat().st_size == source.stat().st_size
    file.unlink()


def judge(results: dict[tuple[str, str], list[dict[str, float]]]) -> bool:
    """Print ratios and peaks; whether every bound holds."""
    good = True
    for way in WAYS:
        pairs = zip(results["ours", way], results["theirs", way], strict=True)
        rounds = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
        ratios = [math.sqrt(one * two) for one, two in zip(rounds[::2], rounds[1::2], strict=True)]
        median = statistics.median(ratios)
        peak = max(facts["peak_mb"] for facts in results["ours", way])
        beside = max(facts["peak_mb"] for facts in results["theirs", way])
        print(
            f"{way:4} throughput ours / theirs: median {median:.2f} of "
            f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} (bound {RATIO_BOUND}); "
            f"peak memory {peak:.0f} MB (bound {MEMORY_BOUND_MB:.0f}), theirs {beside:.0f} MB"
        )
        good = good and median >= RATIO_BOUND and peak < MEMORY_BOUND_MB
    return good


def compare(mib: int, rounds: int) -> bool:
    """Start Azurite, make the file, run the rounds."""
    from maas_client.simulator import Simulator
    from maas_client.simulator.storage import ACCOUNT as NAME
    from maas_client.simulator.storage import DEFAULT_CONTAINER

    with tempfile.TemporaryDirectory() as folder, Simulator() as azure:
        source = Path(folder) / "file"
        with source.open("wb") as stream:
            for _ in range(mib):
                stream.write(os.urandom(MIB))
        storage = azure.world.storage
        account: dict[str, Any] = {"url": storage.endpoint, "name": NAME, "key": storage.key}
        account["container"] = DEFAULT_CONTAINER
        environment = {**os.environ, **azure.environment, ACCOUNT: json.dumps(account)}
        print(f"{mib} MiB to and from Azurite over TLS, {rounds} rounds", flush=True)
        return judge(run_rounds(rounds, source, environment))


def main() -> int:
    """Compare, or with --contender be one of the compared."""
    parser = argparse.ArgumentParser(description="Transfers beside azure-storage-blob.")
    parser.add_argument("--mib", type=int, default=1024, help="size of the file in MiB (default 1024)")
    parser.add_argument("--rounds", type=int, default=4, help="an even number (default 4)")
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        side, way, file, blob = given.contender
        contend(side, way, Path(file), blob)
        return 0
    if given.rounds < 2 or given.rounds % 2:
        parser.error("--rounds must be even, so that each goes first as often as the other")
    return 0 if compare(given.mib, given.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
