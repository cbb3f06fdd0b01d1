"""What can be told and asked: a slot is one thing a conversation may know (my sister's locker code,
where Tom lives, the code for the gate), with its ways of being told, corrected and asked, and the one
right wording of the answer. The wordings themselves are in wordings.py and verbs.py.
"""
import words as W
import wordings as L
from verbs import VERBS

HELD = 6  # of each list, every item whose position is 5 modulo 6 is never seen in training


def part(items, held):
    """The side of a list of wordings; the first five, the plain ones, are always trained on."""
    mine = [t for k, t in enumerate(items) if (k % HELD == HELD - 1) == held]
    return mine or items


def cap(s):
    return s[:1].upper() + s[1:]


# (noun, kind of value) for people.
NOUNS = [("name", "first"), ("name", "first"), ("name", "first"), ("last name", "word"), ("middle name", "first"), ("nickname", "pet"), ("full name", "full_name"),
         ("favorite color", "color"), ("favorite food", "food"), ("favorite city", "city"), ("favorite animal", "animal"), ("favorite book", "title"),
         ("favorite movie", "title"), ("favorite song", "title"), ("favorite team", "team"), ("favorite number", "number"), ("favorite day", "day"),
         ("favorite word", "word"), ("favorite drink", "word"), ("favorite fruit", "word"), ("favorite season", "word"), ("favorite flower", "word"), ("lucky number", "number"),
         ("age", "small"), ("birthday", "date"), ("date of birth", "date"), ("phone number", "phone"), ("office number", "phone"), ("email", "email"), ("email address", "email"),
         ("address", "street"), ("home town", "city"), ("city", "city"), ("job", "job"), ("hobby", "hobby"), ("employer", "word"), ("company", "title"),
         ("shoe size", "size"), ("shirt size", "size"), ("height", "weight"), ("weight", "weight"), ("blood type", "code"), ("locker code", "code"), ("locker number", "number"),
         ("room number", "number"), ("desk number", "number"), ("seat number", "code"), ("seat", "code"), ("ticket number", "code"), ("ticket id", "code"), ("booking reference", "code"),
         ("confirmation number", "code"), ("passport number", "code"), ("badge number", "code"), ("pin", "code"), ("pin code", "code"), ("door code", "code"), ("gate code", "code"),
         ("alarm code", "code"), ("password", "password"), ("wifi password", "password"), ("username", "password"), ("secret word", "word"), ("code word", "word"), ("license plate", "code"), ("library card", "code"),
         ("account number", "code"), ("customer number", "code"), ("membership number", "code"), ("budget", "money"), ("rent", "money"), ("salary", "money"),
         ("deadline", "when"), ("flight number", "code"), ("gate", "code"), ("bus number", "number"), ("train platform", "small"), ("hotel", "title"),
         ("best friend", "first"), ("team", "team"),
         ("project", "title"), ("favorite restaurant", "title"), ("favorite sport", "hobby"), ("favorite language", "language"), ("parking spot", "code"), ("apartment number", "number"),
         ("wake-up time", "clock"), ("lunch time", "clock"), ("meeting time", "clock"), ("school", "title"), ("street", "street"), ("zip code", "number"), ("order number", "code"),
         ("favorite teacher", "full_name"), ("insurance number", "code"), ("student number", "code"), ("favorite author", "full_name"), ("mother's maiden name", "word")]

THING_NOUNS = [("code", "code"), ("code", "code"), ("code", "code"), ("password", "password"), ("pin", "code"), ("combination", "code"), ("key number", "code"), ("serial number", "code"), ("price", "money"),
               ("color", "color"), ("owner", "full_name"), ("age", "small"), ("weight", "weight"), ("size", "size"), ("model", "code"), ("manufacturer", "word"), ("nickname", "pet"),
               ("warranty date", "date"), ("service date", "date"), ("location", "place"), ("label", "phrase"), ("tag", "code"), ("user", "first"), ("status", "status")]
