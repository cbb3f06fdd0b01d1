"""How people type, and the sentences that they say around what matters. Training alone uses it."""
import re

import wordings as L

SHORT = (("what is", "what's"), ("where is", "where's"), ("who is", "who's"), ("when is", "when's"), ("i am", "i'm"), ("it is", "it's"), ("do not", "don't"),
         ("cannot", "can't"), ("i have", "i've"), ("i would", "i'd"), ("that is", "that's"), ("please", "pls"), ("you", "u"), ("are", "r"), ("what's", "whats"),
         ("don't", "dont"), ("can't", "cant"), ("i'm", "im"), ("going to", "gonna"), ("want to", "wanna"), ("what is", "what s"), ("by the way", "btw"))
ABOUT = re.compile(r"\b(my|me|mine|name|i am|i'm|i live|i have)\b", re.IGNORECASE)

TOLD = re.compile(r"\b(name|call\w*|liv\w*|stay\w*|favou?rite|number|phone|email|address|birthday|allerg\w*|born|from|work|code|password|going|trip|travel\w*|fly\w*|"
                  r"driv\w*|play\w*|like|love|enjoy|speak|support|married|wife|husband|collect|wear|owe|eat\w*|food|drink|read\w*|watch\w*|train\w*|meet\w*|stud\w*|account)\b", re.IGNORECASE)


def slip(r, word):
    """A word with a letter doubled, lost, swapped or another."""
    k = r.randrange(len(word) - 1)
    return r.choice((word[:k] + word[k + 1:], word[:k] + word[k] + word[k:], word[:k] + word[k + 1] + word[k] + word[k + 2:],
                     word[:k] + r.choice("abcdefghijklmnopqrstuvwxyz") + word[k + 1:]))


def typed(r, text, keep):
    """text in somebody's hasty typing; words that stand in `keep` stay."""
    kept = set(re.findall(r"[\w']+", keep.lower()))
    x = r.random()
    if x < .35:
        long, short = r.choice(SHORT)
        if not kept & set(long.split()):
            text = re.sub(rf"\b{re.escape(long)}\b", lambda m: short.capitalize() if m[0][0].isupper() else short, text, flags=re.IGNORECASE)
    if .25 < x < .6:
        words = text.split(" ")
        may = [k for k, w in enumerate(words) if len(w) > 3 and w.isalpha() and w.lower() not in kept]
        for k in r.sample(may, min(len(may), r.choice((1, 1, 2)))):
            words[k] = slip(r, words[k])
        text = " ".join(words)
    if x > .8:
        text = " ".join(w if w.strip(".,?!:").lower() in kept or w.strip(".,?!").endswith("'s") else w.lower() for w in text.split(" "))
    elif x > .7:
        text = text.rstrip("?.!") + r.choice(("", " ", "??", "?!", "!", "...", " ?", " .", "?"))
        text = text if text.strip() else "?"
    elif x > .6:
        text = text.replace(",", "") if r.random() < .6 else "  ".join(text.split(" ", 1))
    return text


def held_frames():
    """What stands around a question or a telling in validation alone."""
    return {L.plain(line.replace(mark, "")) for lines, mark in ((L.ASK_FRAMES, "{q}"), (L.TELL_FRAMES, "{t}"), (L.FIX_FRAMES, "{t}")) for line in lines.held}


def asides(dialogs, most=8000):
    """What users say of themselves without telling anything to remember: it may stand around a question."""
    never = held_frames()
    said = {s.strip() for k, d in enumerate(dialogs) if k % 20 != 7 for a, t in d if a == "u" for s in re.findall(r"[^.?!]+[.!]", t)}
    found = sorted(s for s in said if 3 <= len(s.split()) <= 12 and s.isascii() and ABOUT.search(s) and not TOLD.search(s)
                   and not any(frame in L.plain(s) for frame in never))
    return found[::max(1, len(found) // most)][:most]


def sentences(corpus, dialogs, most=30000):
    """Short statements from prose and from what users say, of those that training may read."""
    never = held_frames()
    said = [t for k, d in enumerate(dialogs) if k % 20 != 7 for a, t in d if a == "u"]
    docs = [d for d in corpus.split("\0") if len(d) > 400]
    prose = " ".join(d for k, d in enumerate(docs) if k % 20 != 7)[:30_000_000]
    found = []
    for text in (said, re.findall(r"(?<=[.!?] )[A-Z][a-z' ,]{8,80}\.(?= [A-Z])", prose)):
        mine = {s.strip() for t in text for s in re.findall(r"[^.?!]+[.!]", t)}
        found.append(sorted(s for s in mine if 2 <= len(s.split()) <= 14 and s.isascii() and L.plain(s) not in never and not ABOUT.search(s)))
    half = most // 2
    return [s for some in found for s in some[::max(1, len(some) // half)][:half]]
