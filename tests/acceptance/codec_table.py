#!/usr/bin/env python3
"""What is still known after a state was kept in a codec: facts told early in a conversation, small
talk up to a length, and questions to forks of the stored state, which the library decodes for each.

    build/python-client/bin/python tests/acceptance/codec_table.py --server build/bin/anabranchd \\
        --model deploy/models/recall [--trials 10] [--lengths 500,2000,5000]

Each codec has a server and library of its own: the id of a state does not depend on the form it is kept in,
so in one library all would be the first one kept.

"once": read in one session and committed. "10 times": the same conversation, but ten times on the way
the session is left and a new one goes on from its state. Recall is the share of questions whose answer
holds the value told; "same" the share of answers that are the exact state's, word for word. archive:
as exact, but the tokens alone are kept, so each question reads all of them again.

Size, speed and the drift of distributions: anabranch-bench codecs.
"""
import argparse
import asyncio
import contextlib
import random
import statistics
import time

from anabranch import AsyncClient, CheckpointPolicy, Message
from served_model import ROOT, TALK, Asker, groups, messages
from server import Server

CODECS = ("exact", "near", "compact", "archive")
CYCLES = 10


async def tell(session, conversation, length, rng):
    """Tells the conversation, then talks until the session has `length` tokens."""
    count = (await session.append(messages(conversation), no_checkpoint=True)).session.token_count
    while count < length:
        talk = [Message(role, text) for _ in range(16)
                for role, text in zip(("user", "assistant"), rng.choice(TALK))]
        count = (await session.append(talk[:max(2, (length - count) // 12 * 2)],
                                      no_checkpoint=True)).session.token_count


async def keep(client, name, codec, conversation, length, cycles, seed):
    """The state after the conversation, saved and restored `cycles` times."""
    rng, state = random.Random(seed), None
    policy = CheckpointPolicy(every=-1, codec="exact" if codec == "archive" else codec)
    for cycle in range(cycles):
        source = {"state": state.id} if state else {}
        session, _ = await client.create_session(f"{name}/{cycle}", ref="-", checkpoints=policy,
                                                 **source)
        told = conversation if cycle == 0 else {"turns": []}
        await tell(session, told, length * (cycle + 1) // cycles, rng)
        state = (await session.commit()).state
        await session.close()
    if codec == "archive":
        state = (await client.archive_state(state.id)).state
    return state


class Table:
    def __init__(self):
        self.known, self.same, self.sizes, self.ms = {}, {}, {}, {}

    def add(self, store, key, values):
        store.setdefault(key, []).extend(values)

    def show(self):
        print(f"{'tokens':>7} {'saved':>6} {'codec':>8} {'ratio':>6} {'error':>8} {'recall':>7} "
              f"{'same':>6} {'ms/answer':>10} {'questions':>10}")
        for key in sorted(self.known, key=lambda key: (key[0], key[1], CODECS.index(key[2]))):
            state = self.sizes[key]
            ratio = state.exact_size_bytes / state.size_bytes if state.size_bytes else float("inf")
            print(f"{key[0]:>7} {key[1]:>6} {key[2]:>8} {ratio:>6.2f} {state.codec_error:>8.1e} "
                  f"{statistics.mean(self.known[key]):>7.3f} {statistics.mean(self.same[key]):>6.3f} "
                  f"{statistics.median(self.ms[key]):>10.1f} {len(self.known[key]):>10}")


async def run_trial(clients, trial, conversation, args, table):
    for length in map(int, args.lengths.split(",")):
        for cycles in (1, CYCLES):
            exact = None
            for codec in CODECS:
                if codec == "archive" and cycles > 1:
                    continue
                client, asker = clients[codec]
                state = await keep(client, f"t{trial}/{length}/{cycles}/{codec}", codec, conversation,
                                   length, cycles, trial)
                if state.codec != codec:
                    raise SystemExit(f"{codec}: the state was kept as {state.codec}")
                key, start = (length, cycles, codec), time.perf_counter()
                answers = await asyncio.gather(*(asker.ask(state.id, fact["question"])
                                                 for fact in conversation["facts"]))
                elapsed = 1000 * (time.perf_counter() - start) / len(answers)
                exact = exact or answers
                table.sizes[key] = state
                table.add(table.known, key, [fact["value"].lower() in answer.lower() for fact, answer
                                             in zip(conversation["facts"], answers)])
                table.add(table.same, key, [a == b for a, b in zip(answers, exact)])
                table.add(table.ms, key, [elapsed])


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--server", default=str(ROOT / "build/bin/anabranchd"))
    parser.add_argument("--model", default=str(ROOT / "deploy/models/recall"))
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--lengths", default="500,2000,5000")
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    table = Table()
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for codec in CODECS:
            server = stack.enter_context(Server(args.server, args.model))
            client = await stack.enter_async_context(AsyncClient(server.addr))
            clients[codec] = client, Asker(client, args.at_once)
        for trial, group in enumerate(groups(None, args.trials, 1, args.facts, True, args.seed)):
            await run_trial(clients, trial, group[0], args, table)
    table.show()


if __name__ == "__main__":
    asyncio.run(main())