PROJECT_NOUNS = [("deadline", "when"), ("budget", "money"), ("owner", "full_name"), ("manager", "full_name"), ("lead", "first"), ("client", "title"), ("code name", "phrase"), ("status", "status"),
                 ("start date", "date"), ("launch date", "date"), ("location", "city"), ("contact", "full_name"), ("version", "version"), ("password", "password"), ("phone number", "phone"),
                 ("team size", "small"), ("repository", "password"), ("server", "ip"), ("ip address", "ip"), ("main color", "color"), ("ticket", "code"), ("sponsor", "title"), ("city", "city"),
                 ("number of users", "number"), ("meeting day", "day"), ("meeting time", "clock"), ("room", "code"), ("priority", "number"), ("order number", "code"), ("total cost", "money")]


SAME = {"job": "work", "hobby": "do", "city": "live", "home town": "born", "favorite food": "like", "age": "birthday",
        "date of birth": "birthday", "email address": "email", "pin code": "pin", "seat": "seat number", "ticket id": "ticket number"}


def fuzz(wording, r, share):
    """In training, a wording with some words dropped or replaced: people find other ways to say it."""
    if r.random() >= share:
        return wording
    out = []
    for w in wording.split(" "):
        if "{" in w or w in ("is", "=", "not") or r.random() < .6:
            out.append(w)
        elif r.random() < .6:
            out.append(W.word(r) + (w[-1] if w[-1] in ",:?" else ""))
    return " ".join(out)


class Slot:
    """One thing that can be told. `key` is equal for slots whose facts would contradict.

    p: the ways in which the user names it, of which every use takes one. loose: the name alone says what is
    meant, so that the words around it may be any.
    """

    def __init__(self, key, kind, tell, fix, ask, answer, unknown, drop, p=("",), loose=True, loose_ask=False, **names):
        self.key, self.kind, self.names, self.loose, self.loose_ask = key, kind, names, loose, loose_ask
        self._p, self._tell, self._fix, self._ask = p, tell, fix, ask
        self._answer, self._unknown, self._drop = answer, unknown, drop

    def fill(self, wording, r, **more):
        return wording.format(**{"p": r.choice(self._p), **self.names, **more})

    def framed(self, core, frames, r, held, often):
        """core, with probability `often` inside one of the frames; {t} and {q} take it."""
        if r.random() >= often:
            return core
        frame = r.choice(part(frames, held))
        if not held:
            frame = fuzz(frame, r, .15)
        return frame.replace("{t}", core).replace("{q}", core)

    def core(self, cores, r, held):
        return fuzz(r.choice(part(cores, held)), r, .3 if self.loose and not held else 0)

    def tell(self, v, r, held):
        core = self.core(self._tell, r, held)
        whole = "?" not in core and ". " not in core
        return self.fill(self.framed(core, L.TELL_FRAMES, r, held, .55 * whole), r, v=v, o="")

    def claim(self, v, r):
        """A plain clause, for asking whether it is true."""
        return self.fill(r.choice(self._tell[:2]), r, v=v, o="")

    def fix(self, v, old, r, held):
        if self._fix and r.random() < .6:
            core, often = self.core(self._fix, r, held), .5
        else:
            core, often = self.core([t for t in self._tell if "?" not in t and ". " not in t], r, held), 1
        return self.fill(self.framed(core, L.FIX_FRAMES, r, held, often), r, v=v, o=old)

    def ask(self, r, held):
        core = r.choice(part(self._ask, held))
        if self.loose_ask and not held:
            core = fuzz(core, r, .3)
        return self.fill(self.framed(core, L.ASK_FRAMES, r, held, .4 * core.endswith("?")), r)

    def drop(self, r, held):
        return r.choice(part(L.DROP, held)).format(p=self._drop)

    def answer(self, v):
        return self._answer.format(v=v, **self.names)

    def unknown(self):
        return self._unknown.format(**self.names)


def noun_slot(mine, yours, key, kind, tell=L.NOUN_TELL, ask=L.NOUN_ASK):
    """mine: the ways of naming the slot in the user's words; yours: in the assistant's."""
    return Slot(key, kind, tell, L.NOUN_FIX, ask, cap(yours) + " is {v}.", "You have not told me " + yours + ".", mine[0], p=mine, loose_ask=True)


