"""What can be remembered: slots. A slot is one thing that a conversation may know (my sister's locker code,
where Tom lives, the code for the gate), with its ways of being told, corrected and asked, and the one
right wording of the answer. The wordings themselves are in the files of wordings/.
"""
import words as W
import wordings as L


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


NAMED = {name.removeprefix("my ") for verb in L.VERBS.values() for name in verb.me.names} | set(W.RELATION + W.ANIMAL + L.VOCABULARY["relation"])
OTHER_NOUNS = [(noun, kind) for noun, kind in L.VOCABULARY["person"] if noun not in NAMED]


LITTLE = "is was to for as at of in it with has be on from by that so we now here then just all there down".split()


def fuzz(wording, r, share):
    """In training, a wording with some words dropped or replaced: people find other ways to say it."""
    if r.random() >= share:
        return wording
    out, words = [], wording.split(" ")
    for k, w in enumerate(words):
        if "{" in w or w in ("is", "=", "not") or r.random() < .6:
            out.append(w)
        elif r.random() < .6:
            beside = "{" in "".join(words[max(0, k - 1):k + 2])  # where a value begins and ends stays clear
            out.append((r.choice(LITTLE) if beside else W.word(r)) + (w[-1] if w[-1] in ",:?" else ""))
    return " ".join(out)


SYNONYMS = {}
for group in L.VOCABULARY["synonym"]:
    for word in group:
        SYNONYMS.setdefault(word, []).extend(w for w in group if w != word)


def reworded(wording, r, share):
    """In training, a wording with some of its words replaced by others of the same meaning."""
    if r.random() >= share:
        return wording
    words = wording.split(" ")
    for k, w in enumerate(words):
        bare = w.rstrip(",:?.")
        if bare in SYNONYMS and r.random() < .5:
            words[k] = r.choice(SYNONYMS[bare]) + w[len(bare):]
    return " ".join(words)


def garbled(names, r):
    """A wording of nothing but names ("{p}", "{v}", "{o}") in any order among any words: who cannot follow the
    words can still tell which name belongs to the thing, and which value is new. Little words alone touch a name,
    so that it is clear where a value ends."""
    out = []
    for k, name in enumerate(r.sample(names, len(names))):
        n = r.randint(k > 0, 5)
        between = [r.choice(LITTLE) if r.random() < .5 or j in (0, n - 1) else W.word(r) for j in range(n)]
        out += between + [name + r.choice(("", "", "", ",", ":"))]
    out[-1] = out[-1].rstrip(",:")
    return " ".join(out + [r.choice(LITTLE) for _ in range(r.choice((0, 0, 1, 2)))])


