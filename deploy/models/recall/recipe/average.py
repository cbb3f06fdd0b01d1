"""Averages two sets of weights of one architecture: what one training forgot of the other comes back.

    python average.py FORMER.safetensors LATER.safetensors OUT.safetensors [--share 0.5]
"""
import argparse

from safetensors.torch import load_file, save_file


def average(former, later, share):
    """share: of the later ones. Averaged in float32, kept as the former ones are."""
    return {name: ((1 - share) * w.float() + share * later[name].float()).to(w.dtype) for name, w in former.items()}


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("former")
    ap.add_argument("later")
    ap.add_argument("out")
    ap.add_argument("--share", type=float, default=.5)
    args = ap.parse_args()
    save_file(average(load_file(args.former), load_file(args.later), args.share), args.out, {"format": "pt"})
