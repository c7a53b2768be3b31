"""Merge an adapter into its base model: full weights for any server, and proof that they say the same.

    python merge.py --model ADAPTER_FOLDER --output FOLDER [--base FOLDER]

FOLDER/model gets safetensors weights in the base's number format, the tokenizer and its chat template; it
appears whole or not at all. Before that it is read back and compared with base + adapter on a probe text:
the largest difference of a logit, and how often both prefer the same token. If they differ too much, nothing
is kept. An adapter that was trained on a quantized base is merged into the weights that this base stood for.
FOLDER/result.json comes last; where it is there already, the merge is done and stays as it is.
Exit codes: 0 done, 1 the merged model differs or cannot be written, 2 bad input, 143 SIGTERM, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.errors import FailedError, InputError
from tuning.events import write_json
from tuning.startup import prepare_process

if TYPE_CHECKING:
    from serving.model_folder import ModelSource

RESULT, PARTIAL = "result.json", ".model.partial"
MINIMUM_AGREEMENT = 0.95
# The largest logit difference that rounding alone explains, by the format that the weights are saved in.
DIFFERENCE_LIMITS = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
# And by the format of the base in training: 8-bit layers also round what they read, as no merged weight can.
PACKED_LIMITS = {"none": 0.0, "nf4": 0.0, "int8": 0.5}


def merge(
    model: str, output: Path, *, base: str | None = None, max_difference: float | None = None
) -> dict[str, Any] | None:
    """Merge the adapter folder `model` into `output`; returns what result.json says, or None if it was there.

    `max_difference` is the logit difference past which the merge is refused (default: by number format).
    Raises InputError for what cannot be merged, FailedError when the result differs or cannot be written.
    """
    from serving.model_folder import find_model

    if (output / RESULT).is_file():
        return None
    source = find_model(model, base)
    if source.adapter is None:
        raise InputError(f"{model} has no adapter_config.json; pass an adapter folder.")
    if source.adapter.resolve() in {output.resolve(), (output / "model").resolve()}:
        raise InputError("The adapter lies where the merged model would go; pass another --output.")
    partial = output / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)  # what a killed merge left behind
        partial.mkdir(parents=True)
        result = _write_merged(source, source.adapter, partial, max_difference)
        shutil.rmtree(output / "model", ignore_errors=True)
        partial.rename(output / "model")
        write_json(output / RESULT, result)
    except OSError as error:
        raise FailedError(
            f"Cannot write to {output}: {error.strerror or error}; try another --output."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _write_merged(source: ModelSource, adapter: Path, folder: Path, limit: float | None) -> dict[str, Any]:
    """Merge in fp32, save in the base's format, read back and compare; returns what result.json says."""
    import torch
    from transformers import AutoConfig

    from serving.merging import difference, fold, load_base, probe
    from tuning.models import LABELS, load_adapter, load_model, load_tokenizer, save_whole
    from tuning.prompts import MANNER

    tokenizer = load_tokenizer(source.tokenizer)
    device = torch.device("cuda" if torch.cuda.is_available() and source.quantization != "none" else "cpu")
    dtype = AutoConfig.from_pretrained(source.weights).dtype or torch.float32
    trained = load_adapter(load_model(source.weights, torch.float32, source.quantization, device), adapter)
    method = trained.peft_config["default"]
    expected = probe(trained, tokenizer)
    if source.quantization != "none":  # into the weights that training saw, not into the original ones
        trained = load_adapter(load_base(source, torch.float32, device), adapter)
    save_whole(folder, fold(trained).to(dtype))
    del trained  # the saved model is loaded beside nothing else
    tokenizer.save_pretrained(str(folder))
    for name in (LABELS, MANNER):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, folder / name)
    saved = load_model(str(folder), torch.float32)
    found = difference(expected, probe(saved, tokenizer))
    number_format = str(dtype).removeprefix("torch.")
    if limit is None:
        limit = max(DIFFERENCE_LIMITS[number_format], PACKED_LIMITS[source.quantization])
    _require_same(found.largest, found.agreement, limit)
    return {
        "base_model": source.weights,
        "adapter_folder": str(adapter),
        "adapter": False,
        "method": method.peft_type.value.lower(),
        "rank": getattr(method, "r", None),
        "quantization": source.quantization,
        "number_format": number_format,
        "parameters": saved.num_parameters(),
        "max_logit_difference": found.largest,
        "top1_agreement": found.agreement,
    }


def _require_same(largest: float, agreement: float, limit: float) -> None:
    """Raise FailedError if the merged model is further from base + adapter than rounding explains."""
    if largest <= limit and agreement >= MINIMUM_AGREEMENT:
        return
    raise FailedError(
        f"The merged model differs from base + adapter by {largest:.2g} in a logit (accepted: {limit:.2g}) "
        f"and {agreement:.0%} of its first choices are the same (accepted: {MINIMUM_AGREEMENT:.0%}); "
        "--max-difference accepts a larger difference."
    )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Merge an adapter into its base model.")
    parser.add_argument("--model", required=True, help="folder of the adapter")
    parser.add_argument("--base", help="the base model (default: the one that the adapter names)")
    parser.add_argument("--output", required=True, type=Path, help="folder for model/ and result.json")
    parser.add_argument("--max-difference", type=float, help="largest accepted difference of a logit")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = parse_arguments(argv)
    prepare_process()
    warnings.simplefilter("ignore", FutureWarning)  # between the libraries; nothing that a user can act on
    try:
        result = merge(
            arguments.model, arguments.output, base=arguments.base, max_difference=arguments.max_difference
        )
    except (InputError, FailedError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if result is None:
        print(f"{arguments.output} holds a finished merge; give another --output to merge again.")
    else:
        print(
            f"Merged into {arguments.output / 'model'}: largest logit difference "
            f"{result['max_logit_difference']:.2g}, equal first choices {result['top1_agreement']:.0%}."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
