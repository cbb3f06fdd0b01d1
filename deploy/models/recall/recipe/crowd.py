"""Conversations full of look-alikes: the same few things asked of the same few people, so that only the whole
question says which value is meant. Training alone uses them; what validation asks is in heldout.py.
"""
import slots as S
import words as W
import wordings as L

ALIKE = [("room number", "desk number", "locker number", "seat number", "phone number", "office number", "badge number"),
         ("password", "wifi password", "username", "email", "code word"), ("name", "last name", "middle name", "nickname", "best friend"),
         ("door code", "gate code", "alarm code", "locker code", "pin"), ("birthday", "deadline", "age", "favorite day"),
         ("home town", "city", "favorite city", "address"), ("favorite food", "favorite fruit", "favorite drink", "hobby", "favorite sport"),
         ("license plate", "ticket id", "booking reference", "passport number", "order number"), ("budget", "rent", "salary"),
         ("shoe size", "shirt size", "height", "weight", "lucky number", "favorite number"), ("favorite book", "favorite movie", "favorite song", "company")]
KIND = dict(S.NOUNS)
VERBS_ALIKE = [("live", "born", "trip"), ("work", "study", "employer", "do"), ("play", "do", "collect"), ("like", "drink", "allergy", "fear"),
               ("speak", "study", "born"), ("support", "do", "train"), ("married", "contact", "employer"), ("drive", "owe", "collect")]


def look_alike(r, told, cast):
    """A slot that is easily taken for the one told: besides near(), another of those alike, and a thing that shares a word."""
    make, *at = told.origin
    if make is S.person_noun and r.random() < .4:
        alike = [n for group in ALIKE if at[1] in group for n in group if n not in (at[1], "name")]
        if alike:
            noun = r.choice(alike)
            return S.person_noun(r, at[0], noun, KIND[noun])
    if make is S.thing_slot and " " in at[0] and r.random() < .5:
        first, last = at[0].rsplit(" ", 1)
        if not last.islower():  # a name or a number
            return S.thing_slot(f"{first} {S.project_name(r).split()[-1]}", *at[1:])
        other = r.choice([w for w in W.THING if w not in at[0].split()])
        return S.thing_slot(r.choice((f"{first} {other}", f"{other} {last}")), *at[1:])
    return S.near(told, r, False, cast)


class Crowd:
    """A grid of slots: some entities, and what may be told of each."""

    def __init__(self, r, cast):
        self.r = r
        x = r.random()
        self.cells = self.people if x < .72 else self.things if x < .88 else self.items
        if self.cells == self.people:
            self.who = [("me", "you")] + [self.somebody(cast) for _ in range(r.choice((1, 1, 2, 2, 3, 4)))]
            self.mine = r.choice((0, .2, .4, .6))
            nouns = [(n, KIND[n]) for n in r.choice(ALIKE)] if r.random() < .5 else []
            nouns += r.sample(S.NOUNS, r.randint(1, 6)) + r.sample(S.OTHER_NOUNS, r.choice((0, 0, 1, 2)))
            self.nouns = r.sample(nouns, min(len(nouns), r.randint(2, 8)))
            self.verbs = list(r.choice(VERBS_ALIKE)) if r.random() < .5 else r.sample(L.MEASURED, r.randint(2, 5))
            self.spoken = r.choice((0, 0, .3, .5, 1))
        elif self.cells == self.things:
            adjectives, noun = r.sample(W.COLOR + W.THING_ADJ, 4), r.choice(W.THING)
            alike = [noun] + [f"{a} {noun}" for a in adjectives] + [f"{adjectives[0]} {t}" for t in r.sample(W.THING, 2)]
            named = [S.project_name(r) for _ in range(4)]
            self.names = r.sample(alike if r.random() < .6 else named, r.randint(2, 4))
            self.nouns = r.sample(S.THING_NOUNS + S.PROJECT_NOUNS, r.randint(2, 5))
        else:
            self.make, some = r.choice(((S.place_slot, W.ITEM), (S.when_slot, W.EVENT), (lambda _, n: S.count_slot(n), W.COUNTED)))
            self.names = r.sample(some, r.randint(4, 12))

    def somebody(self, cast):
        """Somebody else than the user."""
        while (who := S.who(self.r, False, cast))[0] == "me":
            pass
        return who

    def people(self):
        r = self.r
        who = self.who[0] if r.random() < self.mine else r.choice(self.who)
        if r.random() < self.spoken:
            return S.verb_slot(who, r.choice(self.verbs))
        noun, kind = r.choice(self.nouns)
        if noun == "name" and who[0] != "me" and not who[0].startswith("my "):
            noun, kind = "last name", "word"
        return S.person_noun(r, who, noun, kind, r.random() < .2)

    def things(self):
        return S.thing_slot(self.r.choice(self.names), *self.r.choice(self.nouns))

    def items(self):
        return self.make(self.r, self.r.choice(self.names))

    def slot(self, known, tries=12):
        """A slot of the grid that is not among the known keys, or None."""
        for _ in range(tries):
            s = self.cells()
            if s.key not in known:
                return s
        return None
