"""An assistant with a long context looks through a mailbox without reading it.

Branches of the assistant's session read a share of the messages each and are asked for what the
assistant is looking for. What they found is appended to the session, which goes on; the branches
are dropped. Then the same work is done in one sequence, on a fork that reads every message, and
both are compared.

    anabranchd serve --model deploy/models/recall --data /tmp/library   # in another terminal
    python mailbox.py --addr 127.0.0.1:50051
"""
from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from anabranch import Client, Message, Session

# Told and asked in the plain wordings that the embedded model was trained on.
TELL = ("{what} is {value}", "remember that {what} is {value}", "please note that {what} is {value}",
        "FYI, {what} is {value}")
ASK = "What is {what}?"
THINGS = ("gate garage cellar attic barn bicycle locker safe boat archive workshop greenhouse "
          "elevator laboratory studio warehouse tower cabin printer server").split()
COLORS = "red blue green yellow orange purple pink brown".split()
PEOPLE = "Ada Ben Clara Dmitri Elif Felix Greta Hugo Ines Jonas Kira Luis Mina Noah Olga".split()
TOPICS = ("lunch on Friday", "the minutes of the meeting", "a question about the report",
          "the new coffee machine", "parking behind the building", "the holiday plan",
          "slides for the workshop", "the window that does not close", "a lost umbrella")
PLAIN = ("Thanks for the last message, I will have a look.", "Nothing urgent, only for your files.",
         "Could we talk about it when you are back?", "The others agree, as far as I know.",
         "Sorry for the delay, it was a busy week.", "I have put a copy on your desk.",
         "Let me know if anything is missing.", "It can wait until the end of the month.")


@dataclass
class Mailbox:
    messages: list[str]
    planted: dict[str, str]  # what to its value: "the code for the gate" to "4417"


def make_findings(r: random.Random, count: int) -> dict[str, str]:
    """Of several kinds: the model mixes up a dozen facts that differ in one word alone."""
    kinds = (("the code for the {}", lambda: f"{r.randrange(1000, 10000)}"),
             ("the color of the {}", lambda: r.choice(COLORS)),
             ("the owner of the {}", lambda: f"{r.choice(PEOPLE)} Larsen"),
             ("the price of the {}", lambda: f"{r.randrange(10, 900)} euros"),
             ("the age of the {}", lambda: f"{r.randrange(2, 90)}"))
    found = {}
    for i, thing in enumerate(r.sample(THINGS, count)):
        what, value = kinds[i % len(kinds)]
        found[what.format(thing)] = value()
    return found


def make_mailbox(seed: int, messages: int, findings: int) -> Mailbox:
    """The same seed gives the same mailbox."""
    r = random.Random(seed)
    planted = make_findings(r, findings)
    places = dict(zip(r.sample(range(messages), findings), planted.items()))
    texts = []
    for i in range(messages):
        body = r.sample(PLAIN, 2)
        if i in places:
            what, value = places[i]
            told = r.choice(TELL).format(what=what, value=value)
            body.insert(1, told[0].upper() + told[1:] + ".")
        texts.append(f"Read this: From {r.choice(PEOPLE)}, about {r.choice(TOPICS)}. {' '.join(body)}")
    return Mailbox(texts, planted)


def turns(texts: list[str]) -> list[Message]:
    """The messages as turns of a conversation, without a reply to the last."""
    out = []
    for text in texts:
        out += [Message("user", text), Message("assistant", "I have read it.")]
    return out[:-1]


@dataclass
class Way:
    """One way to do the work, and what came of it."""
    seconds: float = 0.0
    tokens_read: int = 0
    tokens_generated: int = 0
    found: dict[str, str] = field(default_factory=dict)  # what to answer
    wrong: int = 0

    def add(self, usage: object) -> None:
        self.tokens_read += usage.tokens_read  # type: ignore[attr-defined]
        self.tokens_generated += usage.tokens_generated  # type: ignore[attr-defined]

    def judge(self, planted: dict[str, str]) -> None:
        self.wrong = sum(planted[what] not in answer for what, answer in self.found.items())

    def recall(self, planted: dict[str, str]) -> float:
        return (len(self.found) - self.wrong) / max(1, len(planted))


def ask_all(client: Client, session: str, wanted: list[str],
            way: Way) -> dict[str, tuple[float, str]]:
    """Asks on branches, so that the session does not change: score and answer by what is asked."""
    questions = [Message("user", ASK.format(what=what)) for what in wanted]
    whole = client.delegate(questions, session=session, reply=True, max_tokens=32).result
    way.add(whole.usage)
    return {wanted[r.branch - 1]: (r.score, r.text) for r in whole.results
            if r.error is None and not r.text.startswith("You have not told me")}


