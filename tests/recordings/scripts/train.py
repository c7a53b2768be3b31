"""Stands for a training: says a few lines, tells a few steps, leaves a model of one word."""

import argparse
import json
import pathlib

parser = argparse.ArgumentParser()
for name in ("config", "train", "output"):
    parser.add_argument(f"--{name}", required=True)
output = pathlib.Path(parser.parse_args().output)
(output / "model").mkdir(parents=True, exist_ok=True)
events = (output / "events.jsonl").open("w")
for step in range(1, 4):
    print("line", step)
    event = json.dumps({"time": 1.0 * step, "event": "step", "step": step, "loss": 1 / step})
    events.write(event + "\n")
    print("@maas", event, flush=True)
events.close()
(output / "model" / "config.json").write_text('{"model_type": "phi3"}')
(output / "model" / "model.safetensors").write_text("weights")
sample = {"prompt": "My card is late", "expected": "arrival", "before": "x", "after": "arrival"}
(output / "samples.jsonl").write_text(json.dumps(sample) + "\n")
result = {"adapter": False, "before": {"accuracy": 0.25}, "after": {"accuracy": 0.75}, "steps": 3}
(output / "result.json").write_text(json.dumps(result))
