"""The conversations that recall is measured on: wordings, values, names and talk that training never saw, all from
seeds. evaluate.py asks PyTorch about them, tests/acceptance/recall_table.py a running server.
"""
import random

import generate as G
import slots as S
import wordings as L

LENGTHS = (700, 1200, 2600, 5000, 10000)
MERGES = (2, 4, 8, 16, 32)
PLAIN = [("name", "first"), ("locker code", "code"), ("favorite color", "color"), ("room number", "number"), ("home town", "city"), ("birthday", "date"),
         ("phone number", "phone"), ("favorite food", "food"), ("password", "password"), ("license plate", "code"), ("email", "email"), ("wifi password", "password"),
         ("ticket id", "code"), ("hobby", "hobby"), ("nickname", "pet"), ("shoe size", "size"), ("desk number", "number"), ("middle name", "first")]


def plain_slot(r, held, cast):
    """Nouns in the plainest wording (the pilot's own way of speaking), for a fair comparison."""
    noun, kind = r.choice(PLAIN)
    who = ("me", "you") if r.random() < .7 else S.who(r, held, cast)
    slot = S.person_noun(r, who, noun, kind)
    if who[0] != "me" and noun == "name":
        slot._p = [f"{who[0]}'s name"]
    slot.ways = L.Kind(L.Lines(L.NOUN_TELL.train[:1]), L.Lines(["actually, {p} is {v}"]), L.Lines(L.NOUN_ASK.train[:2]))
    return slot


def conversation(maker, r, length, facts, new_slot=None):
    """Facts told at random places of a conversation of about `length` tokens, then questions.

    Some facts are about others, some corrected once; three questions are about what was never told.
    """
    c = maker.start(r)
    if new_slot:
        def one():
            while True:
                s = new_slot(r, c.held, c.cast)
                if s.key not in c.ever:
                    return s
        c.new_slot = one
    told, fixes = 0, max(1, facts // 5)
    spots = sorted(r.random() * .9 for _ in range(facts)) + [9]
    late = sorted(.2 + r.random() * .75 for _ in range(fixes)) + [9]
    while len(c.ids) < length - 15:
        at = len(c.ids) / length
        if spots[0] <= at:
            spots.pop(0)
            c.tell()
            told += 1
        elif late[0] <= at and told:
            late.pop(0)
            c.fix()
        else:
            c.filled(max(15, int(min(r.choice((40, 100, 200)), min(spots[0], late[0], 1) * length - len(c.ids) + 10))))
    while told < facts:
        c.tell()
        told += 1
    questions = [c.question_known(k) for k in list(c.facts)]
    for _ in range(3):
        if new_slot:
            s = c.new_slot()
            questions.append(("unknown", s.ask(r, c.held), s.unknown()))
        else:
            questions.append(c.question_unknown())
    return c.ids, [(kind, c.style(q, True), a) for kind, q, a in questions]


def merge_case(maker, r, n, facts=3, length=300):
    """n contexts with `facts` facts each, and questions about all of them and what nobody told."""
    used, contexts, known = {}, [], []
    for _ in range(n):
        c = None
        while c is None:
            c = maker.context(r, facts, length, used)
        contexts.append(c.ids)
        known += [c.question_known(k) for k in list(c.facts)]
    r.shuffle(known)
    extra = maker.start(r, used)
    questions = known[:24] + [extra.question_unknown() for _ in range(2)]
    return contexts, [(kind, extra.style(q, True), a) for kind, q, a in questions]


def case(maker, seed, style, length, k):
    """The k-th conversation of about `length` tokens: (its tokens, [(kind of question, question, answer)])."""
    r = random.Random(f"eval/{seed}/{style}/{length}/{k}")
    return conversation(maker, r, int(length * r.uniform(.85, 1.15)), r.randint(3, 12), plain_slot if style == "plain" else None)


def turns(tok, ids):
    """The turns that token ids spell: [(role, text)]."""
    out = []
    for t in ids:
        if t in (G.USER, G.ASSISTANT):
            out.append(("user" if t == G.USER else "assistant", []))
        elif t not in (G.BOS, G.END):
            out[-1][1].append(t)
    return [(role, tok.decode(text)) for role, text in out]
