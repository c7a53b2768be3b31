"""How a task asks: the user's turn, the same in training, evaluation and serving.

Rows and the server both come here, so a model is asked at its endpoint as it was asked in training.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tuning.errors import InputError
from tuning.events import write_json
from tuning.tasks import TASKS

NO_ANSWER = "no answer"  # what is taught where a context does not hold the answer
MANNER = "task.json"


def ask(task: str, text: str) -> str:
    """The user's turn: the task's prompt and the text, which may begin with that prompt already."""
    prompt = TASKS[task].prompt
    return text if text.startswith(prompt) else prompt + text


def ask_about(context: str, question: str) -> str:
    """The user's turn of a question about a text."""
    return f"{context}\n\nQuestion: {question}"


@dataclass(frozen=True)
class Manner:
    """How a tuned model was asked: for which task, and whether by text to go on with instead of turns."""

    task: str = "chat"
    plain_text: bool = False


def write_manner(folder: Path, manner: Manner) -> None:
    """Keep with a model how it was asked. Raises OSError."""
    write_json(folder / MANNER, asdict(manner))


def read_manner(folder: Path) -> Manner:
    """How the model in a folder was asked; a model that says nothing is asked as a chat is.

    Raises InputError for a file that cannot be used.
    """
    path = folder / MANNER
    try:
        manner = Manner(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Manner()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if manner.task not in TASKS:
        raise InputError(f"{path} names the task {manner.task!r}; accepted: {', '.join(TASKS)}.")
    return manner
