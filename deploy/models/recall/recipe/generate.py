"""Memory conversations, made on the fly from a seed: facts told, corrected, dropped and asked back
over real dialogue and prose.

    python generate.py --text DIR --work DIR          tokenises the filler once; more.txt.xz beside corpus.txt.xz is
                                                      read in training alone
    python generate.py --work DIR --show 3 [--held]   prints conversations
"""
import argparse
import json
import lzma
import os
import random
import re
from collections import Counter

import numpy as np
from tokenizers import Tokenizer

import crowd
import noise
import slots as S
import wordings as L
import words as W

BOS, USER, ASSISTANT, END = 0, 1, 2, 3
# Loss weights in tenths: what is asked for, plain text, other talk inside a conversation that remembers,
# and text that only the generator could predict.
ANSWER, TEXT, FILL, TOLD = 50, 10, 4, 2

SMALL_TALK = """Hi|Hello! How can I help you?
Hello|Hello! How can I help you?
Hello!|Hello! How can I help you?
Hey there|Hello! How can I help you?
Good morning|Good morning! How can I help you?
Good evening|Good evening! How can I help you?
How are you?|I am fine, thank you.
How is it going?|I am fine, thank you.
Thanks|You are welcome.
Thank you|You are welcome.
Thank you very much!|You are welcome.
Thanks a lot|You are welcome.
Great|Glad to hear it.
That's good|Glad to hear it.
Okay|Okay.
ok|Okay.
Who are you?|I am a small assistant that remembers what you tell me.
What are you?|I am a small assistant that remembers what you tell me.
What can you do?|I remember what you tell me, and you can ask me about it later.
Can you help me?|Of course. What do you need?
I need some help|Of course. What do you need?
Bye|Goodbye!
Goodbye|Goodbye!
See you later|Goodbye!
I am tired|I am sorry to hear that.
I had a bad day|I am sorry to hear that.
I had a great day|Glad to hear it.
It is raining again|I hope it clears up soon.
The weather is lovely today|Enjoy it!
Let me think|Take your time.
One moment please|Take your time.
Are you there?|Yes, I am here.
Are you still there?|Yes, I am here.
Can you remember things?|Yes. Tell me something and ask me later.
Do you have a good memory?|Yes. Tell me something and ask me later.
I will tell you some things about me|Go ahead.
Let me tell you something|Go ahead.
I have some questions|Go ahead.
Can I ask you something?|Go ahead."""
SMALL_TALK = [line.split("|") for line in SMALL_TALK.split("\n")]
ACKS = ["Got it.", "Got it.", "Noted.", "Okay, I will remember that.", "Thanks, I saved that.", "Okay, noted.", "I will remember that."]
FIX_ACKS = ["Okay, I updated that.", "Thanks, I corrected that.", "Got it, I changed that."]
READ_ASK = ["Read this: ", "Please read this note: ", "Here is a document: ", "Keep this text: ", "Have a look at this: ", "Note: ", "Document: ",
            "Read the following. ", "Here is some text I was sent: ", "I am pasting a page: "]
READ_ACKS = ["I have read it.", "Okay, I have read that.", "Thanks, I read it."]
TOOL_ASK = ["Check {t}", "Look up {t}", "Run the lookup for {t}", "What does the system say about {t}?", "Query {t}"]
BOOK = ["Please book it for me", "Make the reservation", "Go ahead and order it", "Please reserve one for me", "Can you book that?"]


