#!/usr/bin/env python3
"""What merging costs and keeps: the facts of n conversations, read separately and merged.

    build/python-client/bin/python tests/acceptance/merge_table.py --server build/bin/anabranchd \\
        --model deploy/models/recall [--trials 200] [--sizes 2,4,8,16,32] [--conversations FILE]

Each conversation is read once; its state serves all sizes and methods. "sequence" reads the
conversations one after the other, which is what merging saves. select merges for each question, with
the question as its query. Recall is the share of questions whose answer holds the value told.
"""
import argparse
import asyncio
import random
import statistics
import time

from anabranch import AsyncClient
from served_model import ROOT, Asker, groups, messages
from server import Server

METHODS = ("compose", "ordered", "mean", "select")


class Table:
    def __init__(self):
        self.known, self.merge_ms, self.read_ms, self.tokens = {}, {}, {}, {}

    def add(self, store, key, values):
        store.setdefault(key, []).extend(values)

    def show(self, sizes):
        print(f"{'n':>3} {'tokens':>7} " + " ".join(f"{m:>9}" for m in ("sequence", *METHODS))
              + f" {'questions':>10} {'read ms':>9} {'merge ms':>9} {'times':>6}")
        for n in sizes:
            cells = [self.known.get((n, method), []) for method in ("sequence", *METHODS)]
            read = statistics.median(self.read_ms[n])
            merge = statistics.median(self.merge_ms[n])
            print(f"{n:>3} {statistics.mean(self.tokens[n]):>7.0f} "
                  + " ".join(f"{statistics.mean(c):>9.3f}" if c else f"{'-':>9}" for c in cells)
                  + f" {max(map(len, cells)):>10} {read:>9.1f} {merge:>9.1f} {read / merge:>6.1f}")


async def read_contexts(client, trial, group):
    """The state of each conversation alone."""
    async def read(k, conversation):
        session, _ = await client.create_session(f"t{trial}/c{k}", ref="-")
        await session.append(messages(conversation), no_checkpoint=True)
        state = (await session.commit()).state
        await session.close()
        return state
    return await asyncio.gather(*(read(k, c) for k, c in enumerate(group)))


async def read_in_sequence(client, trial, group, sizes, table):
    """The states after the first n conversations in one session, and what reading them cost."""
    session, _ = await client.create_session(f"t{trial}/all", ref="-")
    states, milliseconds = {}, 0.0
    for k, conversation in enumerate(group, 1):
        start = time.perf_counter()
        await session.append(messages(conversation), no_checkpoint=True)
        milliseconds += 1000 * (time.perf_counter() - start)
        if k in sizes:
            state = (await session.commit()).state
            states[k] = state.id
            table.add(table.read_ms, k, [milliseconds])
            table.add(table.tokens, k, [state.token_count])
    await session.close()
    return states


async def run_trial(client, asker, trial, group, sizes, methods, questions, table):
    sequence = await read_in_sequence(client, trial, group, sizes, table)
    contexts = [state.id for state in await read_contexts(client, trial, group)]
    rng = random.Random(trial)
    for n in sizes:
        facts = [fact for conversation in group[:n] for fact in conversation["facts"]]
        asked = rng.sample(facts, min(questions, len(facts)))
        table.add(table.known, (n, "sequence"),
                  await asker.share([(sequence[n], fact) for fact in asked]))
        for method in methods:
            if method == "select":
                merges = [await client.merge(contexts[:n], method=method, query=fact["question"])
                          for fact in asked]
                pairs = [(merge.state.id, fact) for merge, fact in zip(merges, asked)]
            else:
                start = time.perf_counter()
                merge = await client.merge(contexts[:n], method=method)
                if method == "compose":
                    table.add(table.merge_ms, n, [1000 * (time.perf_counter() - start)])
                pairs = [(merge.state.id, fact) for fact in asked]
            table.add(table.known, (n, method), await asker.share(pairs))


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--server", default=str(ROOT / "build/bin/anabranchd"))
    parser.add_argument("--model", default=str(ROOT / "deploy/models/recall"))
    parser.add_argument("--conversations", help="JSON lines: a list of conversations each")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--sizes", default="2,4,8,16,32")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--facts", type=int, default=3, help="facts a conversation")
    parser.add_argument("--talk", type=int, default=0,
                        help="more turns of talk in each conversation, about 20 tokens each")
    parser.add_argument("--questions", type=int, default=6, help="questions a merge")
    parser.add_argument("--seen", action="store_true", help="wordings that training used too")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sizes = [int(n) for n in args.sizes.split(",")]
    table, begin, done = Table(), time.time(), 0
    with Server(args.server, args.model) as server:
        async with AsyncClient(server.addr) as client:
            asker = Asker(client, args.at_once)
            for trial, group in enumerate(groups(args.conversations, args.trials, max(sizes),
                                                 args.facts, not args.seen, args.seed,
                                                 args.talk)):
                await run_trial(client, asker, trial, group, sizes, args.methods.split(","),
                                args.questions, table)
                done += 1
                if time.time() - begin > 60 * args.minutes:
                    break
    print(f"{done} merges a size and method, {args.facts} facts a conversation")
    table.show(sizes)


if __name__ == "__main__":
    asyncio.run(main())
