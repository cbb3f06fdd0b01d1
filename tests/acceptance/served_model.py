"""Conversations that tell facts, and asking for them through the client.

A conversation is {"turns": [[role, text], ...], "facts": [{"question", "answer", "value"}, ...]}; the
facts of one group of conversations never contradict each other. They come from a file (one JSON list
of conversations a line: a group), or from the wordings of the recall model's recipe.
"""
import asyncio
import json
import pathlib
import random
import sys

from anabranch import AsyncClient, Message

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACKS = ("Got it.", "Noted.", "Okay, I will remember that.", "Okay, noted.")
TALK = (("Good morning", "Hello! How can I help you?"), ("How are you?", "I am fine, thank you."),
        ("I had a great day", "Glad to hear it."), ("Thanks a lot", "You are welcome."),
        ("It is raining again", "I hope it clears up soon."), ("I am tired", "I am sorry to hear that."),
        ("The weather is lovely today", "Enjoy it!"), ("Let me think", "Take your time."))


def made_up(seed, count, facts, held, talk=0):
    """A group of `count` conversations with `facts` facts and `talk` more turns of talk each."""
    sys.path.insert(0, str(ROOT / "deploy/models/recall/recipe"))
    import slots
    import words
    rng, used, group = random.Random(seed), set(), []
    for _ in range(count):
        turns, told, cast = [], [], []
        while len(told) < facts:
            slot = slots.random_slot(rng, held, cast)
            if slot.key in used:
                continue
            used.add(slot.key)
            value = words.value(slot.kind, rng, held)
            turns += [["user", slots.cap(slot.tell(value, rng, held)).rstrip(".") + "."],
                      ["assistant", rng.choice(ACKS)]]
            question = slots.cap(slot.ask(rng, held))
            told.append({"question": question if question[-1] in "?." else question + "?",
                         "answer": slot.answer(value), "value": value})
            if rng.random() < .5:
                said, answered = rng.choice(TALK)
                turns += [["user", said], ["assistant", answered]]
        for _ in range(talk):
            at = 2 * rng.randrange(len(turns) // 2 + 1)
            turns[at:at] = [list(pair) for pair in zip(("user", "assistant"), rng.choice(TALK))]
        group.append({"turns": turns, "facts": told})
    return group


def groups(path, trials, count, facts, held, seed, talk=0):
    if path:
        with open(path, encoding="utf-8") as file:
            for _, line in zip(range(trials), file):
                yield json.loads(line)[:count]
        return
    for trial in range(trials):
        yield made_up(f"{seed}/{trial}", count, facts, held, talk)


def messages(conversation):
    return [Message(role, text) for role, text in conversation["turns"]]


class Asker:
    """Questions on forks of states, many at a time, which leave nothing behind."""

    def __init__(self, client: AsyncClient, at_once):
        self.client, self.turn, self.next = client, asyncio.Semaphore(at_once), 0

    async def ask(self, state, question):
        async with self.turn:
            self.next += 1
            session, _ = await self.client.create_session(f"ask/{self.next}", state=state, ref="-")
            await session.append(Message("user", question), no_checkpoint=True)
            reply = await session.generate(reply=True, max_tokens=32, temperature=0,
                                           no_checkpoint=True).result()
            await session.close()
            return reply.text

    async def knows(self, state, fact):
        return fact["value"].lower() in (await self.ask(state, fact["question"])).lower()

    async def share(self, pairs):
        """Of (state, fact) pairs, how many are answered; None of none."""
        known = await asyncio.gather(*(self.knows(state, fact) for state, fact in pairs))
        return known