class Slot:
    """One thing that can be told. `key` is equal for slots whose facts would contradict.

    ways: how it is told, corrected and asked. p: the ways in which the user names it, of which every use takes
    one. loose: the name alone says what is meant, so that the words around it may be any. origin: what near()
    makes a confusable slot from.
    """

    def __init__(self, key, kind, ways, answer, unknown, drop, origin, p=("",), loose=True, loose_ask=False, **names):
        self.key, self.kind, self.names, self.loose, self.loose_ask = key, kind, names, loose, loose_ask
        self.ways, self.origin = ways, origin
        self._p, self._answer, self._unknown, self._drop = p, answer, unknown, drop
        self._never = ways.never()

    def mark(self):
        return "{n}" if "n" in self.names else "{p}"

    def fill(self, wording, r, **more):
        return wording.format(**{"p": r.choice(self._p), **self.names, **more})

    def framed(self, core, frames, r, held, often):
        """core, with probability `often` inside one of the frames; {t} and {q} take it."""
        if r.random() >= often:
            return core
        frame = r.choice(frames.side(held))
        if not held:
            frame = self.frame_reworded(frame, frames, r)
            frame = fuzz(frame, r, .1)
            if r.random() < .1:  # a frame in a frame
                outer = r.choice(frames.side(held))
                mark = "{t}" if "{t}" in outer else "{q}"
                if mark == "{t}" or frame.endswith("{q}") or outer.endswith("{q}"):
                    frame = outer.replace(mark, frame)
        return frame.replace("{t}", core).replace("{q}", core)

    def allowed(self, core):
        said = L.plain(core)
        return not any(never in said for never in self._never)

    def frame_reworded(self, frame, frames, r):
        """A frame of training in other words, unless it is then one of validation."""
        said = reworded(frame, r, .25)
        return frame if any(never in L.plain(said) for never in frames.never()) else said

    def core(self, lines, r, held, loose):
        core = r.choice(lines)
        return fuzz(core if held else reworded(core, r, .25), r, .2 if loose and not held else 0)

    def tell_core(self, r, held, statement=False):
        """statement: a clause that fits after "actually"."""
        for _ in range(20):
            if self.ways.names and r.random() < .15:
                core = r.choice(L.NOUN_TELL.side(held)).replace("{p}", r.choice(self.ways.names))
            elif self.loose and not held and r.random() < .08:
                core = garbled([self.mark(), "{v}"], r)
            else:
                core = self.core(self.ways.tell.side(held), r, held, self.loose)
            if (held or self.allowed(core)) and not (statement and ("?" in core or ". " in core)):
                return core
        return self.ways.tell.train[0]

    def tell(self, v, r, held):
        core = self.tell_core(r, held)
        whole = "?" not in core and ". " not in core
        return self.fill(self.framed(core, L.TELL_FRAMES, r, held, .55 * whole), r, v=v, o="")

    def claim(self, v, r):
        """A plain clause, for asking whether it is true."""
        return self.fill(r.choice(self.ways.tell.train[:2]), r, v=v, o="")

    def fix(self, v, old, r, held):
        for _ in range(20):
            x = r.random()
            if self.ways.names and x < .2:
                core, often = r.choice(L.NOUN_FIX.side(held)).replace("{p}", r.choice(self.ways.names)), .4
            elif self.loose and not held and r.random() < .18:
                core, often = garbled([self.mark(), "{v}"] + ["{o}"] * (r.random() < .75), r), .4
            elif self.ways.fix.train and x < .65:
                core, often = self.core(self.ways.fix.side(held), r, held, self.loose), .4
            else:
                core, often = self.tell_core(r, held, True), 1
            if held or self.allowed(core):
                break
        if "?" in core or ". " in core:
            often = 0
        return self.fill(self.framed(core, L.FIX_FRAMES, r, held, often), r, v=v, o=old)

    def ask(self, r, held):
        if not held and r.random() < .1:  # the plainest words, which are rare among so many
            return self.fill(r.choice(self.ways.ask.train[:2]), r)
        for _ in range(20):
            x = r.random()
            if self.ways.indirect and x < .25:
                core = r.choice(L.ASK_INDIRECT.side(held)).replace("{i}", r.choice(self.ways.indirect))
            elif self.ways.names and x < .4:
                core = r.choice(L.NOUN_ASK.side(held)).replace("{p}", r.choice(self.ways.names))
            else:
                core = self.core(self.ways.ask.side(held), r, held, self.loose_ask)
            if held or self.allowed(core):
                break
        return self.fill(self.framed(core, L.ASK_FRAMES, r, held, .45 * core.endswith("?")), r)

    def drop(self, r, held):
        return r.choice(L.DROP.side(held)).format(p=self._drop)

    def answer(self, v):
        return self._answer.format(v=v, **self.names)

    def unknown(self):
        return self._unknown.format(**self.names)


NOUN_WAYS = L.Kind(L.NOUN_TELL, L.NOUN_FIX, L.NOUN_ASK, ["what {p} is", "what {p} is", "what {p} was"])
SELF_WAYS = L.Kind(L.KINDS["self"].tell, L.Lines(L.NOUN_FIX.train + 12 * L.KINDS["self"].fix.train, L.NOUN_FIX.held), L.KINDS["self"].ask,
                   L.KINDS["self"].indirect)
CALLED_WAYS = L.KINDS["called"]
CALLED_OTHER = L.Kind(L.Lines(*([t for t in side if "{d}" not in t] for side in (CALLED_WAYS.tell.train, CALLED_WAYS.tell.held))),
                      CALLED_WAYS.fix, CALLED_WAYS.ask, CALLED_WAYS.indirect)
PARTED = set("code number password pin color brand model size combination address id price".split())
WHOLE = set("favorite lucky last full middle first second old new dream main best biggest target daily".split())


def noun_slot(mine, yours, key, kind, origin):
    """mine: the ways of naming the slot in the user's words; yours: in the assistant's."""
    return Slot(key, kind, NOUN_WAYS, cap(yours) + " is {v}.", "You have not told me " + yours + ".", mine[0], origin, p=mine, loose_ask=True)


