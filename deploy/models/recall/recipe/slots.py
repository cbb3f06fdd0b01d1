"""What can be told and asked: a slot is one thing a conversation may know (my sister's locker code,
where Tom lives, the code for the gate), with its ways of being told, corrected and asked, and the one
right wording of the answer.

Each list of wordings keeps some for validation only: those at the positions that HELD names.
"""
import words as W

HELD = 5  # of each list, every item whose position is 4 modulo 5 is never seen in training


def part(items, held):
    """The side of a list of wordings. The first four, the plain ones, are always trained on."""
    mine = [t for k, t in enumerate(items) if (k % HELD == HELD - 1) == held]
    return mine or items


def cap(s):
    return s[:1].upper() + s[1:]


# {p}: the slot as the user calls it ("my sister's age"), {v}: the value.
TELL = """{p} is {v}|{p} is {v}|remember that {p} is {v}|{p}: {v}|just so you know, {p} is {v}|{v} is {p}|
please remember that {p} is {v}|note that {p} is {v}|by the way, {p} is {v}|for the record, {p} is {v}|
I want you to know that {p} is {v}|keep in mind that {p} is {v}|FYI, {p} is {v}|I should mention that {p} is {v}|
oh, and {p} is {v}|can you remember that {p} is {v}?|save this: {p} is {v}|also, {p} is {v}|it is worth knowing that {p} is {v}|
you may want to write down that {p} is {v}|please note {p}: {v}|here is {p}: {v}|as for {p}, it is {v}|{p} would be {v}|
before I forget, {p} is {v}|don't forget that {p} is {v}|{p} = {v}|let me give you {p}: {v}|well, {p} is {v}|so, {p} happens to be {v}|
could you store {p} for me? It is {v}|I need you to remember {p}. It's {v}|{p}? That is {v}|{v}, that is {p}|memo: {p} is {v}|
one more thing, {p} is {v}|to be precise, {p} is {v}|you should know {p} is {v}|I just found out that {p} is {v}|put down {v} as {p}|
in case I forget, {p} is {v}|use {v} as {p}|they told me {p} is {v}|I looked it up and {p} is {v}|make a note, {p} is {v}""".replace("\n", "").split("|")

FIX = """actually, {p} is {v}|{p} is now {v}|correction: {p} is {v}|{p} has changed to {v}|sorry, I was wrong, {p} is {v}|
I changed {p} to {v}|no wait, {p} is {v}|update: {p} is {v}|{p} is {v} now|please change {p} to {v}|I made a mistake, {p} is {v}|
{p} is not {o}, it is {v}|{p} used to be {o} but now it is {v}|it turns out {p} is {v}|from today {p} is {v}|scratch that, {p} is {v}|
please update {p}: it is {v}|not {o}, {p} is {v}|I misspoke earlier, {p} is really {v}|{p} changed from {o} to {v}|
replace {p} with {v}|forget what I said, {p} is {v}|the new value of {p} is {v}|{p} was updated to {v}|let me correct that: {p} is {v}|
{p} became {v}|instead of {o}, {p} is {v}|as of now, {p} is {v}|{p} is no longer {o}, it's {v}|set {p} to {v}""".replace("\n", "").split("|")

ASK = """what is {p}?|what's {p}?|what is {p}?|tell me {p}|do you remember {p}?|do you know {p}?|remind me of {p}|
can you tell me {p}?|what was {p}?|what was {p} again?|{p}?|I forgot {p}, what is it?|could you remind me what {p} is?|
what did I say {p} was?|please tell me {p}|can you recall {p}?|I need {p}|give me {p}|what do you have as {p}?|do you still know {p}?|
and {p}?|so what is {p}?|quick question, what is {p}?|which one is {p}?|what {p} did I tell you?|look up {p}|
I can't remember {p}. What is it?|hey, what's {p}?|may I ask what {p} is?|would you tell me what {p} is?|now tell me {p}|
what exactly is {p}?|say {p}|have I told you {p}?|let me know {p}|what is the current value of {p}?|just to check, what is {p}?|
can you look up {p} for me?|please repeat {p}|any idea what {p} is?""".replace("\n", "").split("|")