def person_noun(r, who, noun, kind):
    key = (who[0], SAME.get(noun, noun))
    if who[0] == "me":
        slot = noun_slot([f"my {noun}"], f"your {noun}", key, kind)
        if noun == "name":
            slot._tell, slot._ask = L.SELF_NAME_TELL, L.SELF_NAME_ASK
            slot.loose = slot.loose_ask = False
        return slot
    mine = [f"{who[0]}'s {noun}"] * 4 + [f"the {noun} of {who[0]}"]
    slot = noun_slot(mine, f"{who[1]}'s {noun}", key, kind)
    if noun == "name":
        # Told as a name, or as what somebody is called.
        slot._p = [who[0]]
        slot._tell = L.CALLED_TELL[:6] + [t for t in L.CALLED_TELL[6:] if "{d}" not in t]
        slot._ask = L.CALLED_ASK
        slot._fix = L.CALLED_FIX
        slot.loose_ask = False
    return slot


def verb_slot(who, verb):
    f = VERBS[verb]
    me = who[0] == "me"
    unknown = f.unknown if me else f.unknown_other
    drop = unknown.rstrip(".").replace("You have not told me ", "").replace("you are", "I am").replace("you ", "I ").replace("{a}", "{s}").format(s=who[0])
    return Slot((who[0], verb), f.kind, f.tell if me else f.tell_other, [], f.ask if me else f.ask_other, f.answer if me else f.answer_other, unknown, drop,
                loose=False, s=who[0], S=cap(who[1]), a=who[1])


def called_slot(who, animal):
    mine, yours = (f"my {animal}", f"your {animal}") if who[0] == "me" else (f"{who[0]}'s {animal}", f"{who[1]}'s {animal}")
    an = ("an " if animal[0] in "aeiou" else "a ") + animal
    tell = L.CALLED_TELL if who[0] == "me" else [t for t in L.CALLED_TELL if "{d}" not in t]
    kind = "pet" if animal in W.ANIMAL else "first"
    return Slot((mine, "name"), kind, tell, L.CALLED_FIX, L.CALLED_ASK, cap(yours) + "'s name is {v}.", "You have not told me " + yours + "'s name.", mine + "'s name",
                p=[mine], d=an)


def place_slot(r, item):
    p, y = f"my {item}", f"your {item}"
    if r.random() < .3:
        p = y = f"the {item}"
    many = item.endswith("s") and item not in ("bus", "glass")
    b, i, i2 = ("are", "they", "them") if many else ("is", "it", "it")
    return Slot((item, "place"), "place", L.PLACE_TELL, L.PLACE_FIX, L.PLACE_ASK, cap(y) + f" {b} in {{v}}.", f"You have not told me where {y} {b}.", f"where {p} {b}",
                p=[p], b=b, i=i, i2=i2)


def when_slot(r, event):
    p, y = f"my {event}", f"your {event}"
    if r.random() < .35:
        p = y = f"the {event}"
    return Slot((event, "when"), "when", L.WHEN_TELL, L.WHEN_FIX, L.WHEN_ASK, cap(y) + " is on {v}.", f"You have not told me when {y} is.", f"when {p} is", p=[p])


def count_slot(n):
    return Slot((n, "count"), "small", L.COUNT_TELL, L.COUNT_FIX, L.COUNT_ASK, "You have {v} {n}.", "You have not told me how many {n} you have.", f"how many {n} I have", n=n)


def thing_slot(thing, noun, kind):
    """thing: "gate", "red car", "Project Falcon", "order B-12"; noun: "code", "deadline" ..."""
    proper = thing[0].isupper() or any(ch.isdigit() for ch in thing)
    t = thing if proper else "the " + thing
    prep = "for" if noun in ("code", "password", "pin", "combination", "key number") else "of"
    canon = f"the {noun} {prep} {t}"
    names = [canon] * 4 + [f"the {noun} {'of' if prep == 'for' else 'for'} {t}", f"{t}'s {noun}"]
    if not proper:
        names += [f"the {thing} {noun}"] * 2
    return noun_slot(names, canon, (thing, noun), kind)


