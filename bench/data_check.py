"""`maas data check` beside a plain json.loads loop with the same checks: rows/s, peak memory, equal findings.

    python bench/data_check.py [--rows 500000] [--rounds 3] [--quick]

Both read the same generated chat file (a few bad rows and repeats in it), each time in a fresh process, in
turns. Fails (exit code 1) when the check is not at least 3 times as fast, needs 150 MB or more, or finds
anything else.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LEAST_RATIO = 3.0
LEAST_RATIO_QUICK = 2.0
MOST_MEGABYTES = 150
LONGEST_LINE = 16 * 1024 * 1024
BYTES_PER_TOKEN, BYTES_PER_MESSAGE = 3.6, 14
ROLES = {"system", "user", "assistant", "tool"}
OTHER_FORMATS = {"prompt", "completion", "text", "label", "category"}
ROW_KEYS = ("messages", "tools", *OTHER_FORMATS)
KEYS = {"role", "content", "weight", "tool_calls", "tool_call_id", "name"}
WORDS = tuple(
    re.findall(
        r"\w+",
        "my card has not arrived yet and I would like to know when the payment will show in the account "
        "because the transfer was declined twice so please tell me which exchange rate applies to a top up",
    )
)


def generate(path: Path, rows: int) -> None:
    """Write chat rows of one to three turns; 1 in 100 repeats an earlier row, 1 in 4,000 is bad."""
    draw = random.Random(7)
    faults = ("not json", "role", "empty", "no answer")
    earlier: list[str] = []
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number in range(rows):
            if number % 100 == 99:
                line = draw.choice(earlier)
            else:
                fault = draw.choice(faults) if number % 4000 == 1234 else None
                line = json.dumps(_row(draw, fault), ensure_ascii=False)
                line = line[:-2] if fault == "not json" else line
                if fault is None and number % 50 == 0:
                    earlier.append(line)
            file.write(line + "\n")


def _row(draw: random.Random, fault: str | None) -> dict[str, Any]:
    def say(least: int, most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))

    messages = [{"role": "system", "content": "You are the support of a bank. Answer in short sentences."}]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        asked = say(5, 25) + (" at the café?" if draw.random() < 0.1 else "?")
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": say(5, 40)}]
    if fault == "role":
        messages[1]["role"] = "asistant"
    elif fault == "empty":
        messages[-1]["content"] = " "
    elif fault == "no answer":
        messages = messages[:2]
    return {"messages": messages}


def naive(path: Path) -> dict[str, Any]:
    """The checks as one would write them: one json.loads a line, plain Python, everything in memory."""
    good, bad_lines, duplicates = 0, [], 0
    roles: Counter[str] = Counter()
    tokens: list[int] = []
    seen: set[int] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip(b"\r\n")
            if not line.strip():
                continue
            if len(line) > LONGEST_LINE:
                bad_lines.append(number)
                continue
            try:
                messages = plain_messages(json.loads(line))
            except ValueError:
                bad_lines.append(number)
                continue
            good += 1
            size = 0
            for message in messages:
                roles[message["role"]] += 1
                size += len(message["content"].encode()) + BYTES_PER_MESSAGE
            tokens.append(round(size / BYTES_PER_TOKEN))
            key = hash("\x1e".join([message["content"] for message in messages]))
            if key in seen:
                duplicates += 1
            seen.add(key)
    tokens.sort()

    def percentile(percent: int) -> int:
        return tokens[-(-len(tokens) * percent // 100) - 1]

    return {
        "rows": good + len(bad_lines),
        "good": good,
        "bad_lines": bad_lines,
        "roles": dict(sorted(roles.items())),
        "duplicates": duplicates,
        "tokens": [sum(tokens), tokens[0], percentile(50), percentile(95), tokens[-1]],
    }


def plain_messages(row: Any) -> list[dict[str, Any]]:
    """The messages of a chat row; raises ValueError when anything about it is wrong."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if "messages" not in row or not OTHER_FORMATS.isdisjoint(row):
        raise ValueError("not a chat row")
    for key in row:
        if key not in ROW_KEYS and difflib.get_close_matches(key, ROW_KEYS, cutoff=0.75):
            raise ValueError("misspelled key")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("no messages")
    offered = plain_tools(row.get("tools"))
    called: set[Any] | None = None
    answers = 0
    for message in messages:
        answers += plain_message(message)
        for call in message.get("tool_calls") or ():
            if offered is not None and call["function"]["name"] not in offered:
                raise ValueError("unknown tool")
            called = (called or set()) | {call.get("id")}
        if message["role"] == "tool":
            call_id = message.get("tool_call_id")
            if called is None or (call_id is not None and call_id not in called):
                raise ValueError("tool result without a call")
    if not answers or messages[0]["role"] == "assistant":
        raise ValueError("nothing to learn")
    return messages