# Ways to put a question that is already one: its core is always trained on, a fifth of these never.
FRAMES = """{q}|{q}|{q}|{q}|remind me, {q}|so {q}|can you tell me, {q}|{q}|tell me, {q}|do you still know {q}|{q}|
I forgot, {q}|hey, {q}|{q}|quick question, {q}|{q} I forgot.|and {q}|please tell me, {q}|one question, {q}|just to check, {q}|
{q} Do you remember?|now, {q}|I can't remember, {q}|{q} Please tell me.|{q} I can't recall.|okay, {q}|by the way, {q}|let me ask, {q}|
{q} Remind me.|could you tell me, {q}""".replace("\n", "").split("|")

DROP = """forget {p}|please forget {p}|delete {p}|you can forget {p}|erase {p} please|remove {p} from your memory|
I want you to forget {p}|please delete {p}|drop {p}|don't keep {p} any longer""".replace("\n", "").split("|")

PLAIN_WORDINGS = set(TELL) | set(ASK)


def fuzz(wording, r, held):
    """In training, often a wording with some words dropped or replaced: people find other ways to say it."""
    if held or wording not in PLAIN_WORDINGS or r.random() > .35:
        return wording
    out = []
    for w in wording.split(" "):
        if "{" in w or w in ("is", "=") or r.random() < .6:
            out.append(w)
        elif r.random() < .6:
            out.append(W.word(r) + (w[-1] if w[-1] in ",:?" else ""))
    return " ".join(out) if "{p}" in wording else wording


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

