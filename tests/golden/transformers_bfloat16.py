#!/usr/bin/env python3
"""Writes golden_bfloat16.safetensors beside golden.safetensors: logits of the same ids by Hugging
Face transformers in bfloat16 (its operations in PyTorch, without kernels of its own; eager
attention; one pass on a CPU). `anabranchd check-model --dtype bfloat16` asks our bfloat16 to be as
near the float32 logits as these are.

The same pass in float32 must give the logits of golden.safetensors back, else the script stops: that
says that the figures are the model's and not those of a wrongly loaded one. It prints the share of
positions with the best token of float32: of bfloat16, and of the rounded weights alone (bfloat16
weights, float32 arithmetic), which no way to compute with those weights can be blamed for.

Needs transformers 5.17 and torch 2.11. Usage: transformers_bfloat16.py DIR...
"""
import os
import sys

os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # AMX may be announced and not be usable

import torch
import transformers
from safetensors.torch import load_file, save_file

FLOAT32_TOLERANCE = 2e-4


def passes(folder, ids, dtype, widen=False):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager").eval()
    if widen:
        model = model.float()
    with torch.no_grad():
        return {name: model(tokens.long()[None], use_cache=False).logits[0]
                for name, tokens in ids.items()}


def agreement(logits, reference):
    equal = sum((logits[n].argmax(-1) == reference[n].argmax(-1)).sum().item() for n in reference)
    return equal / sum(len(rows) for rows in reference.values())


def main(folders):
    transformers.logging.set_verbosity_error()
    torch.backends.mkldnn.enabled = False
    torch.set_num_threads(1)
    print(f"{'model':24} {'bfloat16':>9} {'rounded weights':>16} {'float32 error':>14}")
    for folder in folders:
        golden = load_file(folder + "/golden.safetensors")
        ids = {n.removeprefix("ids_"): t for n, t in golden.items() if n.startswith("ids_")}
        reference = {n: golden["logits_" + n] for n in ids}
        exact = passes(folder, ids, torch.float32)
        error = max((exact[n] - reference[n]).abs().max().item() for n in ids)
        if not error <= FLOAT32_TOLERANCE:
            sys.exit(f"{folder}: in float32 {error:.1e} from golden.safetensors")
        half = passes(folder, ids, torch.bfloat16)
        rounded = passes(folder, ids, torch.bfloat16, widen=True)
        out = {"ids_" + n: t for n, t in ids.items()}
        out.update({"logits_" + n: half[n].contiguous() for n in ids})
        save_file(out, folder + "/golden_bfloat16.safetensors")
        print(f"{os.path.basename(folder):24} {agreement(half, reference):9.2%} "
              f"{agreement(rounded, reference):16.2%} {error:14.1e}", flush=True)


main([folder.rstrip("/") for folder in sys.argv[1:]])