def in_branches(client: Client, assistant: Session, mailbox: Mailbox, count: int) -> Way:
    way, start = Way(), time.monotonic()
    shares = [mailbox.messages[i::count] for i in range(count)]
    whole = assistant.delegate([turns(share) for share in shares], policy="keep",
                               prefix=f"{assistant.id}/mail", reply=True, max_tokens=16).result
    way.add(whole.usage)
    wanted = sorted(mailbox.planted)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda kept: ask_all(client, kept.session.id, wanted, way),
                                whole.kept))
    for what in wanted:  # of several branches that claim to know, the surest
        claims = [each[what] for each in answers if what in each]
        if claims:
            way.found[what] = max(claims)[1]
    for kept in whole.kept:  # nothing of the branches stays but their findings
        client.session(kept.session.id).close()
        client.delete_state(kept.session.head_state_id)
    way.seconds = time.monotonic() - start
    way.judge(mailbox.planted)
    return way


def in_sequence(client: Client, assistant: Session, mailbox: Mailbox) -> Way:
    way, start = Way(), time.monotonic()
    [reader] = assistant.fork(names=[f"{assistant.id}/sequence"])
    way.add(reader.append(turns(mailbox.messages) + [Message("assistant", "I have read it.")]).usage)
    answers = ask_all(client, reader.id, sorted(mailbox.planted), way)
    way.found = {what: answer for what, (_, answer) in answers.items()}
    reader.close()
    way.seconds = time.monotonic() - start
    way.judge(mailbox.planted)
    return way


def run(client: Client, *, messages: int, branches: int, findings: int, seed: int,
        context: int = 20, out: object = sys.stdout) -> dict[str, object]:
    mailbox = make_mailbox(seed, messages, findings)
    assistant, _ = client.create_session()
    assistant.ask("My name is Ada.")
    assistant.append(turns([f"Read this: {' '.join(PLAIN)}"] * context), no_checkpoint=True)
    before = assistant.text()

    scan = in_branches(client, assistant, mailbox, branches)
    untouched = assistant.text() == before
    findings_told = [scan.found[what] for what in sorted(scan.found)]
    sequence = in_sequence(client, assistant, mailbox)
    for finding in findings_told:
        assistant.append([Message("user", f"Remember that {finding[0].lower()}{finding[1:]}"),
                          Message("assistant", "Got it.")], no_checkpoint=True)
    later = Way()
    known = ask_all(client, assistant.id, sorted(mailbox.planted), later)
    name = assistant.ask("What is my name?").text
    kept = sum(mailbox.planted[what] in answer for what, (_, answer) in known.items())

    print(f"{messages} messages, {findings} findings among them\n"
          f"{'':24}{f'{branches} branches':>14}{'one sequence':>14}", file=out)
    for label, show in (("wall time, s", lambda w: f"{w.seconds:.1f}"),
                        ("tokens read", lambda w: f"{w.tokens_read:,}"),
                        ("tokens generated", lambda w: f"{w.tokens_generated:,}"),
                        ("recall of findings", lambda w: f"{w.recall(mailbox.planted):.2f}"),
                        ("wrong findings", lambda w: f"{w.wrong}")):
        print(f"{label:24}{show(scan):>14}{show(sequence):>14}", file=out)
    print(f"the assistant's context after the scan: {'unchanged' if untouched else 'CHANGED'}\n"
          f"it goes on with {len(findings_told)} sentences instead of {messages} messages, knows "
          f"{kept} of {findings} findings,\nand to \"What is my name?\" says: {name}", file=out)
    return {"scan": scan, "sequence": sequence, "untouched": untouched, "known": kept, "name": name,
            "planted": mailbox.planted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--addr", default="127.0.0.1:50051")
    parser.add_argument("--messages", type=int, default=400)
    parser.add_argument("--branches", type=int, default=20)
    parser.add_argument("--findings", type=int, default=12, help=f"at most {len(THINGS)}")
    parser.add_argument("--context", type=int, default=20, help="documents it has read before")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with Client(arguments.addr) as client:
        run(client, messages=arguments.messages, branches=arguments.branches,
            findings=arguments.findings, seed=arguments.seed, context=arguments.context)


if __name__ == "__main__":
    main()