def person_noun(r, who, noun, kind, wide=False):
    """wide: named in more ways than validation does, "my locker code" as "the code of my locker" too."""
    key, origin = (who[0], SAME.get(noun, noun)), (person_noun, who, noun, kind)
    a, _, b = noun.rpartition(" ")
    parted = wide and b in PARTED and a and a[-1] != "s" and a.split()[0] not in WHOLE
    if who[0] == "me":
        mine = [f"my {noun}"] * 4 + ([f"the {b} of my {a}", f"the {b} for my {a}", f"my {a}'s {b}"] if parted else [])
        slot = noun_slot(mine, f"your {noun}", key, kind, origin)
        if noun == "name":
            slot.ways, slot.loose, slot.loose_ask = SELF_WAYS, False, False
            slot._never = SELF_WAYS.never()
        return slot
    mine = [f"{who[0]}'s {noun}"] * 4 + [f"the {noun} of {who[0]}"] + ([f"the {b} of {who[0]}'s {a}", f"the {b} for {who[0]}'s {a}"] if parted else [])
    slot = noun_slot(mine, f"{who[1]}'s {noun}", key, kind, origin)
    if noun == "name":
        # Told as a name, or as what somebody is called.
        slot._p, slot.ways, slot.loose_ask = [who[0]], CALLED_OTHER, False
        slot._never = CALLED_OTHER.never()
    return slot


def verb_slot(who, verb):
    return spoken_slot(who, (who[0], verb), L.VERBS[verb], (verb_slot, who, verb))


def spoken_slot(who, key, f, origin, kind=None, **more):
    me = who[0] == "me"
    ways = f.me if me else f.other
    names = dict(more, s=who[0], S=cap(who[1]), a=who[1])
    return Slot(key, kind or f.value, ways, f.answer if me else f.answer_other, f.unknown if me else f.unknown_other,
                ways.indirect[0].format(**names), origin, loose=False, **names)


def any_verb_slot(r, who, base=None):
    """A verb that nobody listed sentences for; a third of them are made up."""
    base, third, kind = base or r.choice(L.VOCABULARY["verb"])
    if r.random() < .35:
        base = r.choice((W.word(r), W.syllables(r).lower()))
        third = base + "s"
    after = third.partition("_")[2]
    base, third = f"{base} {after}".strip(), third.replace("_", " ")
    me = who[0] == "me"
    return spoken_slot(who, (who[0], "verb", base), L.ANY_VERB, (any_verb_slot, who), kind if kind in W.VALUES else "word",
                       b=base, b3=third, B=base if me else third)


def called_slot(who, animal):
    mine, yours = (f"my {animal}", f"your {animal}") if who[0] == "me" else (f"{who[0]}'s {animal}", f"{who[1]}'s {animal}")
    an = ("an " if animal[0] in "aeiou" else "a ") + animal
    kind = "pet" if animal in W.ANIMAL else "first"
    return Slot((mine, "name"), kind, CALLED_WAYS if who[0] == "me" else CALLED_OTHER, cap(yours) + "'s name is {v}.",
                "You have not told me " + yours + "'s name.", mine + "'s name", (called_slot, who, animal), p=[mine], d=an)


def place_slot(r, item):
    p, y = f"my {item}", f"your {item}"
    if r.random() < .3:
        p = y = f"the {item}"
    many = item.endswith("s") and item not in ("bus", "glass")
    b, i, i2 = ("are", "they", "them") if many else ("is", "it", "it")
    return Slot((item, "place"), "place", L.KINDS["place"], cap(y) + f" {b} in {{v}}.", f"You have not told me where {y} {b}.", f"where {p} {b}",
                (place_slot, item), p=[p], b=b, i=i, i2=i2)


def when_slot(r, event):
    p, y = f"my {event}", f"your {event}"
    if r.random() < .35:
        p = y = f"the {event}"
    return Slot((event, "when"), "when", L.KINDS["when"], cap(y) + " is on {v}.", f"You have not told me when {y} is.", f"when {p} is",
                (when_slot, event), p=[p])


def count_slot(n):
    return Slot((n, "count"), "small", L.KINDS["count"], "You have {v} {n}.", "You have not told me how many {n} you have.", f"how many {n} I have",
                (count_slot, n), n=n)


def thing_slot(thing, noun, kind):
    """thing: "gate", "red car", "Project Falcon", "order B-12"; noun: "code", "deadline" ..."""
    proper = thing[0].isupper() or any(ch.isdigit() for ch in thing)
    t = thing if proper else "the " + thing
    prep = "for" if noun in ("code", "password", "pin", "combination", "key number") else "of"
    canon = f"the {noun} {prep} {t}"
    names = [canon] * 4 + [f"the {noun} {'of' if prep == 'for' else 'for'} {t}", f"{t}'s {noun}"]
    if not proper:
        names += [f"the {thing} {noun}"] * 2
    return noun_slot(names, canon, (thing, noun), kind, (thing_slot, thing, noun, kind))