def who(r, held, cast):
    """Somebody: (the user's name for them, the assistant's)."""
    x = r.random()
    if x < .5:
        return ("me", "you")
    if cast and x < .75:
        return r.choice(cast)
    if r.random() < .5:
        rel = r.choice(W.RELATION)
        c = (f"my {rel}", f"your {rel}")
    else:
        n = W.value("first", r, held)
        c = (n, n)
    cast.append(c)
    return c


def thing_name(r):
    x = r.random()
    if x < .4:
        return r.choice(W.THING) if r.random() < .6 else r.choice(W.PLACE)
    if x < .7:
        return f"{r.choice(W.THING_ADJ + W.COLOR)} {r.choice(W.THING)}"
    if x < .85:
        return f"{r.choice(W.ADJ)} {r.choice(W.NOUN)}"
    return f"{r.choice(W.NOUN)} {r.choice(W.THING)}"


def project_name(r):
    x = r.random()
    if x < .5:
        return f"Project {r.choice(W.PROJECT)}"
    if x < .65:
        return f"{r.choice(('order', 'invoice', 'ticket', 'case', 'shipment', 'contract'))} {W.code(r)}"
    if x < .8:
        return f"{r.choice(('server', 'room', 'floor', 'team', 'line', 'unit', 'sensor', 'machine'))} {r.randint(1, 99)}"
    return f"the {W.word(r)} {r.choice(('plan', 'report', 'campaign', 'study', 'file', 'upgrade', 'release', 'survey', 'tour'))}".removeprefix("the ") if r.random() < .5 else f"Project {W.syllables(r)}"


def open_noun(r):
    """A noun nobody listed: the answer has to repeat it from the question."""
    x = r.random()
    return W.word(r) if x < .35 else f"{W.word(r)} {W.word(r)}" if x < .65 else f"{W.word(r)} {r.choice(('code', 'number', 'name', 'color', 'date', 'password', 'id', 'size', 'price', 'level', 'team'))}"


def random_slot(r, held, cast):
    x = r.random()
    if not held and r.random() < .3:
        if x < .4:
            return person_noun(r, who(r, held, cast), open_noun(r), r.choice(list(W.VALUES)))
        if x < .5:
            return called_slot(("me", "you") if r.random() < .6 else who(r, held, cast), W.word(r))
        if x < .6:
            return place_slot(r, W.word(r) if r.random() < .6 else f"{W.word(r)} {r.choice(W.ITEM)}")
        if x < .68:
            return when_slot(r, open_noun(r))
        if x < .76:
            return count_slot(W.word(r) + ("" if r.random() < .3 else "s"))
        return thing_slot(r.choice((W.word(r), f"{W.word(r)} {W.word(r)}", thing_name(r), project_name(r))), open_noun(r), r.choice(list(W.VALUES)))
    if x < .36:
        w = who(r, held, cast)
        noun, kind = r.choice(NOUNS)
        if noun == "name" and w[0] not in ("me",) and not w[0].startswith("my "):
            noun, kind = "last name", "word"
        if r.random() < .12:
            noun, kind = f"{r.choice(W.ADJ)} {r.choice(W.NOUN)}", r.choice(list(W.VALUES))
        return person_noun(r, w, noun, kind)
    if x < .56:
        return verb_slot(who(r, held, cast), r.choice(list(VERBS)))
    if x < .64:
        w = ("me", "you") if r.random() < .7 else who(r, held, cast)
        return called_slot(w, r.choice(W.ANIMAL) if r.random() < .75 else r.choice(W.RELATION))
    if x < .70:
        return place_slot(r, r.choice(W.ITEM))
    if x < .76:
        return when_slot(r, r.choice(W.EVENT))
    if x < .80:
        return count_slot(r.choice(W.COUNTED))
    if x < .92:
        return thing_slot(thing_name(r), *r.choice(THING_NOUNS))
    return thing_slot(project_name(r), *r.choice(PROJECT_NOUNS))
