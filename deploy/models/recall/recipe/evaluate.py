"""Measures recall, merging and bits per byte on text, wordings and values that training never saw.

    python evaluate.py --work DIR --model DIR [--model DIR ...] [--scale 1.0]

A question counts only if the whole answer, up to its end, is what greedy generation gives, letter by
letter. Every question is asked on a fork of the state at the conversation's end.
"""
import argparse
import json
import math
import random
import sys
from collections import defaultdict

import torch
from safetensors.torch import load_file

import generate as G
import heldout as H
import model as M


class Judge:
    def __init__(self, path, dev):
        cfg = M.Config.from_json(f"{path}/config.json")
        self.dev, self.name = dev, path
        self.kind = torch.bfloat16 if dev == "cuda" else torch.float32
        self.model = M.Model(cfg, self.kind, 64).load(load_file(f"{path}/model.safetensors")).to(dev).eval()

    @torch.no_grad()
    def read(self, rows, batch=32, segment=2048):
        """States after reading each row (token lists): padded in front, in segments."""
        longest = -(-max(map(len, rows)) // 64) * 64
        parts = []
        for a in range(0, len(rows), batch):
            some = rows[a:a + batch]
            ids, keep = torch.zeros(len(some), longest, dtype=torch.long), torch.zeros(len(some), longest)
            for k, row in enumerate(some):
                ids[k, longest - len(row):], keep[k, longest - len(row):] = torch.tensor(row), 1
            memory = None
            for s in range(0, longest, segment):
                memory = self.model(ids[:, s:s + segment].to(self.dev), memory, keep[:, s:s + segment].to(self.dev))[1]
            parts.append(memory)
        join = lambda lists: [torch.cat(ts) for ts in zip(*lists)]
        return M.Memory(*(join([getattr(p, f) for p in parts]) for f in ("states", "windows", "log_p")))

    def judge(self, memory, tok, asked):
        """asked: (row of memory, question, answer) -> whether greedy generation gives the answer."""
        tails = [tok.encode(answer).ids + [G.END] for _, _, answer in asked]
        right = [best == tail for best, tail in zip(self.follow(memory, tok, asked, tails), tails)]
        # The same letters in other tokens are right too: those few answers are really generated.
        for k in [k for k, ok in enumerate(right) if not ok]:
            right[k] = self.answer(memory, tok, asked[k], 2 * len(tails[k])) == asked[k][2]
        return right

    @torch.no_grad()
    def follow(self, memory, tok, asked, tails, batch=256):
        """The most likely token at the place of each token of `tails`, given those before it."""
        best = []
        for a in range(0, len(asked), batch):
            some = asked[a:a + batch]
            heads = [[G.USER] + tok.encode(q).ids + [G.END, G.ASSISTANT] for _, q, _ in some]
            rows = [h + t for h, t in zip(heads, tails[a:a + batch])]
            ids = torch.zeros(len(some), -(-max(map(len, rows)) // 64) * 64, dtype=torch.long)
            for k, row in enumerate(rows):
                ids[k, :len(row)] = torch.tensor(row)
            picked = memory.pick(torch.tensor([x[0] for x in some], device=self.dev))
            likely = self.model.logits(self.model(ids.to(self.dev), picked)[0]).argmax(-1).cpu()
            best += [likely[k, len(h) - 1:len(row) - 1].tolist() for k, (h, row) in enumerate(zip(heads, rows))]
        return best

    def answer(self, memory, tok, question, limit):
        """What greedy generation says, in at most `limit` tokens."""
        said = []
        while len(said) < limit:
            said.append(self.follow(memory, tok, [question], [said + [G.END]])[0][-1])
            if said[-1] == G.END:
                break
        return tok.decode([t for t in said if t != G.END]).strip()

    @torch.no_grad()
    def bits(self, rows):
        total = 0.0
        for a in range(0, len(rows), 16):
            ids = torch.tensor(rows[a:a + 16]).to(self.dev)
            logits = self.model.logits(self.model(ids[:, :-1])[0])
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
        return total / math.log(2)


def progress(judge, *what):
    print(judge.name, *what, file=sys.stderr, flush=True)


def run(judges, maker, scale, seed=1):
    out = {j.name: {} for j in judges}
    tok = maker.tok
    for style in ("held-out", "plain"):
        for length in H.LENGTHS:
            count = max(2, int((128 if length < 5000 else 64) * scale))
            rows, asked, kinds = [], [], []
            for k in range(count):
                ids, questions = H.case(maker, seed, style, length, k)
                rows.append(ids)
                asked += [(k, q, a) for _, q, a in questions]
                kinds += [kind for kind, _, _ in questions]
            mean = sum(map(len, rows)) / len(rows)
            for j in judges:
                right = j.judge(j.read(rows), tok, asked)
                by = defaultdict(list)
                for kind, ok in zip(kinds, right):
                    by[kind].append(ok)
                    if kind in ("recall", "corrected"):
                        by["all told"].append(ok)
                res = {k: [round(sum(v) / len(v), 4), len(v)] for k, v in by.items()}
                out[j.name][f"{style} {length}"] = {"mean tokens": round(mean), **res}
                progress(j, style, length, out[j.name][f"{style} {length}"])
                if style == "held-out" and length == 700:
                    out[j.name]["wrong"] = [f"{q} -> {a}" for (_, q, a), ok in zip(asked, right) if not ok][:40]
    for n in H.MERGES:
        count = max(2, int((48 if n < 16 else 24) * scale))
        contexts, sequences, members, asked, kinds = [], [], [], [], []
        for k in range(count):
            parts, questions = H.merge_case(maker, random.Random(f"merge/{seed}/{n}/{k}"), n)
            members.append(list(range(len(contexts), len(contexts) + n)))
            contexts += parts
            sequences.append(parts[0] + [t for p in parts[1:] for t in p[1:]])
            asked += [(k, q, a) for _, q, a in questions]
            kinds += [kind for kind, _, _ in questions]
        for j in judges:
            groups = torch.tensor(members, device=j.dev)
            merged = M.merge(j.read(contexts, 128), groups, groups[:, -1])
            res = {}
            for name, memory in (("sequence", j.read(sequences)), ("merged", merged)):
                right = j.judge(memory, tok, asked)
                for want in ("told", "unknown"):
                    got = [ok for kind, ok in zip(kinds, right) if (kind in ("unknown", "dropped")) == (want == "unknown")]
                    res[f"{name} {want}"] = [round(sum(got) / max(1, len(got)), 4), len(got)]
            out[j.name][f"merge {n}"] = {"tokens in sequence": round(sum(map(len, sequences)) / count), **res}
            progress(j, "merge", n, out[j.name][f"merge {n}"])
    for name, flat in (("dialogue", maker.filler.dialogs), ("prose", maker.filler.prose)):
        flat = flat.tolist()
        rows = [[G.BOS] + flat[a:a + 2048] for a in range(0, len(flat) - 2048, 2048)][:max(4, int(200 * scale))]
        size = sum(len(tok.decode(row).encode()) for row in rows)
        for j in judges:
            out[j.name][f"bits per byte, {name}"] = round(j.bits(rows) / size, 4)
    return out


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--work", required=True)
    ap.add_argument("--model", action="append", required=True)
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--out")
    args = ap.parse_args()
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    maker = G.Maker(args.work, held=True)
    out = run([Judge(m, dev) for m in args.model], maker, args.scale)
    for name, res in out.items():
        print(f"== {name}")
        for key, row in res.items():
            if key != "wrong":
                print(f"{key:24} {json.dumps(row)}")
        print("\n".join(res.get("wrong", [])[:8]))
    if args.out:
        json.dump(out, open(args.out, "w"), indent=1)