# Verbs: (kind, tell self, tell other, ask self, ask other, answer self, answer other, unknown self, unknown other)
VERBS = {
    "live": ("city", ["I live in {v}", "I live in {v}", "my home is in {v}", "I am living in {v}", "I reside in {v}", "I moved to {v}", "I live in {v} these days", "home for me is {v}", "I'm based in {v}", "I settled in {v}"],
             ["{s} lives in {v}", "{s} lives in {v}", "{s} is living in {v}", "{s}'s home is in {v}", "{s} resides in {v}", "{s} moved to {v}", "{s} is based in {v}", "{s} lives in {v} these days"],
             ["where do I live?", "where do I live?", "in which city do I live?", "do you know where I live?", "where is my home?", "which city do I live in?", "where did I say I live?", "tell me where I live", "do you remember where I live?", "what city am I living in?"],
             ["where does {s} live?", "where does {s} live?", "in which city does {s} live?", "do you know where {s} lives?", "where is {s}'s home?", "which city does {s} live in?", "tell me where {s} lives", "where did I say {s} lives?"],
             "You live in {v}.", "{S} lives in {v}.", "You have not told me where you live.", "You have not told me where {a} lives."),
    "work": ("job", ["I work as a {v}", "I am a {v}", "I work as a {v}", "I'm a {v} by profession", "I earn my living as a {v}", "my profession is {v}", "I have a job as a {v}"],
             ["{s} works as a {v}", "{s} is a {v}", "{s} works as a {v}", "{s} is a {v} by profession", "{s} has a job as a {v}", "{s} earns a living as a {v}"],
             ["what do I do for a living?", "what is my profession?", "what do I do for work?", "what do I work as?", "what is my line of work?", "do you know what I do for a living?", "what's my profession?"],
             ["what does {s} do for a living?", "what is {s}'s profession?", "what does {s} do for work?", "what does {s} work as?", "what is {s}'s line of work?", "do you know what {s} does for a living?"],
             "You work as a {v}.", "{S} works as a {v}.", "You have not told me what you do for a living.", "You have not told me what {a} does for a living."),
    "allergy": ("avoid", ["I am allergic to {v}", "I'm allergic to {v}", "I have an allergy to {v}", "I can't have {v}, I'm allergic", "{v} gives me an allergic reaction", "careful, I am allergic to {v}", "I am allergic to {v}, so watch out"],
                ["{s} is allergic to {v}", "{s} is allergic to {v}", "{s} has an allergy to {v}", "{s} can't have {v}, it is an allergy", "{v} gives {s} an allergic reaction", "careful, {s} is allergic to {v}"],
                ["what am I allergic to?", "what am I allergic to?", "do I have an allergy?", "which allergy do I have?", "what gives me an allergic reaction?", "what is my allergy?", "do you know what I'm allergic to?"],
                ["what is {s} allergic to?", "what is {s} allergic to?", "does {s} have an allergy?", "which allergy does {s} have?", "what gives {s} an allergic reaction?", "do you know what {s} is allergic to?"],
                "You are allergic to {v}.", "{S} is allergic to {v}.", "You have not told me what you are allergic to.", "You have not told me what {a} is allergic to."),
    "play": ("instrument", ["I play the {v}", "I play the {v}", "I'm learning the {v}", "the {v} is my instrument", "I have played the {v} for years", "I like playing the {v}"],
             ["{s} plays the {v}", "{s} plays the {v}", "{s} is learning the {v}", "the {v} is {s}'s instrument", "{s} has played the {v} for years"],
             ["which instrument do I play?", "what instrument do I play?", "what do I play?", "do you know which instrument I play?", "what's the instrument I play?", "which instrument did I say I play?"],
             ["which instrument does {s} play?", "what instrument does {s} play?", "what does {s} play?", "do you know which instrument {s} plays?", "what's the instrument {s} plays?"],
             "You play the {v}.", "{S} plays the {v}.", "You have not told me which instrument you play.", "You have not told me which instrument {a} plays."),
    "drive": ("car", ["I drive a {v}", "I drive a {v}", "I own a {v}", "my car is a {v}", "I get around in a {v}", "I bought a {v}"],
              ["{s} drives a {v}", "{s} drives a {v}", "{s} owns a {v}", "{s}'s car is a {v}", "{s} gets around in a {v}", "{s} bought a {v}"],
              ["what do I drive?", "what car do I drive?", "which car do I have?", "what kind of car do I drive?", "which make of car is mine?", "do you know what I drive?"],
              ["what does {s} drive?", "what car does {s} drive?", "which car does {s} have?", "what kind of car does {s} drive?", "which make of car does {s} own?"],
              "You drive a {v}.", "{S} drives a {v}.", "You have not told me what you drive.", "You have not told me what {a} drives."),
    "speak": ("language", ["I speak {v}", "I speak {v}", "I am learning {v}", "{v} is a language I speak", "I can talk in {v}", "I speak fluent {v}"],
              ["{s} speaks {v}", "{s} speaks {v}", "{s} is learning {v}", "{v} is a language {s} speaks", "{s} can talk in {v}", "{s} speaks fluent {v}"],
              ["which language do I speak?", "what language do I speak?", "what do I speak?", "do you know which language I speak?", "in what language can I talk?"],
              ["which language does {s} speak?", "what language does {s} speak?", "what does {s} speak?", "do you know which language {s} speaks?", "in what language can {s} talk?"],
              "You speak {v}.", "{S} speaks {v}.", "You have not told me which language you speak.", "You have not told me which language {a} speaks."),
    "born": ("city", ["I was born in {v}", "I was born in {v}", "I come from {v}", "I grew up in {v}", "I am originally from {v}", "I'm from {v}"],
             ["{s} was born in {v}", "{s} was born in {v}", "{s} comes from {v}", "{s} grew up in {v}", "{s} is originally from {v}", "{s} is from {v}"],
             ["where was I born?", "where do I come from?", "where am I from?", "where did I grow up?", "what is my place of origin?", "which city am I from?"],
             ["where was {s} born?", "where does {s} come from?", "where is {s} from?", "where did {s} grow up?", "what is {s}'s place of origin?"],
             "You are from {v}.", "{S} is from {v}.", "You have not told me where you are from.", "You have not told me where {a} is from."),
    "like": ("food", ["I love {v}", "I really like {v}", "what I like to eat most is {v}", "I could eat {v} every day", "nothing tastes better to me than {v}", "I like eating {v}"],
             ["{s} loves {v}", "{s} really likes {v}", "what {s} likes to eat most is {v}", "{s} could eat {v} every day", "nothing tastes better to {s} than {v}"],
             ["what do I like to eat?", "which food do I love?", "what do I love to eat?", "what food do I like?", "what could I eat every day?"],
             ["what does {s} like to eat?", "which food does {s} love?", "what does {s} love to eat?", "what food does {s} like?", "what could {s} eat every day?"],
             "You like {v}.", "{S} likes {v}.", "You have not told me what you like to eat.", "You have not told me what {a} likes to eat."),
    "do": ("hobby", ["I enjoy {v}", "in my free time I do {v}", "my pastime is {v}", "I spend weekends on {v}", "on weekends you find me at {v}", "I'm into {v}"],
           ["{s} enjoys {v}", "in the free time {s} does {v}", "{s}'s pastime is {v}", "{s} spends weekends on {v}", "{s} is fond of {v}", "{s} is into {v}"],
           ["what do I do in my free time?", "what do I enjoy?", "what is my pastime?", "how do I spend my weekends?", "what am I into?"],
           ["what does {s} do in the free time?", "what does {s} enjoy?", "what is {s}'s pastime?", "how does {s} spend weekends?", "what is {s} into?"],
           "You enjoy {v}.", "{S} enjoys {v}.", "You have not told me what you enjoy.", "You have not told me what {a} enjoys."),
}
CALLED_TELL = ["{p} is called {v}", "{p} is called {v}", "{p}'s name is {v}", "I have {d} called {v}", "{p} goes by the name of {v}", "{p} is named {v}", "the name of {p} is {v}", "{v} is the name of {p}", "I have {d} named {v}", "we named {p} {v}", "{p} answers to {v}"]
CALLED_ASK = ["what is {p} called?", "what's {p}'s name?", "what is {p}'s name?", "what is the name of {p}?", "how is {p} called?", "what is {p} named?", "do you remember {p}'s name?", "what do I call {p}?", "tell me the name of {p}", "what name does {p} have?", "do you know what {p} is called?"]
PLACE_TELL = ["{p} is in {v}", "I put {p} in {v}", "I left {p} in {v}", "you can find {p} in {v}", "I stored {p} in {v}", "{p} can be found in {v}", "I keep {p} in {v}", "I have hidden {p} in {v}", "remember that {p} is in {v}", "look for {p} in {v}", "{p} is lying in {v}", "just so you know, {p} is in {v}", "by the way, {p} is in {v}", "I placed {p} in {v}", "the place of {p} is {v}", "{p} is kept in {v}", "note that {p} is in {v}", "{p} went into {v}", "we keep {p} in {v}"]
PLACE_ASK = ["where is {p}?", "where did I put {p}?", "where did I leave {p}?", "where can I find {p}?", "where do I look for {p}?", "do you know where {p} is?", "I can't find {p}, where is it?", "tell me where {p} is", "in what place is {p}?", "where do I keep {p}?", "where did I store {p}?", "what place is {p} in?", "where should I look for {p}?", "have you seen {p}?", "where did I say {p} is?", "I am looking for {p}, where is it?", "do you remember where {p} is?"]
WHEN_TELL = ["{p} is on {v}", "I have {p} on {v}", "{p} takes place on {v}", "{p} is planned for {v}", "put {p} down for {v}", "{p} was set for {v}", "they scheduled {p} for {v}", "remember {p} on {v}", "{p} comes up on {v}", "save the date: {p} is on {v}", "{p} will be on {v}", "note that {p} is on {v}", "by the way, {p} is on {v}", "my calendar says {p} is on {v}", "{p} happens on {v}", "{v} is the day of {p}", "don't let me miss {p} on {v}"]
WHEN_ASK = ["when is {p}?", "on which day is {p}?", "when does {p} take place?", "what date is {p}?", "for when is {p} planned?", "do you know when {p} is?", "when was {p} again?", "tell me when {p} is", "what is the date of {p}?", "when do I have {p}?", "what day is {p}?", "which day is {p} on?", "when will {p} be?", "when does {p} happen?", "what time and day is {p}?", "on what date is {p}?", "when should I be at {p}?"]
COUNT_TELL = ["I have {v} {n}", "I own {v} {n}", "there are {v} {n} in my home", "I've got {v} {n}", "the number of {n} I have is {v}", "I have exactly {v} {n}", "we have {v} {n}", "by the way, I have {v} {n}", "there are {v} {n} at my place", "I counted {v} {n}", "{v} {n} are mine", "note that I have {v} {n}", "remember that I own {v} {n}", "my home has {v} {n}", "I keep {v} {n}"]
COUNT_ASK = ["how many {n} do I have?", "how many {n} do I own?", "how many {n} are there in my home?", "do you know how many {n} I have?", "what is the number of {n} I have?", "tell me how many {n} I have", "count of my {n}?", "what is the count of my {n}?", "how many {n} did I say I have?", "how many {n} are mine?", "do you remember how many {n} I have?", "I have how many {n}?", "what number of {n} do I own?"]
COUNT_FIX = ["I now have {v} {n}", "actually I have {v} {n}", "correction: I have {v} {n}", "it is {v} {n} now", "by now I own {v} {n}", "I was wrong, I have {v} {n}"]

