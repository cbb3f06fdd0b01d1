"""Sub-tasks on branches of one conversation, and several attempts at one task of which the best is
kept.

    anabranchd serve --model deploy/models/recall --data /tmp/library   # in another terminal
    python parallel_subtasks.py --addr 127.0.0.1:50051
"""
from __future__ import annotations

import argparse
import sys

from anabranch import BranchResult, Client, Message


def run(client: Client, name: str, out: object = sys.stdout) -> dict[str, object]:
    session = client.open_session(name)
    for fact in ("My name is Ada.", "I live in Lisbon.", "My locker code is 4711."):
        session.ask(fact)

    # Sub-tasks: each branch knows the whole conversation, none knows of the others.
    questions = ["What is my name?", "Where do I live?", "What is my locker code?"]
    delegation = session.delegate([Message("user", q) for q in questions], reply=True)
    for event in delegation:  # results come in the order in which branches end
        if isinstance(event, BranchResult):
            print(f"{questions[event.branch - 1]:28}{event.text}", file=out)
    answers = [result.text for result in delegation.result.results]

    # Attempts: the same task with other dice; the likeliest attempt stays and is gone on from.
    attempts = [(Message("user", "What is my locker code?"), {"seed": seed}) for seed in range(6)]
    whole = session.delegate(attempts, policy="best", reply=True, temperature=1.5,
                             max_tokens=32).result
    best = whole.kept[0]
    for result in whole.results:
        mark = "kept" if result.branch == best.branch else ""
        print(f"attempt {result.branch}  score {result.score:7.3f}  {result.text}  {mark}", file=out)
    follow_up = client.session(best.session.id).ask("Where do I live?").text
    print(f"the best goes on: {follow_up}", file=out)
    return {"answers": answers, "scores": [r.score for r in whole.results], "best": best,
            "follow_up": follow_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--addr", default="127.0.0.1:50051")
    parser.add_argument("--session", default="examples/subtasks")
    arguments = parser.parse_args()
    with Client(arguments.addr) as client:
        run(client, arguments.session)


if __name__ == "__main__":
    main()
