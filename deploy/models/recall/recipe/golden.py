"""Writes golden.safetensors: float32 logits of three prompts as Hugging Face transformers computes them
(Mamba2ForCausalLM, CPU, no fused kernels), checked against the plain float64 recurrence of reference.py.

    python golden.py --model DIR
"""
import argparse

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Mamba2ForCausalLM

import model as M
import reference

TALK = [("My name is Ada and my locker code is 4417.", "Noted."), ("I also have a cat. My pet's name is Mochi.", "Thanks, I saved that."),
        ("Find me a hotel in Boston please.", "Okay, which dates?")]
ASKED = ("What is my locker code?", "What's my pet's name?", "What is my favorite color?")

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    path = ap.parse_args().model
    tok = Tokenizer.from_file(f"{path}/tokenizer.json")
    cfg, weights = M.Config.from_json(f"{path}/config.json"), load_file(f"{path}/model.safetensors")
    peer = Mamba2ForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    out = {}
    for k, q in enumerate(ASKED):
        text = "<|bos|>" + "".join(f"<|user|>{u}<|end|><|assistant|>{a}<|end|>" for u, a in TALK) + f"<|user|>{q}<|end|><|assistant|>"
        ids = torch.tensor(tok.encode(text).ids)
        with torch.no_grad():
            logits = peer(ids[None]).logits[0].float()
        error = (logits - reference.run(weights, cfg, ids)).abs().max().item()
        print(f"prompt {k}: {len(ids)} tokens, transformers and the float64 recurrence differ by {error:.1e}; best first token {tok.decode([int(logits[-1].argmax())])!r}")
        assert error < 1e-3
        out[f"ids_{k}"] = ids.int()
        out[f"logits_{k}"] = logits.contiguous()
    save_file(out, f"{path}/golden.safetensors")