THING_NOUNS = [("code", "code"), ("code", "code"), ("code", "code"), ("password", "password"), ("pin", "code"), ("combination", "code"), ("key number", "code"), ("serial number", "code"), ("price", "money"),
               ("color", "color"), ("owner", "full_name"), ("age", "small"), ("weight", "weight"), ("size", "size"), ("model", "code"), ("manufacturer", "word"), ("nickname", "pet"),
               ("warranty date", "date"), ("service date", "date"), ("location", "place"), ("label", "phrase"), ("tag", "code"), ("user", "first"), ("status", "status")]
PROJECT_NOUNS = [("deadline", "when"), ("budget", "money"), ("owner", "full_name"), ("manager", "full_name"), ("lead", "first"), ("client", "title"), ("code name", "phrase"), ("status", "status"),
                 ("start date", "date"), ("launch date", "date"), ("location", "city"), ("contact", "full_name"), ("version", "version"), ("password", "password"), ("phone number", "phone"),
                 ("team size", "small"), ("repository", "password"), ("server", "ip"), ("ip address", "ip"), ("main color", "color"), ("ticket", "code"), ("sponsor", "title"), ("city", "city"),
                 ("number of users", "number"), ("meeting day", "day"), ("meeting time", "clock"), ("room", "code"), ("priority", "number"), ("order number", "code"), ("total cost", "money")]


