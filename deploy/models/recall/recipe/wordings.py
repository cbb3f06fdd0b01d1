"""The ways to tell, correct, forget and ask, read from the files of wordings/.

A list has two sides: what training sees, and what only validation sees (marked with ~ in the files). {p} is
a thing as the user calls it, {v} its value, {o} the old value, {s} somebody, {n} a plural; {t} is a told
clause, {q} a question, {i} an indirect one.
"""
import pathlib
import re
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent / "wordings"
ME = {"{I}": "I", "{my}": "my", "{me}": "me", "{am}": "am", "{have}": "have", "{do}": "do", "{was}": "was"}
OTHER = {"{I}": "{s}", "{my}": "{s}'s", "{me}": "{s}", "{am}": "is", "{have}": "has", "{do}": "does", "{was}": "was"}


@dataclass
class Lines:
    train: list = field(default_factory=list)
    held: list = field(default_factory=list)
    kept: list = None  # see never()

    def side(self, held):
        return (self.held if held else self.train) or self.train

    def add(self, line, held):
        (self.held if held else self.train).append(line)

    def never(self):
        """What only validation may say, without the marks of what it stands around; worked out once."""
        if self.kept is None:
            self.kept = [plain(re.sub(r"{[tqi]}", "", line)) for line in self.held]
        return self.kept


def alternatives(line):
    """"[a|b] c" is "a c" and "b c"."""
    found = re.search(r"\[([^\[\]]*)\]", line)
    if not found:
        return [line]
    return [x for a in found.group(1).split("|") for x in alternatives(line[:found.start()] + a + line[found.end():])]


def plain(text):
    """Without case and punctuation, for telling whether one wording contains another."""
    return " " + " ".join(re.sub(r"[^a-z0-9{}']+", " ", text.lower()).split()) + " "


def sections(name):
    """Yields (section, the rest of its heading, [(line, held)])."""
    current = None
    for line in (HERE / name).read_text().splitlines():
        if found := re.fullmatch(r"\[([a-z* ]+)\](.*)", line):
            current = (found.group(1), found.group(2).strip(), [])
            yield current
        elif current and line.strip():
            held = line.startswith("~ ")
            current[2].extend((x, held) for x in alternatives(line[2 * held:].strip()))


def load(name):
    out = {}
    for section, _, found in list(sections(name)):
        lines = out[section] = Lines()
        for line, held in found:
            lines.add(line, held)
    return out


_frames, _telling = load("frames.txt"), load("telling.txt")
ASK_FRAMES, ASK_INDIRECT, NOUN_ASK = _frames["ask frames"], _frames["ask indirect"], _frames["ask name"]
TELL_FRAMES, FIX_FRAMES, DROP = _telling["tell frames"], _telling["fix frames"], _telling["drop"]
NOUN_TELL, NOUN_FIX = _telling["noun tell"], _telling["noun fix"]
FIX_ELIDED = _telling["fix elided"]  # of what was just told, which it does not name


@dataclass
class Kind:
    """One kind of fact: told, corrected, asked; indirect questions and names of it need no held side."""
    tell: Lines = field(default_factory=Lines)
    fix: Lines = field(default_factory=Lines)
    ask: Lines = field(default_factory=Lines)
    indirect: list = field(default_factory=list)
    names: list = field(default_factory=list)
    kept: list = None  # see never()

    def add(self, letter, line, held):
        if letter in "in":
            (self.indirect if letter == "i" else self.names).append(line)
        else:
            {"t": self.tell, "x": self.fix, "q": self.ask}[letter].add(line, held)

    def never(self):
        """What only validation may say, whatever it is put together from; worked out once."""
        if self.kept is None:
            self.kept = [plain(line) for lines in (self.tell, self.fix, self.ask) for line in lines.held]
        return self.kept


def kinds():
    out = {}
    for section, _, found in list(sections("kinds.txt")):
        out[section] = Kind()
        for line, held in found:
            letter, text = line.split(" ", 1)
            out[section].add(letter, text, held)
    return out


KINDS = kinds()


def person(line, me):
    """A line about {I}, as the user says it of himself (me) or of {s}."""
    for mark, word in (ME if me else OTHER).items():
        line = line.replace(mark, word)
    if me:
        return re.sub(r"~(s|es|\+)", "", line)
    return re.sub(r"~(s|es)", r"\1", line.replace("y~+", "ies"))


@dataclass
class Verb:
    """A family of sentences with a verb: me and other are its two persons."""
    value: str
    answer: str
    answer_other: str
    unknown: str
    unknown_other: str
    me: Kind = field(default_factory=Kind)
    other: Kind = field(default_factory=Kind)


def verbs():
    out = {}
    for section, title, found in list(sections("verbs.txt")):
        value, answer, answer_other, what, what_other = [x.strip() for x in title.split("|")]
        verb = out[section] = Verb(value, answer, answer_other, f"You have not told me {what}.", f"You have not told me {what_other}.")
        for line, held in found:
            letter, text = line.split(" ", 1)
            for kind, me in ((verb.me, True), (verb.other, False)):
                if letter[1:] in ("", "m" if me else "o"):
                    kind.add(letter[0], person(text, me), held)
    return out


VERBS = verbs()
ANY_VERB = VERBS.pop("any verb")
MEASURED = list(VERBS)[:12]  # the families that validation asks about


def vocabulary():
    out = {}
    for section, _, found in list(sections("vocabulary.txt")):
        out[section] = [[x.strip() for x in line.split("|")] for line, _ in found]
    out["relation"] = [x for row in out["relation"] for x in row]
    out["verb"] = [row[0].split() for row in out["verb"]]
    return out


VOCABULARY = vocabulary()
