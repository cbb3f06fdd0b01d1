"""Trains the model for a given time.

    torchrun --nproc-per-node N train.py --work DIR --seconds 1200     (or plain python for one GPU)

Steps are of three kinds: short rows, long rows in two segments with the state carried over the border,
and merges of separately read contexts. DIR holds what generate.py prepared and gets model.safetensors,
config.json and train.log (JSON lines). Writing another number of seconds into DIR/seconds changes the
time while it runs, the learning rate follows.
"""
import argparse
import json
import math
import os
import random
import time
import traceback

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, IterableDataset

import generate
import model as M
from optim import Muon

KINDS = ("short", "long", "merge")


class Stream(IterableDataset):
    """Batches of one kind, each from its own seed: (seed, rank, kind, number)."""

    def __init__(self, kind, args, rank):
        self.kind, self.args, self.rank = kind, args, rank

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        maker, a = generate.Maker(self.args.work), self.args
        k = info.id
        while True:
            r = random.Random(f"{a.seed}/{self.rank}/{self.kind}/{k}")
            k += info.num_workers
            try:
                if self.kind == "short":
                    out = maker.rows(r, a.tokens // a.short, a.short, a.plain, .37)
                elif self.kind == "long":
                    out = maker.rows(r, a.tokens // a.long, 2 * a.long, .08, .17, .5)
                else:
                    out = maker.merge_batch(r, sizes(r, a.contexts, a.contexts // 6), a.context, a.context)
            except Exception:  # one bad batch is no reason to lose a run: say so, take the next
                traceback.print_exc()
                continue
            yield [torch.from_numpy(x) for x in out]


def sizes(r, contexts, groups):
    """`groups` group sizes, from 1 to 32 and often 16 or more, that sum up to `contexts`."""
    out = []
    big = [s for s in r.choice(([32, 32], [32, 16, 16], [32, 24], [24, 16, 16], [16, 16, 16, 8], [8] * 6, [12, 12, 8, 8, 8])) if s <= contexts // 3]
    for s in big:
        if contexts - sum(out) - s >= 2 * (groups - len(out) - 1):
            out.append(s)
    while len(out) < groups:
        left, rest = contexts - sum(out), groups - len(out) - 1
        out.append(left if rest == 0 else max(1, min(left - rest, round(r.uniform(.6, 1.4) * left / (rest + 1)))))
    r.shuffle(out)
    return out


def cross_entropy(x, gain, embedding, targets, weights, eps, kind):
    """Sums over tokens: weighted loss and weight, then loss and count of answers and of plain text."""
    h = M.rms(x, gain, eps).to(kind)
    loss = F.cross_entropy((h @ embedding.to(kind).t()).float(), targets, reduction="none")
    w = weights.float() / 10
    answer, text = (weights == generate.ANSWER).float(), (weights == generate.TEXT).float()
    return torch.stack([(loss * w).sum(), w.sum(), (loss * answer).sum(), answer.sum(), (loss * text).sum(), text.sum()])


class Trainer:
    def __init__(self, args):
        self.args = args
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.cuda = torch.cuda.is_available()
        self.dev = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if self.cuda else torch.device("cpu")
        if self.cuda:
            torch.cuda.set_device(self.dev)
        if self.world > 1:
            dist.init_process_group("nccl" if self.cuda else "gloo")
        torch.manual_seed(args.seed)
        torch.set_float32_matmul_precision("high")
        torch._dynamo.config.recompile_limit = 64
        cfg = M.Config(args.hidden, args.layers, args.state)
        self.model = M.Model(cfg, torch.bfloat16 if self.cuda else torch.float32, args.chunk if self.cuda else 32).to(self.dev)
        if args.weights:
            self.model.load(load_file(args.weights))
        self.ce = cross_entropy
        if args.compile:
            M.Block.forward = torch.compile(M.Block.forward, dynamic=False, fullgraph=True)
            self.ce = torch.compile(cross_entropy, dynamic=False)
        bl, c = self.model.blocks, cfg
        at = [0, c.inner, 2 * c.inner, 2 * c.inner + c.state, 2 * c.inner + 2 * c.state, 2 * c.inner + 2 * c.state + c.heads]
        self.muon = Muon([([b.in_proj for b in bl], at), ([b.out_proj for b in bl], [0, c.hidden])])
        small = [p for n, p in self.model.named_parameters() if "_proj" not in n]
        self.adam = torch.optim.AdamW(small, lr=1e-3, betas=(.9, .95), weight_decay=0.0, fused=self.cuda)
        self.params = list(self.model.parameters())
        workers = dict(zip(KINDS, args.workers))
        self.streams = {k: iter(DataLoader(Stream(k, args, self.rank), batch_size=None, num_workers=workers[k], prefetch_factor=3,
                                           pin_memory=self.cuda)) for k in KINDS if workers[k]}
        self.long_rest = None
        self.log = open(f"{args.work}/train.log", "a") if self.rank == 0 else None

    def put(self, x):
        x = x.to(self.dev, non_blocking=True)
        return x.long() if x.dtype == torch.int16 else x

    def row_loss(self, ids, weights, memory=None, keep=None):
        """ids [b,l+1]: the loss sums of predicting each next token, and what was read."""
        x, memory = self.model(ids[:, :-1], memory, keep)
        m = self.model
        return self.ce(x.flatten(0, 1), m.norm_f, m.embedding, ids[:, 1:].flatten(), weights[:, 1:].flatten(), m.cfg.eps, m.kind), memory

    def batch_loss(self, kind):
        if kind == "short":
            ids, weights = map(self.put, next(self.streams["short"]))
            return self.row_loss(ids, weights)[0]
        if kind == "long":
            if self.long_rest is None:
                ids, weights = map(self.put, next(self.streams["long"]))
                n = self.args.long
                sums, memory = self.row_loss(ids[:, :n + 1], weights[:, :n + 1])
                self.long_rest = (ids[:, n:], weights[:, n:], memory.detach())
                return sums
            ids, weights, memory = self.long_rest
            self.long_rest = None
            return self.row_loss(ids, weights, memory)[0]
        ids, weights, keep, members, q_ids, q_weights = map(self.put, next(self.streams["merge"]))
        # The last token of a context has nothing after it here: predict it like any other, read all.
        target = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], 1)
        target_w = torch.cat([weights[:, 1:], torch.zeros_like(weights[:, :1])], 1)
        x, memory = self.model(ids, None, keep.float())
        m = self.model
        told = self.ce(x.flatten(0, 1), m.norm_f, m.embedding, target.flatten(), target_w.flatten(), m.cfg.eps, m.kind)
        merged = M.merge(memory, members, members.amax(1))
        asked, _ = self.row_loss(q_ids, q_weights, merged)
        return told + asked

    def step(self, kind, lr):
        sums = self.batch_loss(kind)
        (sums[0] / sums[1].clamp(min=1)).backward()
        flat = torch.cat([p.grad.flatten() for p in self.params])
        if self.world > 1:
            dist.all_reduce(flat)
            flat /= self.world
        norm = flat.norm()
        flat = torch.where(torch.isfinite(norm), flat * (1.0 / norm.clamp(min=1.0)), torch.zeros_like(flat))
        at = 0
        for p in self.params:
            p.grad = flat[at:at + p.numel()].view_as(p)
            at += p.numel()
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.muon.step(lr)
        for p in self.params:
            p.grad = None
        return torch.cat([sums.detach(), norm[None]])

    def run(self):
        a, r = self.args, random.Random(self.args.seed)
        start = time.time()
        progress, rate, step, tokens = 0.0, 0.0, 0, 0
        kept, kinds, last_save, mark, mark_step = [], [], 0.0, start, 0
        while progress < 1:
            p = progress + rate * (step - mark_step)
            lr = a.lr * min(1, (step + 1) / 100) * min(1, max(.01, (1 - p) / (1 - a.flat)))
            u = r.random()
            if "long" not in self.streams or a.only_short:
                kind = "short"
            elif self.long_rest is not None:
                kind = "long"
            else:
                p = a.shift + (1 - a.shift) * p
                long, merge = (0, .02) if p < .25 else (.05, .08) if p < .5 else (.12, .12) if p < .75 else (.25, .2)
                kind = "long" if u < long else "merge" if u < long + merge else "short"
            kept.append(self.step(kind, lr))
            kinds.append(kind)
            step += 1
            tokens += a.tokens * self.world
            if step % a.every == 0 or step in (1, 5):
                now = torch.tensor([time.time() - start, self.seconds()], device=self.dev, dtype=torch.float64)
                s = torch.stack(kept)
                if self.world > 1:
                    dist.broadcast(now, 0)
                    dist.all_reduce(s)
                (now, a.seconds), s = now.tolist(), s.cpu()
                per = (now - (mark - start)) / max(1, step - mark_step)
                progress, rate = now / a.seconds, (per / a.seconds if step > 40 else 0.0)
                if self.rank == 0:
                    line = {"step": step, "s": round(now, 1), "tokens": tokens, "lr": round(lr, 6), "tok_s": round(a.tokens * self.world / per), "norm": round(s[:, 6].mean().item() / self.world, 3)}
                    for k in KINDS:
                        t = s[[i for i, x in enumerate(kinds) if x == k]].sum(0)
                        if t[1] > 0:
                            line[k] = [round((t[2] / t[3].clamp(min=1)).item(), 4), round((t[4] / t[5].clamp(min=1)).item(), 4)]
                    self.log.write(json.dumps(line) + "\n")
                    self.log.flush()
                    if now - last_save > a.save_every or progress >= 1:
                        self.save()
                        last_save = now
                kept, kinds, mark, mark_step = [], [], start + now, step
        if self.rank == 0:
            self.save()
            json.dump({"steps": step, "tokens": tokens, "seconds": time.time() - start, "gpus": self.world}, open(f"{a.work}/done.json", "w"))
        os._exit(0)  # workers are still making batches

    def seconds(self):
        try:
            return float(open(f"{self.args.work}/seconds").read())
        except (OSError, ValueError):
            return self.args.seconds

    def save(self):
        """model.safetensors as it is used; whole.safetensors in float32, to go on from."""
        for name, dtype in (("model", torch.bfloat16), ("whole", torch.float32)):
            save_file(self.model.export(dtype), f"{self.args.work}/model.tmp", {"format": "pt"})
            os.replace(f"{self.args.work}/model.tmp", f"{self.args.work}/{name}.safetensors")
        json.dump(self.model.cfg.to_json(), open(f"{self.args.work}/config.json", "w"), indent=1)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--work", required=True)
    ap.add_argument("--seconds", type=float, default=1200)
    ap.add_argument("--seed", type=int, default=11)
    ap.add_argument("--hidden", type=int, default=512)
    ap.add_argument("--layers", type=int, default=11)
    ap.add_argument("--state", type=int, default=128)
    ap.add_argument("--tokens", type=int, default=65536, help="tokens a step and GPU")
    ap.add_argument("--short", type=int, default=2048)
    ap.add_argument("--long", type=int, default=8192, help="one segment; rows have two")
    ap.add_argument("--chunk", type=int, default=M.CHUNK, help="tokens of a block of the dual form: the same result, another speed")
    ap.add_argument("--plain", type=float, default=.2, help="share of short rows that are text alone")
    ap.add_argument("--contexts", type=int, default=96)
    ap.add_argument("--context", type=int, default=512)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--flat", type=float, default=.4, help="share of the time before the rate falls")
    ap.add_argument("--every", type=int, default=20)
    ap.add_argument("--save-every", type=float, default=60)
    ap.add_argument("--workers", type=int, nargs=3, default=[8, 4, 3])
    ap.add_argument("--compile", type=int, default=1)
    ap.add_argument("--weights", help="weights to go on from, with a fresh optimiser")
    ap.add_argument("--shift", type=float, default=0.0, help="where in the mix of kinds of steps to begin, 0 to 1")
    ap.add_argument("--only-short", action="store_true")
    Trainer(ap.parse_args()).run()


if __name__ == "__main__":
    main()