def near(slot, r, held, cast):
    """A slot that is easily taken for this one: the same of another, or another of the same."""
    make, *at = slot.origin
    if make is person_noun:
        if r.random() < .6:
            return person_noun(r, who(r, held, cast), at[1], at[2])
        return person_noun(r, at[0], *r.choice(NOUNS))
    if make is verb_slot:
        return verb_slot(who(r, held, cast), at[1]) if r.random() < .7 else verb_slot(at[0], r.choice(L.MEASURED))
    if make is any_verb_slot:
        return any_verb_slot(r, at[0])
    if make is called_slot:
        return called_slot(at[0], r.choice(W.ANIMAL)) if r.random() < .5 else called_slot(who(r, held, cast), at[1])
    if make is thing_slot:
        return thing_slot(thing_name(r), *at[1:]) if r.random() < .5 else thing_slot(at[0], *r.choice(THING_NOUNS + PROJECT_NOUNS))
    return {place_slot: lambda: place_slot(r, r.choice(W.ITEM)), when_slot: lambda: when_slot(r, r.choice(W.EVENT)),
            count_slot: lambda: count_slot(r.choice(W.COUNTED))}[make]()


def who(r, held, cast):
    """Somebody: (the user's name for them, the assistant's)."""
    x = r.random()
    if x < .5:
        return ("me", "you")
    if cast and x < .75:
        return r.choice(cast)
    if r.random() < .5:
        rel = r.choice(W.RELATION if held or r.random() < .6 else L.VOCABULARY["relation"])
        c = (f"my {rel}", f"your {rel}")
    else:
        n = W.value("first", r, held)
        c = (n, n)
    if not held and r.random() < .25:  # somebody of somebody
        rel = r.choice(W.RELATION + W.ANIMAL) if r.random() < .8 else W.word(r)
        c = (f"{c[0]}'s {rel}", f"{c[1]}'s {rel}")
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


def common_slot(r, cast):
    """What nearly everybody has, listed attributes and verbs alone. Training asks for it though nobody told it."""
    x, w = r.random(), ("me", "you") if r.random() < .6 else who(r, False, cast)
    if x < .6:
        return person_noun(r, w, *r.choice(NOUNS if w[0] == "me" else NOUNS[3:]))  # the first three are "name"
    if x < .75:
        return called_slot(w, r.choice(W.ANIMAL))
    return verb_slot(w, r.choice(L.MEASURED))


def wide_slot(r, cast):
    """Slots that validation has no part in: attributes and verbs from the vocabulary, and invented ones."""
    x, held = r.random(), False
    if x < .2:
        return person_noun(r, who(r, held, cast), open_noun(r), r.choice(list(W.VALUES)), True)
    if x < .4:
        return person_noun(r, who(r, held, cast), *r.choice(OTHER_NOUNS), True)
    if x < .5:
        return any_verb_slot(r, who(r, held, cast))
    if x < .58:
        return verb_slot(who(r, held, cast), r.choice(list(L.VERBS)[len(L.MEASURED):]))
    if x < .63:
        return called_slot(("me", "you") if r.random() < .6 else who(r, held, cast), W.word(r) if r.random() < .6 else r.choice(L.VOCABULARY["relation"]))
    if x < .69:
        return place_slot(r, W.word(r) if r.random() < .6 else f"{W.word(r)} {r.choice(W.ITEM)}")
    if x < .74:
        return when_slot(r, open_noun(r))
    if x < .78:
        return count_slot(W.word(r) + ("" if r.random() < .3 else "s"))
    if x < .87:
        return thing_slot(r.choice((W.word(r), f"{W.word(r)} {W.word(r)}", thing_name(r), project_name(r))), open_noun(r), r.choice(list(W.VALUES)))
    if x < .94:
        return thing_slot(thing_name(r), *r.choice(L.VOCABULARY["thing"]))
    return thing_slot(project_name(r), *r.choice(L.VOCABULARY["project"]))


def random_slot(r, held, cast):
    x = r.random()
    if not held and r.random() < .14:  # sentences with a verb are the hardest to follow
        return verb_slot(who(r, held, cast), r.choice(L.MEASURED))
    if not held and r.random() < .35:
        return wide_slot(r, cast)
    if x < .36:
        w = who(r, held, cast)
        noun, kind = r.choice(NOUNS)
        if noun == "name" and w[0] not in ("me",) and not w[0].startswith("my "):
            noun, kind = "last name", "word"
        if r.random() < .12:
            noun, kind = f"{r.choice(W.ADJ)} {r.choice(W.NOUN)}", r.choice(list(W.VALUES))
        return person_noun(r, w, noun, kind, not held and r.random() < .4)
    if x < .56:
        return verb_slot(who(r, held, cast), r.choice(L.MEASURED))
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