SAME = {"job": "work", "hobby": "do", "city": "live", "home town": "born", "favorite food": "like", "age": "birthday",
        "date of birth": "birthday", "email address": "email", "pin code": "pin", "seat": "seat number", "ticket id": "ticket number"}


class Slot:
    """One thing that can be told. `key` is equal for slots whose facts would contradict."""

    def __init__(self, key, kind, tell, fix, ask, answer, unknown, drop, core=True, **names):
        self.key, self.kind, self.names, self.core = key, kind, names, core
        self._tell, self._fix, self._ask = tell, fix, ask
        self._answer, self._unknown, self._drop = answer, unknown, drop

    def tell(self, v, r, held):
        return fuzz(r.choice(part(self._tell, held)), r, held).format(v=v, o="", **self.names)

    def fix(self, v, old, r, held):
        return fuzz(r.choice(part(self._fix, held)), r, held).format(v=v, o=old, **self.names)

    def ask(self, r, held):
        if self.core:
            return r.choice(part(FRAMES, held)).format(q=r.choice(self._ask).format(**self.names))
        return fuzz(r.choice(part(self._ask, held)), r, held).format(**self.names)

    def drop(self, r, held):
        return r.choice(part(DROP, held)).format(p=self._drop)

    def answer(self, v):
        return self._answer.format(v=v, **self.names)

    def unknown(self):
        return self._unknown.format(**self.names)


