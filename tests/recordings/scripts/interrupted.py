"""Stands for a training that is stopped: begins, keeps a checkpoint, and ends when it finds one."""

import argparse
import json
import pathlib
import time

parser = argparse.ArgumentParser()
for name in ("config", "train", "output"):
    parser.add_argument(f"--{name}", required=True)
output = pathlib.Path(parser.parse_args().output)
if not (output / "checkpoint").exists():
    (output / "checkpoint").write_text("step 1")
    print("checkpoint kept", flush=True)
    time.sleep(600)
print("going on from", (output / "checkpoint").read_text(), flush=True)
(output / "result.json").write_text(json.dumps({"adapter": False, "steps": 2}))