def prepare(text_dir, work):
    """Tokenises dialogues and prose; writes flat arrays with offsets, and a bank of plain words."""
    tok = Tokenizer.from_file(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tokenizer.json"))
    os.makedirs(work, exist_ok=True)

    def save(name, docs):
        lengths = np.array([len(d) for d in docs])
        np.save(f"{work}/{name}.npy", np.concatenate([np.asarray(d, np.uint16) for d in docs]))
        np.save(f"{work}/{name}_at.npy", np.concatenate([[0], lengths.cumsum()]))

    corpus = lzma.open(f"{text_dir}/corpus.txt.xz").read().decode("utf-8", "replace")
    docs = [d for d in corpus.split("\0") if len(d) > 400]
    more = f"{text_dir}/more.txt.xz"
    extra = lzma.open(more).read().decode("utf-8", "replace").split("\0") if os.path.exists(more) else []
    for held in (False, True):
        mine = [d for k, d in enumerate(docs) if (k % 20 == 7) == held] + ([] if held else extra)
        save("prose_held" if held else "prose", [e.ids for e in tok.encode_batch(mine)])
        np.save(f"{work}/prose{'_held' if held else ''}_bytes.npy", [len(d.encode()) for d in mine])
    count = Counter(re.findall(r"(?<=[a-z] )[a-z]{4,9}(?= [a-z])", corpus[:20_000_000]))
    json.dump([w for w, n in count.most_common(16000)[200:] if n > 12], open(f"{work}/bank.json", "w"))
    count = Counter(re.findall(r"(?<=[a-z] )[a-z]{3,13}(?= [a-z])", corpus))
    json.dump([w for w, n in count.most_common(40000)[60:] if n > 4], open(f"{work}/bank_wide.json", "w"))
    dialogs = [json.loads(x) for x in lzma.open(f"{text_dir}/dialogs.jsonl.xz")]
    json.dump(noise.sentences(corpus, dialogs), open(f"{work}/sentences.json", "w"))
    json.dump(noise.asides(dialogs), open(f"{work}/asides.json", "w"))
    for held in (False, True):
        rows = []
        texts = [[t for _, t in d] for k, d in enumerate(dialogs) if (k % 20 == 7) == held]
        roles = [[a for a, _ in d] for k, d in enumerate(dialogs) if (k % 20 == 7) == held]
        flat = iter(tok.encode_batch([t for d in texts for t in d]))
        for d in roles:
            row = []
            for a in d:
                row += [USER if a == "u" else ASSISTANT] + next(flat).ids + [END]
            rows.append(row)
        save("dialogs_held" if held else "dialogs", rows)
        if held:
            json.dump([[[a, t] for a, t in zip(r, d)] for r, d in zip(roles, texts)], open(f"{work}/dialogs_held.json", "w"))


class Filler:
    def __init__(self, work, held):
        h = "_held" if held else ""
        load = lambda n: np.load(f"{work}/{n}.npy", mmap_mode="r")
        self.prose, self.prose_at = load("prose" + h), load("prose" + h + "_at")
        self.dialogs, self.dialogs_at = load("dialogs" + h), load("dialogs" + h + "_at")
        self.bank = [w for w in json.load(open(f"{work}/{'bank' if held else 'bank_wide'}.json")) if W.side(w) == held]
        self.sentences = [] if held else json.load(open(f"{work}/sentences.json"))
        self.asides = [] if held else json.load(open(f"{work}/asides.json"))

    def dialog(self, r, most):
        """Whole turns of one dialogue, from its start or from any user turn, about `most` tokens."""
        k = r.randrange(len(self.dialogs_at) - 1)
        row = self.dialogs[self.dialogs_at[k]:self.dialogs_at[k + 1]]
        starts = np.flatnonzero(row == USER)
        ends = np.flatnonzero(row == END) + 1
        if not len(starts):
            return []
        a = starts[0] if r.random() < .6 else starts[r.randrange(len(starts))]
        answers = [e for s, e in zip(np.flatnonzero(row <= 2), ends) if row[s] == ASSISTANT and a < e]
        fit = [e for e in answers if e - a <= most] or answers[:1]
        return row[a:fit[-1]].tolist() if fit else []

    def text(self, r, n):
        k = r.randrange(len(self.prose) - n - 1)
        return self.prose[k:k + n].tolist()


class Conversation:
    """A row of tokens with loss weights, and what it has told so far."""

    def __init__(self, r, tok, filler, held, used=None):
        self.r, self.tok, self.filler, self.held = r, tok, filler, held
        r.bank = filler.bank
        self.ids, self.weights = [BOS], [0]
        self.facts, self.ever, self.fixed = {}, used if used is not None else {}, set()
        self.lists, self.cast, self.dropped, self.asked = {}, [], [], {}
        self.crowd = None  # where most new facts come from, in training
        self.ask_fixed = r.choice((.42, .5, .6)) if not held else .42
        self.former = {}  # key -> the values that were corrected, the oldest first
        self.topic = (None, 0)  # key of what was told or corrected last, and where that turn ended

    # --- writing turns ---
    def put(self, ids, weight):
        self.ids += ids
        self.weights += [weight] * len(ids)

    def text(self, s):
        return self.tok.encode(s, add_special_tokens=False).ids

    def user(self, *pieces, weight=TOLD):
        self.put([USER], TEXT)
        for p in pieces:
            self.put(self.text(p) if isinstance(p, str) else p, weight if isinstance(p, str) else FILL)
        self.put([END, ASSISTANT], TOLD)

    def reply(self, s, weight=TEXT):
        self.put(self.text(s) + [END], weight)

    def style(self, s, question=False, keep=""):
        """The small ways in which people type; the words of `keep` stay as they are."""
        r = self.r
        s = S.cap(s) if r.random() < .75 else s
        if s[-1] not in "?.!" and r.random() < .75:
            s += "."
        elif s[-1] == "?" and r.random() < .1:
            s = s[:-1]
        if self.held:
            return "Hey, " + s if r.random() < .06 else s
        if r.random() < .2:
            s = noise.typed(r, s, keep)
        x = r.random()
        if x < .06:  # something else said in the same breath
            extra = W.some_words(r, r.randint(1, 6))
            s = r.choice((f"{extra}, {s}", f"{S.cap(extra)}. {s}", f"{s if s[-1] in '?.!' else s + '.'} {S.cap(extra)}."))
        elif x < .26:
            extra = r.choice(self.filler.sentences)
            if question and r.random() < .5:  # about oneself, and yet neither told nor asked
                extra = r.choice(self.filler.asides)
                if r.random() < .4:
                    return f"{extra.rstrip('.!')}, {s[:1].lower() + s[1:] if s[:2] != 'I ' else s}"
            s = f"{extra} {s}" if r.random() < .4 else f"{s if s[-1] in '?.!' else s + '.'} {extra}"
        elif x < .3:
            s = r.choice(("Hey, ", "Hey ", "hi ", "So ", "Ok ", "Hmm. ", "And ")) + s
        return s

    # --- telling ---
    def new_slot(self):
        if self.crowd and self.r.random() < .85:
            s = self.crowd.slot(self.ever)
            if s:
                return s
        for _ in range(50):
            s = S.random_slot(self.r, self.held, self.cast)
            if s.key not in self.ever:
                return s
        raise RuntimeError("no slot left")

    def value(self, slot, old=None):
        for _ in range(20):
            v = W.value(slot.kind, self.r, self.held)
            if v != old:
                break
        return v

    def learn(self, slot, v):
        self.facts[slot.key] = (slot, v)
        self.ever[slot.key] = True

    def tell(self, n=1):
        """n new facts in one user turn."""
        r, said, last = self.r, [], None
        for _ in range(n):
            if self.dropped and not self.held and r.random() < .2 and self.dropped[-1].key not in self.facts:
                slot = self.dropped.pop()  # told anew
            else:
                slot = self.new_slot()
            v = self.value(slot)
            said.append(slot.tell(v, r, self.held))
            self.learn(slot, v)
            last = (slot, v)
        if n > 1 and r.random() < .5:
            joined = ", ".join(said[:-1]) + " and " + said[-1]
            self.user(self.style(joined, keep=joined))
        else:
            said = [self.style(s, keep=last[0].answer(last[1]) if n == 1 else s) for s in said]
            self.user(" ".join(s if s[-1] in "?.!" or k == n - 1 else s + "." for k, s in enumerate(said)))
        if r.random() < .3:
            self.reply("Got it. " + last[0].answer(last[1]), 20)
        else:
            self.reply(r.choice(ACKS))
        if n == 1:
            self.topic = (last[0].key, len(self.ids))
        return n

    def fix(self):
        if not self.facts:
            return
        slot, old = self.r.choice(list(self.facts.values()))
        if self.held:
            v = self.value(slot, old)
            said = slot.fix(v, old, self.r, True)
        else:
            slot, old, v, said = self.varied_fix(slot, old)
        self.user(self.style(said, keep=f"{slot.answer(v)} {old}"))
        self.reply(self.r.choice(FIX_ACKS) if self.r.random() < .7 else "Okay. " + slot.answer(v), 20)
        self.former.setdefault(slot.key, []).append(old)
        self.learn(slot, v)
        self.fixed.add(slot.key)
        self.topic = (slot.key, len(self.ids))

    def varied_fix(self, slot, old):
        """In training: corrected again too, back to a former value, of the topic without naming it, or simply told anew.

        Returns the slot, its old value, the new value and what is said.
        """
        r = self.r
        if self.fixed and r.random() < .25:
            slot, old = self.facts[r.choice(sorted(self.fixed, key=str))]
        key, end = self.topic
        elided = end == len(self.ids) and key in self.facts and r.random() < .5
        if elided:
            slot, old = self.facts[key]
        former = [v for v in self.former.get(slot.key, ()) if v != old]
        v = r.choice(former) if former and r.random() < .2 else self.value(slot, old)
        if elided:
            return slot, old, v, r.choice(L.FIX_ELIDED.train).format(v=v, o=old)
        return slot, old, v, slot.tell(v, r, False) if r.random() < .2 else slot.fix(v, old, r, False)

    def drop(self):
        if not self.facts:
            return
        slot, _ = self.r.choice(list(self.facts.values()))
        said = slot.drop(self.r, self.held)
        self.user(self.style(said, keep=said))
        self.reply("Okay, I have forgotten that.")
        del self.facts[slot.key]
        self.fixed.discard(slot.key)
        self.former.pop(slot.key, None)
        self.dropped.append(slot)

    def columns(self, n):
        picked = self.r.sample(S.PROJECT_NOUNS, n)
        return [p if self.held or self.r.random() < .7 else (S.open_noun(self.r), p[1]) for p in picked]

    def document(self, size):
        """A note with facts about one thing: prose around sentences, or lines of keys and values."""
        r = self.r
        thing = S.project_name(r) if r.random() < .7 else S.thing_name(r)
        found = []
        for noun, kind in self.columns(r.randint(1, 4)):
            slot = S.thing_slot(thing, noun, kind)
            if slot.key not in self.ever:
                found.append((slot, noun, self.value(slot)))
        if not found:
            return
        for slot, _, v in found:
            self.learn(slot, v)
        proper = thing[0].isupper() or any(c.isdigit() for c in thing)
        head = r.choice(READ_ASK)
        x = r.random()
        if x < .4:
            pieces = [head]
            for slot, _, v in found:
                pieces += [self.filler.text(r, r.randint(5, max(6, size // (len(found) + 1)))),
                           " " + S.cap(slot.tell(v, r, self.held)) + ". "]
            pieces.append(self.filler.text(r, r.randint(5, max(6, size // 2))))
            self.user(*pieces)
        else:
            name = thing if proper else "the " + thing
            if x < .6:
                body = S.cap(name) + "\n" + "\n".join(f"{noun}: {v}" for _, noun, v in found)
            elif x < .75:
                body = json.dumps({"name": thing, **{noun.replace(" ", "_") if r.random() < .5 else noun: v for _, noun, v in found}})
            elif x < .9:
                body = f"{S.cap(name)}: " + ", ".join(f"{noun} {v}" for _, noun, v in found) + "."
            else:
                body = "name | " + " | ".join(n for _, n, _ in found) + "\n" + thing + " | " + " | ".join(v for _, _, v in found)
            self.user(head if r.random() < .6 else "", body)
        self.reply(r.choice(READ_ACKS))

    def tool(self):
        """A look-up whose result arrives as tool output."""
        r = self.r
        thing = S.project_name(r)
        found = []
        for noun, kind in self.columns(r.randint(1, 3)):
            slot = S.thing_slot(thing, noun, kind)
            if slot.key not in self.ever:
                found.append((slot, noun, self.value(slot)))
        if not found:
            return
        for slot, _, v in found:
            self.learn(slot, v)
        if r.random() < .5:
            self.user(r.choice(TOOL_ASK).format(t=thing))
            self.reply("Let me check.")
        x = r.random()
        tag = r.choice(("[tool] ", "Tool output: ", "[result] ", "lookup> ", ""))
        if x < .5:
            body = json.dumps({r.choice(("name", "item", "id", "target")): thing, **{n.replace(" ", "_"): v for _, n, v in found}})
        elif x < .8:
            body = f"{thing}: " + "; ".join(f"{n.replace(' ', '_')}={v}" for _, n, v in found)
        else:
            body = f"{r.randint(10, 23)}:{r.randint(10, 59)} INFO {thing} " + ", ".join(f"{n}={v}" for _, n, v in found)
        self.user(tag + body)
        self.reply("Okay." if r.random() < .5 else "Okay. " + found[0][0].answer(found[0][2]), 20)

    def booked(self):
        """Something that the assistant said first."""
        noun, kind = self.r.choice((("booking reference", "code"), ("confirmation number", "code"), ("ticket number", "code"), ("order number", "code"), ("seat number", "code"), ("room number", "number")))
        slot = S.person_noun(self.r, ("me", "you"), noun, kind)
        v = self.value(slot)
        self.user(self.style(self.r.choice(BOOK)))
        self.reply("Done. " + slot.answer(v), TOLD)
        self.learn(slot, v)

    def list_turn(self):
        r = self.r
        if not self.lists or r.random() < .3:
            name = r.choice(W.LIST_NAME) if self.held or r.random() < .7 else W.word(r) + " list"
            items = []
            for _ in range(r.randint(1, 4)):
                items.append(self.list_item(items))
            self.lists[name] = items
            listed = ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1]
            self.user(self.style(r.choice(("put {x} on my {n}", "my {n}: {x}", "start a {n} with {x}", "my {n} is {x}", "on my {n} there is {x}", "make a {n}: {x}")).format(x=listed, n=name)))
            self.reply("Okay, it is on your list." if r.random() < .7 else "Got it.")
            return
        name = r.choice(list(self.lists))
        items = self.lists[name]
        if items and r.random() < .35:
            x = r.choice(items)
            items.remove(x)
            self.user(self.style(r.choice(("remove {x} from my {n}", "take {x} off my {n}", "I no longer need {x} on my {n}", "cross {x} off my {n}", "delete {x} from the {n}")).format(x=x, n=name)))
            self.reply("Okay, I removed it.")
        elif len(items) < 6:
            x = self.list_item(items)
            items.append(x)
            self.user(self.style(r.choice(("add {x} to my {n}", "put {x} on my {n}", "also add {x} to my {n}", "{x} goes on my {n} too", "my {n} also needs {x}")).format(x=x, n=name)))
            self.reply("Okay, it is on your list." if r.random() < .7 else "Got it.")

    def list_item(self, items):
        for _ in range(40):
            x = self.r.choice(W.LIST_ITEM) if self.held or self.r.random() < .6 else W.word(self.r)
            if x not in items and W.side(x) == self.held:
                break
        return x

    def filled(self, n):
        """About n tokens of other talk."""
        r = self.r
        if r.random() < .7:
            row = self.filler.dialog(r, n)
            if row and len(row) <= 2 * n + 40:
                if not self.held and r.random() < .3:  # talk that cannot be known by heart, only read
                    for k in range(len(row)):
                        if row[k] > END and r.random() < .15:
                            row[k] = r.randrange(4, 4096)
                    self.put(row, 0)
                else:
                    self.put(row, FILL if r.random() < .08 else 0)  # or a few million tokens are learnt by heart
                return
        self.user(r.choice(READ_ASK), self.filler.text(r, max(8, n - 12)))
        self.reply(r.choice(READ_ACKS))

    def small_talk(self):
        q, a = self.r.choice(SMALL_TALK)
        self.user(q)
        self.reply(a)

    # --- asking: each gives (kind, question, answer) ---
    def question_known(self, key=None):
        if key is None:  # rather something that was not asked for lately
            keys = list(self.facts)
            key = min((self.r.choice(keys) for _ in range(3)), key=lambda k: self.asked.get(k, -1))
        self.asked[key] = len(self.ids)
        slot, v = self.facts[key]
        return ("corrected" if slot.key in self.fixed else "recall"), slot.ask(self.r, self.held), slot.answer(v)

    def question_unknown(self):
        if self.dropped and self.r.random() < .3:
            slot = self.r.choice(self.dropped)
            if slot.key not in self.facts:
                return "dropped", slot.ask(self.r, self.held), slot.unknown()
        if self.crowd and self.r.random() < .6:
            slot = self.crowd.slot(self.ever)
            if slot:
                return "unknown", slot.ask(self.r, self.held), slot.unknown()
        # Often the same thing of somebody else, or something else of the same one.
        for k in range(30):
            if k < 4 and self.facts and self.r.random() < (.4 if self.held else .5):
                told = self.r.choice(list(self.facts.values()))[0]
                slot = S.near(told, self.r, True, self.cast) if self.held else crowd.look_alike(self.r, told, self.cast)
            elif not self.held and self.r.random() < .6:  # what nearly everybody has is made up most easily
                slot = S.common_slot(self.r, self.cast)
            else:
                slot = S.random_slot(self.r, self.held, self.cast if self.r.random() < .6 else list(self.cast))
            if slot.key not in self.ever:
                return "unknown", slot.ask(self.r, self.held), slot.unknown()
        return self.question_known()

    def question_yes_no(self):
        r = self.r
        slot, v = r.choice(list(self.facts.values()))
        other = r.choice(self.former[slot.key]) if slot.key in self.former and not self.held and r.random() < .6 else self.value(slot, v)
        if other == v or r.random() < .5 and slot.kind != "place":
            return "check", f"is it true that {slot.claim(v, r)}?", "Yes. " + slot.answer(v)
        return "check", f"is it true that {slot.claim(other, r)}?", "No. " + slot.answer(v)

    def question_list(self):
        r = self.r
        name = r.choice(list(self.lists))
        items = self.lists[name]
        x = r.random()
        if x < .45:
            q = r.choice(("what is on my {n}?", "what's on my {n}?", "read me my {n}", "tell me my {n}", "list my {n}", "show my {n}"))
            a = f"Your {name}: " + ", ".join(items) + "." if items else f"Your {name} is empty."
        elif x < .65:
            q = r.choice(("how many things are on my {n}?", "how many items are on my {n}?", "how long is my {n}?", "count my {n}"))
            a = f"Your {name} has {len(items)} items." if len(items) != 1 else f"Your {name} has 1 item."
        elif x < .85 or not items:
            y = r.choice(items) if items and r.random() < .5 else self.list_item(items)
            q = r.choice(("is {y} on my {n}?", "do I have {y} on my {n}?", "did I put {y} on my {n}?")).replace("{y}", y)
            a = f"Yes, {y} is on your {name}." if y in items else f"No, {y} is not on your {name}."
        else:
            k = r.choice(("first", "last"))
            q = r.choice(("what is the {k} thing on my {n}?", "what's {k} on my {n}?")).replace("{k}", k)
            a = f"The {k} thing on your {name} is {items[0 if k == 'first' else -1]}."
        return "list", q.format(n=name), a

    def question(self):
        r = self.r
        if not self.held and r.random() < .16:  # .36 with those below: weights that heard less of them make answers up
            return self.question_unknown()
        x = r.random()
        if self.lists and x < .1:
            return self.question_list()
        if not self.facts or x < .24:
            return self.question_unknown()
        if x < .27:
            return self.question_yes_no()
        if self.fixed and x < self.ask_fixed:
            return self.question_known(r.choice(sorted(self.fixed, key=str)))
        return self.question_known()

    def ask(self, n=1):
        if n > 1:
            qs = {}
            while len(qs) < n:
                q = self.question_known() if len(self.facts) > n and self.r.random() < (.8 if self.held else .7) else self.question_unknown()
                qs.setdefault(q[2], q)
            qs = list(qs.values())
            parts = [q.rstrip("?.") for _, q, _ in qs]
            joined = ", ".join(parts[:-1]) + " and " + parts[-1] + "?" if self.r.random() < .7 else " ".join(S.cap(p) + "?" for p in parts)
            self.user(self.style(joined, True, joined))
            self.reply(" ".join(a for _, _, a in qs), ANSWER)
        else:
            _, q, a = self.question()
            self.user(self.style(q, True, a))
            self.reply(a, ANSWER)


class Maker:
    """Rows for training and checking, all from seeds."""

    def __init__(self, work, held=False, tokenizer=None):
        here = os.path.dirname(os.path.abspath(__file__))
        self.tok = Tokenizer.from_file(tokenizer or os.path.join(here, "..", "tokenizer.json"))
        self.filler, self.held = Filler(work, held), held

    def start(self, r, used=None):
        return Conversation(r, self.tok, self.filler, self.held, used)

    def conversation(self, r, length):
        """A row with everything in it; most questions are far from what they ask about."""
        c = self.start(r)
        if not self.held and r.random() < .45:
            c.crowd = crowd.Crowd(r, c.cast)
        fill = r.choice((0.1, .3, .6, 1.0, 1.6))
        most = r.choice((6, 12, 12, 20, 30)) if length <= 4096 else r.choice((12, 20, 30, 48, 80))
        per_ask = r.choice((.5, 1, 1.5))
        lists = r.random() < .4
        fix = r.choice((.033, .033, .08, .14))
        while len(c.ids) <= length:
            if r.random() < fix:
                c.fix()
                continue
            x = r.random()
            room = len(c.facts) < most
            if x < .20 and room:
                c.tell(r.choice((1, 1, 1, 2, 2, 3, 4)))
            elif x < .25 and room:
                r.choice((c.tool, c.booked, lambda: c.document(r.choice((40, 100, 250)))))()
            elif x < .30 and room:
                c.document(r.choice((20, 60, 150)))
            elif x < .31:
                c.drop()
            elif x < .35 and lists:
                c.list_turn()
            elif x < .38:
                c.small_talk()
            elif x < .38 + .28 * per_ask and (c.facts or r.random() < .2):
                for _ in range(r.choice((1, 1, 2, 3))):
                    c.ask(r.choice((1, 1, 1, 1, 1, 1, 2, 2, 3)))
            if r.random() < .35 * fill:
                c.filled(int(r.choice((30, 80, 200, 500, 900)) * (1 if length <= 4096 else 1.6)))
        return c.ids[:length + 1], c.weights[:length + 1]

    def drill(self, r, length):
        """A row of little else than telling, correcting, dropping and asking, all of it asked."""
        c = self.start(r)
        if not self.held and r.random() < .5:
            c.crowd = crowd.Crowd(r, c.cast)
        most = r.choice((4, 8, 12, 12, 16, 24, 32)) if length <= 4096 else r.choice((16, 32, 64, 96))
        fill = r.choice((0, 0, .05, .1, .2))
        fix = r.choice((.38, .38, .42, .5))
        while len(c.ids) <= length:
            x = r.random()
            if (x < .3 and len(c.facts) < most) or not c.facts:
                c.tell(r.choice((1, 1, 1, 2, 3)))
            elif x < fix:
                c.fix()
            elif x < fix + .03:
                c.drop()
            elif x < fix + .06 and len(c.facts) < most:
                r.choice((c.tool, c.booked, lambda: c.document(r.choice((20, 60)))))()
            else:
                c.ask(r.choice((1, 1, 1, 1, 1, 2)))
            if r.random() < fill:
                c.filled(r.choice((30, 80, 200)))
        return c.ids[:length + 1], c.weights[:length + 1]

    def exam(self, r, length):
        """A row of few facts far apart in other talk, many of them corrected, each part of it followed by questions about
        all that is known then."""
        c = self.start(r)
        if r.random() < .35:
            c.crowd = crowd.Crowd(r, c.cast)
        while len(c.ids) <= length:
            begin, size = len(c.ids), min(length * .85, r.choice((500, 700, 1000, 1400, 2000, 3000, 5000, 8000))) * r.uniform(.8, 1.2)
            tells, fixes = r.choice((2, 3, 4, 6, 8, 10, 12)), r.choice((1, 1, 2, 3, 4, 6))
            events = [(r.random() * .9, c.tell) for _ in range(tells)] + [(r.uniform(.1, 1), c.fix) for _ in range(fixes)]
            for at, event in sorted(events, key=lambda e: e[0]) + [(1, lambda: None)]:
                while (left := int(begin + at * size - len(c.ids))) > 30:
                    c.filled(min(left, r.choice((40, 100, 200, 400))))
                event()
            keys = r.sample(list(c.facts), min(len(c.facts), 12))
            keys += r.sample(sorted(c.fixed - set(keys), key=str), min(len(c.fixed - set(keys)), 6)) + [None] * r.choice((2, 3, 5, 8))
            for key in r.sample(keys, len(keys)):
                _, q, a = c.question_unknown() if key is None else c.question_known(key)
                c.user(c.style(q, True, a))
                c.reply(a, ANSWER)
                if r.random() < .1:
                    c.filled(r.choice((30, 80, 200)))
        return c.ids[:length + 1], c.weights[:length + 1]

    def plain(self, r, length):
        """A row of dialogues alone, or of prose alone. Few of dialogues: there are four million tokens of them, soon known by heart."""
        c = self.start(r)
        if r.random() < .07:
            while len(c.ids) <= length:
                c.put(self.filler.dialog(r, 2000), TEXT)
        else:
            c.put(self.filler.text(r, length), TEXT)
        return c.ids[:length + 1], c.weights[:length + 1]

    def rows(self, r, count, length, plain=.2, drill=.4, exam=.15):
        """plain, drill, exam: the shares of rows of text alone, of dense rows and of rows of facts far apart."""
        ids, weights = np.zeros((count, length + 1), np.int16), np.zeros((count, length + 1), np.uint8)
        for k in range(count):
            x = r.random()
            kind = self.plain if x < plain else self.drill if x < plain + drill else self.exam if x < plain + drill + exam else self.conversation
            ids[k], weights[k] = kind(r, length)
        return ids, weights

    def context(self, r, facts, length, used, alike=None):
        """A context that only tells: `facts` facts among filler, at most `length` tokens. alike: a Crowd."""
        c = self.start(r, used)
        c.crowd = alike
        left = facts
        while left:
            if r.random() < .85 or left < 2:
                n = min(left, r.choice((1, 1, 2)))
                c.tell(n)
            else:
                n = 0
                before = len(c.facts)
                c.document(r.choice((20, 60)))
                n = len(c.facts) - before
            left = max(0, left - n)
            if r.random() < (.1 if self.held else .2):
                c.fix()
            if len(c.ids) < length - 90 and r.random() < .6:
                c.filled(r.randint(20, min(300, length - len(c.ids) - 60)))
        if len(c.ids) > length:
            return None
        while r.random() < .5 and len(c.ids) < length - 60:
            k = len(c.ids)
            c.filled(r.randint(20, length - len(c.ids) - 40))
            if len(c.ids) > length:
                c.ids, c.weights = c.ids[:k], c.weights[:k]
                break
        return c

    def merge_batch(self, r, sizes, length, question_length):
        """Contexts in groups of `sizes`, and one row of questions a group (no beginning token).

        Context rows are padded in front, so that each ends at the row's end; keep says where.
        """
        n = sum(sizes)
        ids, weights = np.zeros((n, length), np.int16), np.zeros((n, length), np.uint8)
        keep = np.zeros((n, length), np.uint8)
        members = np.full((len(sizes), max(sizes)), -1, np.int64)
        q_ids = np.zeros((len(sizes), question_length + 1), np.int16)
        q_weights = np.zeros((len(sizes), question_length + 1), np.uint8)
        row = 0
        for g, size in enumerate(sizes):
            used, facts = {}, {}
            fixed = set()
            alike = crowd.Crowd(r, []) if not self.held and r.random() < .4 else None
            for k in range(size):
                c = None
                while c is None:
                    c = self.context(r, r.choice((0, 1, 2, 3, 3, 4, 5)) if size <= 8 else r.choice((1, 2, 3, 3, 4)), length, used, alike)
                m = len(c.ids)
                ids[row, length - m:], weights[row, length - m:], keep[row, length - m:] = c.ids, c.weights, 1
                members[g, k] = row
                row += 1
                facts.update(c.facts)
                fixed |= c.fixed
            c = self.start(r, used)
            c.crowd = alike
            c.ids, c.weights, c.facts, c.fixed = [], [], facts, fixed
            while len(c.ids) <= question_length:
                x = r.random()
                if x < .85:
                    c.ask(r.choice((1, 1, 1, 1, 2)))
                elif x < .92:
                    c.tell()
                elif x < .96:
                    c.fix()
                else:
                    c.filled(40)
            q_ids[g], q_weights[g] = c.ids[:question_length + 1], c.weights[:question_length + 1]
        return ids, weights, keep, members, q_ids, q_weights


def show(tok, ids, weights):
    out, strong = [], False
    for t, w in zip(ids, weights):
        s = tok.decode([int(t)], skip_special_tokens=False)
        if (w == ANSWER) != strong:
            out.append("{{" if not strong else "}}")
            strong = not strong
        out.append("\n" + s if t in (USER, ASSISTANT) else s)
    return "".join(out)


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--text", help="folder with dialogs.jsonl.xz and corpus.txt.xz")
    ap.add_argument("--work", required=True)
    ap.add_argument("--show", type=int, default=0)
    ap.add_argument("--held", action="store_true")
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    if args.text:
        prepare(args.text, args.work)
    if args.show:
        maker = Maker(args.work, args.held)
        for k in range(args.show):
            print(show(maker.tok, *maker.conversation(random.Random(args.seed + k), 1500)), "\n=======")