def noun_slot(mine, yours, noun_key, kind, plain=True):
    """mine: the slot in the user's words; yours: in the assistant's."""
    return Slot(noun_key, kind, TELL, FIX, ASK, cap(yours) + " is {v}.", "You have not told me " + yours + ".", mine, core=False, p=mine)


def person_noun(r, who, noun, kind):
    key = (who[0], SAME.get(noun, noun))
    mine, yours = (f"my {noun}", f"your {noun}") if who[0] == "me" else (f"{who[0]}'s {noun}", f"{who[1]}'s {noun}")
    slot = noun_slot(mine, yours, key, kind)
    if who[0] == "me" and noun == "name":
        slot._tell = slot._tell[:8] + ["I am {v}", "my name is {v}", "I'm {v}", "hi, I'm {v}", "call me {v}", "my name is {v}", "people call me {v}", "hello, my name is {v}", "you can call me {v}", "they call me {v}"]
        slot._ask = slot._ask[:12] + ["who am I?", "what am I called?", "what is my name?", "do you know who I am?", "what should you call me?", "what do people call me?", "what's my name?", "how am I called?"]
    elif who[0] != "me" and noun == "name":
        slot._tell = slot._tell[:6] + CALLED_TELL[:3] + CALLED_TELL[4:8]
        slot._ask = slot._ask[:6] + CALLED_ASK
        slot.names.update(d="one")
        slot.names["p"] = mine
        slot._tell = [t.replace("{p}", who[0]) if t in CALLED_TELL else t for t in slot._tell]
        slot._ask = [t.replace("{p}", who[0]) if t in CALLED_ASK else t for t in slot._ask]
    return slot


def verb_slot(r, who, verb):
    kind, ts, to, qs, qo, as_, ao, us, uo = VERBS[verb]
    if who[0] == "me":
        ctx = ["remember that {t}", "by the way, {t}", "just so you know, {t}", "note that {t}", "for the record, {t}", "also, {t}"]
        t, q, a, u, what = ts, qs, as_, us, qs[0]
    else:
        t, q, a, u = to, qo, ao, uo
    tell = t * 2 + ["by the way, " + x for x in t] + ["remember that " + x for x in t] + ["also, " + x for x in t]
    fix = ["actually, " + x for x in t] + ["correction: " + x for x in t] + ["now " + x for x in t] + ["sorry, I was wrong, " + x for x in t] + ["that changed, " + x for x in t]
    ask = q
    drop = u.rstrip(".").replace("You have not told me ", "").replace("you are", "I am").replace("you ", "I ").replace("{a}", "{s}").format(s=who[0])
    return Slot((who[0], verb), kind, tell, fix, ask, a, u, drop, s=who[0], S=cap(who[1]), a=who[1])


def called_slot(r, who, animal):
    mine, yours = (f"my {animal}", f"your {animal}") if who[0] == "me" else (f"{who[0]}'s {animal}", f"{who[1]}'s {animal}")
    an = ("an " if animal[0] in "aeiou" else "a ") + animal
    tell = CALLED_TELL if who[0] == "me" else [t for t in CALLED_TELL if "{d}" not in t]
    fix = ["actually, " + t for t in tell if "{d}" not in t] + ["correction: {p} is called {v}", "{p} is called {v} now", "sorry, {p} is called {v}", "we renamed {p} to {v}", "{p} is not called {o} but {v}"]
    kind = "pet" if animal in W.ANIMAL else "first"
    return Slot((who[0], animal, "called"), kind, tell, fix, CALLED_ASK, cap(yours) + "'s name is {v}.", "You have not told me " + yours + "'s name.", mine + "'s name", p=mine, d=an)


