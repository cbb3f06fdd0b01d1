#!/usr/bin/env python3
"""What forgetting and decay do to recall.

    build/python-client/bin/python tests/acceptance/forget_table.py --server build/bin/anabranchd \\
        --model deploy/models/recall [--trials 50] [--decay 0,500,2000,8000,32000]

Three conversations are read one after the other; the one in the middle is then forgotten. Its facts
should no longer be answered, those of the others still. The span alone should know only its own. Then
the whole is aged by a number of tokens. Also prints how far apart the states lie.
"""
import argparse
import asyncio
import statistics
import time

from anabranch import AsyncClient
from served_model import ROOT, Asker, groups, messages
from server import Server

STATES = ("whole", "forgotten", "span", "never read")
PARTS = ("before", "middle", "after")


def distance(diff):
    return statistics.mean(t.whole.relative_l2 for t in diff.tensors if t.kind == "recurrent")


async def run_trial(client, asker, trial, group, decays, known, apart):
    session, _ = await client.create_session(f"t{trial}", ref="-")
    straight, _ = await client.create_session(f"t{trial}/without", ref="-")
    ends = []
    for k, conversation in enumerate(group):
        await session.append(messages(conversation), no_checkpoint=True)
        ends.append((await session.commit()).state)
        if k != 1:
            await straight.append(messages(conversation), no_checkpoint=True)
    states = {"whole": ends[2].id, "never read": (await straight.commit()).state.id,
              "forgotten": (await client.forget(ends[2].id, ends[0].id, ends[1].id)).state.id,
              "span": (await client.span(ends[2].id, ends[0].id, ends[1].id)).state.id}
    for name in STATES:
        for part, conversation in zip(PARTS, group):
            known.setdefault((name, part), []).extend(
                await asker.share([(states[name], fact) for fact in conversation["facts"]]))
    for name in ("whole", "forgotten"):
        apart.setdefault(name, []).append(distance(await client.diff(states[name],
                                                                     states["never read"])))
    facts = [fact for conversation in group for fact in conversation["facts"]]
    for tokens in decays:
        aged = (await client.decay(ends[2].id, tokens)).state.id if tokens else ends[2].id
        known.setdefault(tokens, []).extend(await asker.share([(aged, fact) for fact in facts]))
    await session.close()
    await straight.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--server", default=str(ROOT / "build/bin/anabranchd"))
    parser.add_argument("--model", default=str(ROOT / "deploy/models/recall"))
    parser.add_argument("--conversations", help="JSON lines: a list of three conversations each")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--facts", type=int, default=3)
    parser.add_argument("--decay", default="0,500,2000,8000,32000,128000")
    parser.add_argument("--seen", action="store_true", help="wordings that training used too")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    decays = [int(m) for m in args.decay.split(",")]
    known, apart, begin, done = {}, {}, time.time(), 0
    with Server(args.server, args.model) as server:
        async with AsyncClient(server.addr) as client:
            asker = Asker(client, args.at_once)
            for trial, group in enumerate(groups(args.conversations, args.trials, 3, args.facts,
                                                 not args.seen, args.seed)):
                await run_trial(client, asker, trial, group, decays, known, apart)
                done += 1
                if time.time() - begin > 60 * args.minutes:
                    break
    print(f"{done} trials, {args.facts} facts a conversation; the middle one is forgotten")
    print(f"{'recall':<12}" + "".join(f"{part:>9}" for part in PARTS))
    for name in STATES:
        print(f"{name:<12}" + "".join(f"{statistics.mean(known[name, p]):>9.3f}" for p in PARTS))
    print("mean relative L2 to the state that never read it: "
          + ", ".join(f"{name} {statistics.mean(apart[name]):.3f}" for name in apart))
    print(f"{'decay':>8} {'recall':>7}")
    for tokens in decays:
        print(f"{tokens:>8} {statistics.mean(known[tokens]):>7.3f}")


if __name__ == "__main__":
    asyncio.run(main())