def plain_message(message: Any) -> int:
    """1 when the message carries loss, else 0; raises ValueError when it is wrong."""
    if not isinstance(message, dict):
        raise ValueError("not an object")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError("unknown role")
    for key, value in message.items():
        if key not in KEYS and value is not None:
            raise ValueError("unknown key")
    weight = message.get("weight")
    if weight is None:
        weight = 1 if role == "assistant" else 0
    elif isinstance(weight, bool) or not isinstance(weight, int) or weight not in (0, 1):
        raise ValueError("wrong weight")
    elif weight and role != "assistant":
        raise ValueError("weight of another role")
    calls = message.get("tool_calls")
    if calls:
        plain_calls(calls, role)
    content = message.get("content")
    if content is None and calls:
        content = message["content"] = ""
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = message["content"] = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError("no content")
    if weight and not calls and not content.strip():
        raise ValueError("empty answer")
    for key in ("name", "tool_call_id"):
        if message.get(key) is not None and not isinstance(message[key], str):
            raise ValueError("not text")
    return int(weight)


def plain_calls(calls: Any, role: str) -> None:
    """Raises ValueError when tool calls are wrong."""
    if role != "assistant" or not isinstance(calls, list):
        raise ValueError("wrong tool calls")
    for call in calls:
        arguments = call["function"].get("arguments", {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(call["function"]["name"], str) or not isinstance(arguments, dict):
            raise ValueError("wrong tool call")


def plain_tools(tools: Any) -> set[str] | None:
    """The names of the tools of a row."""
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool["function"]["name"], str) for tool in tools):
        raise ValueError("wrong tools")
    return {tool["function"]["name"] for tool in tools}


def ours(path: Path) -> dict[str, Any]:
    """The same findings from maas_client."""
    from maas_client.data import check_file

    bad_lines: list[int] = []
    report = check_file(path, on_problem=lambda problem: bad_lines.append(problem.line))
    counts = report.tokens
    return {
        "rows": report.rows,
        "good": report.good,
        "bad_lines": bad_lines,
        "roles": report.roles,
        "duplicates": report.duplicates,
        "tokens": [counts.total, counts.minimum, counts.p50, counts.p95, counts.maximum],
    }


CONTESTANTS: dict[str, Callable[[Path], dict[str, Any]]] = {"naive": naive, "ours": ours}


def measure(name: str, path: Path) -> dict[str, Any]:
    """Run one contestant in a fresh process: its findings, seconds and peak MB."""
    command = [sys.executable, __file__, "--contestant", name, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def contest(name: str, path: Path) -> None:
    """In the child: run, and print what was found and what it took."""
    if name == "ours":
        import maas_client.data.check  # noqa: F401 - the clock starts when all is loaded, as for the other
        from maas_client.bundled import tuning_module

        tuning_module("rows")
    start = time.perf_counter()
    findings = CONTESTANTS[name](path)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
    print(json.dumps({"findings": findings, "seconds": seconds, "megabytes": peak}))


def main() -> int:
    """Generate, run in turns, print the ratio; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="50,000 rows, for which 2 times will do")
    parser.add_argument("--contestant", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        contest(arguments.contestant[0], Path(arguments.contestant[1]))
        return 0
    rows = 50_000 if arguments.quick else arguments.rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chat.jsonl"
        generate(path, rows)
        print(
            f"{rows:,} chat rows, {path.stat().st_size / 1024**2:,.0f} MB, {arguments.rounds} rounds in turns"
        )
        rounds = [{name: measure(name, path) for name in CONTESTANTS} for _ in range(arguments.rounds)]
    return report(rounds, rows, LEAST_RATIO_QUICK if arguments.quick else LEAST_RATIO)


def report(rounds: list[dict[str, dict[str, Any]]], rows: int, least: float) -> int:
    """Print medians and say whether the targets hold."""
    seconds = {name: statistics.median(each[name]["seconds"] for each in rounds) for name in CONTESTANTS}
    peak = {name: max(each[name]["megabytes"] for each in rounds) for name in CONTESTANTS}
    for name in CONTESTANTS:
        rate = f"{rows / seconds[name]:>12,.0f} rows/s"
        print(f"{name:<6}{rate}{seconds[name]:>9.2f} s{peak[name]:>8.0f} MB peak")
    ratio = seconds["naive"] / seconds["ours"]
    print(f"ratio {ratio:.2f} (at least {least}), peak {peak['ours']:.0f} MB (under {MOST_MEGABYTES})")
    if any(each["ours"]["findings"] != each["naive"]["findings"] for each in rounds):
        print("FAILED: the findings differ", file=sys.stderr)
        return 1
    if ratio < least or peak["ours"] >= MOST_MEGABYTES:
        print("FAILED: a target is missed", file=sys.stderr)
        return 1
    print("findings equal, targets met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
