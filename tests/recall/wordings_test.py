"""What validation says is never trained on: the marked wordings of the recall model's recipe stay out of the others."""
import pathlib
import random
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy/models/recall/recipe"))
import crowd
import slots
import words
import wordings as L


def lists():
    """(name, the wordings of one kind)."""
    for name in ("ASK_FRAMES", "ASK_INDIRECT", "NOUN_ASK", "TELL_FRAMES", "FIX_FRAMES", "DROP", "NOUN_TELL", "NOUN_FIX"):
        yield name, getattr(L, name)
    kinds = {**L.KINDS, **{f"{name} of me": verb.me for name, verb in L.VERBS.items()},
             **{f"{name} of others": verb.other for name, verb in L.VERBS.items()}}
    for name, kind in kinds.items():
        for part in ("tell", "fix", "ask"):
            yield f"{name}: {part}", getattr(kind, part)


class WordingsTest(unittest.TestCase):
    def test_no_trained_wording_is_or_contains_a_held_out_one(self):
        for name, lines in lists():
            for held in map(L.plain, lines.held):
                for line in map(L.plain, lines.train):
                    self.assertNotIn(held, line, name)

    def test_every_measured_kind_has_held_out_wordings(self):
        measured = [(name, lines) for name, lines in lists() if not name.endswith("fix") and not any(
            name.startswith(verb) for verb in list(L.VERBS)[len(L.MEASURED):])]
        for name, lines in measured:
            self.assertGreaterEqual(len(lines.held), 4, name)

    def test_what_is_put_together_avoids_them_too(self):
        rng = random.Random(1)
        for verb in L.MEASURED:
            slot = slots.verb_slot(("me", "you"), verb)
            for _ in range(100):
                for core in (slot.tell_core(rng, False), slots.verb_slot(("me", "you"), verb).ask(rng, False)):
                    said = L.plain(core)
                    if core.count("{"):
                        self.assertFalse([n for n in slot.ways.never() if n in said], core)

    def test_what_only_names_make_up_keeps_them_whole(self):
        rng = random.Random(3)
        for names in (["{p}", "{v}"], ["{n}", "{v}", "{o}"]):
            for _ in range(300):
                said = slots.garbled(names, rng).split()
                places = [k for k, word in enumerate(said) if word.rstrip(",:") in names]
                self.assertEqual(sorted(said[k].rstrip(",:") for k in places), sorted(names))
                for k in places:  # a value has little words around it or nothing
                    for beside in said[max(0, k - 1):k] + said[k + 1:k + 2]:
                        self.assertTrue(beside in slots.LITTLE or beside.rstrip(",:") in names, said)

    def test_other_words_keep_the_marks_and_stay_clear_of_validation(self):
        rng, changed = random.Random(5), 0
        slot = slots.verb_slot(("me", "you"), "live")
        for frames in (L.ASK_FRAMES, L.TELL_FRAMES, L.FIX_FRAMES):
            for frame in rng.sample(frames.train, 300):
                said = slot.frame_reworded(frame, frames, rng)
                changed += said != frame
                self.assertEqual(re.findall("{.}", said), re.findall("{.}", frame))
                if said != frame:
                    self.assertFalse([never for never in frames.never() if never in L.plain(said)], said)
        self.assertGreater(changed, 60)

    def test_a_correction_of_what_was_just_told_names_its_value_alone(self):
        for line in L.FIX_ELIDED.train:
            self.assertIn("{v}", line)
            self.assertFalse(set(re.findall("{.}", line)) - {"{v}", "{o}"}, line)

    def test_a_crowd_is_made_of_look_alikes(self):
        rng, shared = random.Random(4), 0
        for _ in range(200):
            group, known = crowd.Crowd(rng, []), {}
            while len(known) < 8 and (slot := group.slot(known)):
                known[slot.key] = slot
            self.assertGreaterEqual(len(known), 2)
            self.assertTrue(all(key == slot.key for key, slot in known.items()))
            parts = [part for key in known for part in set(key)]
            shared += max(map(parts.count, parts)) > 1
        self.assertGreater(shared, 150)  # nearly always something told of two, or two things of one

    def test_answers_name_the_slot_and_its_value(self):
        rng = random.Random(2)
        for held in (False, True):
            for _ in range(500):
                slot = slots.random_slot(rng, held, [])
                value = words.value(slot.kind, rng, held)
                self.assertIn(value, slot.answer(value))
                self.assertIn(value, slot.tell(value, rng, held))
                for text in (slot.ask(rng, held), slot.fix(value, "old", rng, held), slot.drop(rng, held), slot.unknown()):
                    self.assertNotRegex(text, r"[{}]|~")


if __name__ == "__main__":
    unittest.main()
