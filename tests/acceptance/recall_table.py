#!/usr/bin/env python3
"""Recall of the embedded model, measured through the server: held-out conversations read, then asked about.

    build/python-client/bin/pip install tokenizers numpy
    build/python-client/bin/python deploy/models/recall/recipe/generate.py --text DIR --work WORK
    build/python-client/bin/python tests/acceptance/recall_table.py --work WORK

(deploy/models/recall/README.md says what DIR holds.) Every question is asked on a fork of the state at the end of its
conversation, greedily, and counts only if the whole answer is right to the letter. Told facts include corrected
ones. Merges: conversations of 3 facts each, read one after the other and read separately, then merged.
"""
import argparse
import asyncio
import pathlib
import random
import statistics
import sys

from anabranch import AsyncClient, Message
from served_model import ROOT, Asker
from server import Server

sys.path.insert(0, str(ROOT / "deploy/models/recall/recipe"))
AIMS = {700: .98, 1200: .98, 2600: .97, 5000: .93, 10000: .80}


def share(answers):
    """"0.95 (40)": the share of right answers and their number."""
    return f"{statistics.mean(answers):.3f} ({len(answers)})" if answers else "-"


class Reader:
    def __init__(self, client, tok, at_once):
        self.client, self.tok = client, tok
        self.asker, self.count = Asker(client, at_once), 0

    async def read(self, *rows):
        """The state after reading rows of tokens one after the other, as the turns that they spell."""
        import heldout
        self.count += 1
        session, _ = await self.client.create_session(f"read/{self.count}", ref="-")
        for ids in rows:
            await session.append([Message(*turn) for turn in heldout.turns(self.tok, ids)],
                                 no_checkpoint=True)
        state = (await session.commit()).state
        await session.close()
        return state

    async def ask(self, state, questions):
        """[(kind, right)] of [(kind, question, answer)]."""
        replies = await asyncio.gather(*(self.asker.ask(state, q) for _, q, _ in questions))
        return [(kind, reply.strip() == answer)
                for (kind, _, answer), reply in zip(questions, replies)]


def of(results, *kinds):
    return [right for kind, right in results if kind in kinds]


async def lengths(reader, maker, args):
    import heldout
    print("| conversation, mean tokens | told facts | of these corrected | never told | aim: told |")
    print("|---|---|---|---|---|", flush=True)
    for length in map(int, args.lengths.split(",")):
        tokens, results = [], []
        for k in range(max(2, args.conversations // (2 if length >= 5000 else 1))):
            ids, questions = heldout.case(maker, args.seed, args.style, length, k)
            state = await reader.read(ids)
            tokens.append(state.token_count)
            results += await reader.ask(state.id, questions)
        print(f"| {statistics.mean(tokens):.0f} | {share(of(results, 'recall', 'corrected'))} | "
              f"{share(of(results, 'corrected'))} | {share(of(results, 'unknown', 'dropped'))} | "
              f"{AIMS.get(length, '-')} |", flush=True)


async def merges(reader, maker, args):
    import heldout
    print("\n| n | told, read in sequence | told, merged | never told, sequence | never told, merged |")
    print("|---|---|---|---|---|", flush=True)
    for n in map(int, args.merges.split(",")):
        sequence, merged = [], []
        for k in range(args.trials):
            contexts, questions = heldout.merge_case(
                maker, random.Random(f"merge/{args.seed}/{n}/{k}"), n)
            whole = await reader.read(*contexts)
            parts = [await reader.read(ids) for ids in contexts]
            merge = await reader.client.merge([state.id for state in parts], method="compose")
            sequence += await reader.ask(whole.id, questions)
            merged += await reader.ask(merge.state.id, questions)
        cells = [share(of(r, *kinds)) for kinds in (("recall", "corrected"), ("unknown", "dropped"))
                 for r in (sequence, merged)]
        print(f"| {n} | " + " | ".join(cells) + " |", flush=True)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--server", default=str(ROOT / "build/bin/anabranchd"))
    parser.add_argument("--model", default=str(ROOT / "deploy/models/recall"))
    parser.add_argument("--work", required=True, help="folder that recipe/generate.py prepared")
    parser.add_argument("--lengths", default="700,1200,2600,5000,10000", help="'' for none")
    parser.add_argument("--conversations", type=int, default=12,
                        help="conversations a length; half as many from 5000 tokens on")
    parser.add_argument("--merges", default="2,4,8,16,32", help="'' for none")
    parser.add_argument("--trials", type=int, default=3, help="merges a size")
    parser.add_argument("--style", choices=("held-out", "plain"), default="held-out",
                        help="plain: common things in the plainest wording")
    parser.add_argument("--at-once", type=int, default=32, help="questions asked at a time")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (pathlib.Path(args.work) / "dialogs_held.npy").exists():
        parser.error(f"--work {args.work} holds no prepared text: run recipe/generate.py --text DIR "
                     f"--work {args.work} first")
    import generate
    maker = generate.Maker(args.work, held=True)
    with Server(args.server, args.model) as server:
        async with AsyncClient(server.addr) as client:
            reader = Reader(client, maker.tok, args.at_once)
            if args.lengths:
                await lengths(reader, maker, args)
            if args.merges:
                await merges(reader, maker, args)


if __name__ == "__main__":
    asyncio.run(main())
