#!/usr/bin/env python3
"""Acceptance of time travel: goes back to random positions of a long session.

Each position must give what a straight read gives, bit for bit in float32 (all tensors of the state
and the logits, compared by checksum), and replay as many tokens as `anabranch log` says.

    build/python-client/bin/python tests/acceptance/time_travel.py --server build/bin/anabranchd \\
        --model deploy/models/recall [--tokens 5000] [--positions 100] [--every 256] [--seed 1]

Prints a table and exits 1 if one position differs.
"""
import argparse
import random
import statistics
import sys
import time

from anabranch import CheckpointPolicy, Client
from server import Server

NOTHING = CheckpointPolicy(turn_ends=False, every=-1)


def content(rng, vocab, count):
    """Token ids that any model reads; special tokens are at the ends of vocabularies."""
    return [rng.randrange(vocab // 8, vocab // 2) for _ in range(count)]


def bits(client, state_id):
    stats = client.state_stats(state_id)
    return [(t.layer, t.kind, t.checksum, t.norms) for t in stats.tensors]


def read_straight(client, name, tokens):
    session, _ = client.create_session(name, checkpoints=NOTHING)
    session.append(tokens)
    state = session.commit().state
    session.close()
    return bits(client, state.id)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--positions", type=int, default=100)
    parser.add_argument("--every", type=int, default=256)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    # Straight reads have a library of their own: nothing of the first one can be found there.
    exact = ("--dtype", "float32")
    with Server(args.server, args.model, extra=exact) as server, \
            Server(args.server, args.model, extra=exact) as other, \
            Client(server.addr) as client, Client(other.addr) as straight:
        failed = run(client, straight, args, rng)
    sys.exit(1 if failed else 0)


def run(client, other, args, rng):
    tokens = content(rng, client.status().model.vocab_size, args.tokens)
    main, _ = client.create_session("main", checkpoints=CheckpointPolicy(every=args.every))
    cuts = sorted(rng.sample(range(1, args.tokens), args.turns - 1)) + [args.tokens]
    for start, end in zip([0] + cuts, cuts):
        main.append(tokens[start:end])
    log = main.log()
    equal = predicted = 0
    replays, latencies, straight_seconds = [], [], []
    for i in range(args.positions):
        position = rng.randrange(1, args.tokens + 1)
        (session,) = main.fork(names=[f"at/{i}"])
        # Now, not at the start: a mark that an earlier round set may have brought a state back.
        predicted_replay = session.log().replay_to(position)
        began = time.monotonic()
        plan = session.rewind(position)
        commit = session.commit(mark="here")  # brings it there, and captures the state
        latencies.append(time.monotonic() - began)
        replayed = commit.usage.tokens_replayed
        replays.append(replayed)
        ok = replayed == plan.tokens_to_replay == predicted_replay
        predicted += ok
        began = time.monotonic()
        straight = read_straight(other, f"straight/{i}", tokens[:position])
        straight_seconds.append(time.monotonic() - began)
        same = bits(client, commit.state.id) == straight
        equal += same
        if not (ok and same):
            print(f"token {position}: bit-equal {same}, replayed {replayed}, "
                  f"log says {predicted_replay}", flush=True)
        session.close()
    kinds = [e.state.kind for e in log.entries]
    n = args.positions
    rows = [
        ("session", f"{args.tokens} tokens, {args.turns} turns, grid of {args.every}"),
        ("states kept", f"{len(kinds)} ({kinds.count('turn')} turn ends, {kinds.count('grid')} of "
                        f"{args.tokens // args.every} on the grid)"),
        ("positions", f"{n}, random"),
        ("state and logits bit-equal to a straight read", f"{equal} of {n}"),
        ("replayed what the log said", f"{predicted} of {n}"),
        ("tokens replayed: mean, median, most",
         f"{statistics.mean(replays):.0f}, {statistics.median(replays):.0f}, {max(replays)}"),
        ("rewind, replay and capture: median", f"{statistics.median(latencies) * 1e3:.0f} ms"),
        ("straight read and capture: median", f"{statistics.median(straight_seconds) * 1e3:.0f} ms"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    return equal < n or predicted < n


if __name__ == "__main__":
    main()
