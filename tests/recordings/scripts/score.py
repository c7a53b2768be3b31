"""Stands for the scoring script: answers every question with one word."""

import json


def init():
    pass


def run(body):
    asked = json.loads(body)
    if asked == {"maas": "health"}:
        return {"maas": "health", "model": "recorded"}
    message = {"role": "assistant", "content": "arrival"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "recorded"}
    return {**answer, "choices": [choice], "usage": usage}