def place_slot(r, item):
    p, y = f"my {item}", f"your {item}"
    if r.random() < .3:
        p = y = f"the {item}"
    be = "are" if item.endswith("s") and item not in ("bus",) else "is"
    tell = [t.replace("is in", be + " in") for t in PLACE_TELL]
    ask = [t.replace("where is {p}", f"where {be} {{p}}").replace("{p} is", "{p} " + be).replace("where is it", "where are they" if be == "are" else "where is it") for t in PLACE_ASK]
    fix = ["I moved {p} to {v}", f"actually, {{p}} {be} in {{v}}", f"{{p}} {be} now in {{v}}", f"correction: {{p}} {be} in {{v}}", "I have put {p} into {v} instead", f"{{p}} {be} in {{v}} now", f"no, {{p}} {be} in {{v}}"]
    return Slot((item, "place"), "place", tell, fix, ask, cap(y) + f" {be} in {{v}}.", f"You have not told me where {y} {be}.", f"where {p} {be}", p=p)


def when_slot(r, event):
    p, y = f"my {event}", f"your {event}"
    if r.random() < .35:
        p = y = f"the {event}"
    fix = ["{p} was moved to {v}", "actually, {p} is on {v}", "correction: {p} is on {v}", "{p} is now on {v}", "they postponed {p} to {v}", "{p} has been rescheduled to {v}", "{p} is not on {o}, it is on {v}"]
    return Slot((event, "when"), "when", WHEN_TELL, fix, WHEN_ASK, cap(y) + " is on {v}.", f"You have not told me when {y} is.", f"when {p} is", p=p)


def count_slot(r, n):
    return Slot((n, "count"), "small", COUNT_TELL, COUNT_FIX, COUNT_ASK, "You have {v} {n}.", "You have not told me how many {n} you have.", f"how many {n} I have", n=n)


def thing_slot(r, thing, noun, kind):
    """thing: "gate", "red car", "Project Falcon", "order B-12"; noun: "code", "deadline" ..."""
    proper = thing[0].isupper() or any(ch.isdigit() for ch in thing)
    t = thing if proper else "the " + thing
    prep = "for" if noun in ("code", "password", "pin", "combination", "key number") else "of"
    canon = f"the {noun} {prep} {t}"
    other = "of" if prep == "for" else "for"
    p = r.choice((canon, canon, canon, f"the {noun} {other} {t}", f"{t}'s {noun}", f"the {thing} {noun}" if not proper else canon))
    return noun_slot(p, canon, (thing, noun), kind)


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
            return called_slot(r, ("me", "you") if r.random() < .6 else who(r, held, cast), W.word(r))
        if x < .6:
            return place_slot(r, W.word(r) if r.random() < .6 else f"{W.word(r)} {r.choice(W.ITEM)}")
        if x < .68:
            return when_slot(r, open_noun(r))
        if x < .76:
            return count_slot(r, W.word(r) + ("" if r.random() < .3 else "s"))
        return thing_slot(r, r.choice((W.word(r), f"{W.word(r)} {W.word(r)}", thing_name(r), project_name(r))), open_noun(r), r.choice(list(W.VALUES)))
    if x < .36:
        w = who(r, held, cast)
        noun, kind = r.choice(NOUNS)
        if noun == "name" and w[0] not in ("me",) and not w[0].startswith("my "):
            noun, kind = "last name", "word"
        if r.random() < .12:
            noun, kind = f"{r.choice(W.ADJ)} {r.choice(W.NOUN)}", r.choice(list(W.VALUES))
        return person_noun(r, w, noun, kind)
    if x < .56:
        return verb_slot(r, who(r, held, cast), r.choice(list(VERBS)))
    if x < .64:
        w = ("me", "you") if r.random() < .7 else who(r, held, cast)
        return called_slot(r, w, r.choice(W.ANIMAL) if r.random() < .75 else r.choice(W.RELATION))
    if x < .70:
        return place_slot(r, r.choice(W.ITEM))
    if x < .76:
        return when_slot(r, r.choice(W.EVENT))
    if x < .80:
        return count_slot(r, r.choice(W.COUNTED))
    if x < .92:
        return thing_slot(r, thing_name(r), *r.choice(THING_NOUNS))
    return thing_slot(r, project_name(r), *r.choice(PROJECT_NOUNS))
