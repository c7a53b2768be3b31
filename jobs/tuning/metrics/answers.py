"""Exact match and F1 of short answers, as SQuAD scores them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """An answer in lower case, without punctuation, English articles and spare blanks."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 where the answer is one of the accepted."""
    return float(any(normalized(answer) == normalized(one) for one in accepted))


def word_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 of the answer's words with those of an accepted answer."""
    return max(_word_f1(normalized(answer).split(), normalized(one).split()) for one in accepted)


def _word_f1(answer: list[str], accepted: list[str]) -> float:
    if not answer or not accepted:
        return float(answer == accepted)
    common = (Counter(answer) & Counter(accepted)).total()
    return 2 * common / (len(answer) + len(accepted))
