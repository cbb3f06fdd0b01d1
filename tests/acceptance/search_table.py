#!/usr/bin/env python3
"""How well search finds the state that knows: a library of states with three facts each, and questions
in other words than the telling. Prints Recall@1, Recall@5 and the median time of each way to rank.

    build/python-client/bin/python tests/acceptance/search_table.py [--states 500] [--questions 200]

Starts a server of its own (build/bin/anabranchd) with the embedded model. A state takes about 6 MB of
disk and a tenth of a second of two cores; --data keeps the library for another run.
"""
import argparse
import concurrent.futures
import itertools
import json
import random
import statistics
import sys
import time
from pathlib import Path

from anabranch import Client, Message, NotFound
from server import Server

ROOT = Path(__file__).resolve().parents[2]

NAMES = """Ada Ana Amir Amara Anton Aisha Alan Alba Alice Anders Anika Arturo Asha Astrid Ben Bianca Bruno
Camila Carlos Carmen Cleo Clara Cyrus Dan Dana Daria David Diego Dina Dmitri Dora Edgar Elena Eli Emil Emma
Enzo Erik Esra Eva Fatima Felix Fiona Frank Freya Gabriel Gina Grace Greta Hana Hank Hassan Helen Henry Hugo
Ian Ida Igor Ines Ingrid Isaac Ivan Jack Jana Javier Jin Joel Jonas Julia Kai Kamal Karen Kate Kenji Kira
Lars Laura Leah Leo Liam Lina Lucas Lucy Luis Magda Malik Marco Maria Marta Maya Mei Mia Mina Mona Nadia
Naomi Nils Nina Noah Nora Olaf Olga Oliver Omar Oscar Otto Owen Pablo Paula Pedro Petra Priya Quinn Rafael
Rachel Ravi Remy Rita Robert Rosa Ruth Samir Sara Sasha Selma Silvia Simon Stefan Stella Sven Tara Tariq
Teresa Theo Tim Tina Tom Uma Ursula Vera Victor Viola Walter Wanda Xavier Yara Yuki Yusuf Zane Zara Zoe""".split()
CITIES = "Lisbon Porto Madrid Paris Lyon Berlin Munich Vienna Zurich Rome Milan Athens Oslo Bergen Dublin Prague Warsaw Cairo Lagos Mumbai Tokyo Seoul Lima Quito Boston Denver Austin".split()
JOBS = "nurse teacher baker carpenter plumber lawyer dentist pilot sailor farmer gardener chef waiter librarian architect".split()
# Verbs: ways to tell and ways to ask, which share as few words as the model knows how to connect.
VERBS = {
    "live": (CITIES, ["{s} lives in {v}", "{s} resides in {v}", "{s} is based in {v}"], ["where is {s}'s home?", "which city is the home of {s} in?"]),
    "work": (JOBS, ["{s} works as a {v}", "{s} earns a living as a {v}", "{s} is a {v}"], ["what is {s}'s profession?", "what is {s}'s line of work?"]),
    "allergy": ("peanuts milk eggs gluten soy walnuts almonds honey pollen latex".split(), ["{s} can't have {v}, it is an allergy", "{v} gives {s} an allergic reaction"], ["what is {s} allergic to?"]),
    "play": ("piano guitar violin cello flute drums trumpet harp banjo".split(), ["{s} is learning the {v}", "{s} has played the {v} for years"], ["which instrument does {s} play?", "what's the instrument {s} plays?"]),
    "drive": ("Volvo Toyota Honda Ford Fiat Renault Skoda Audi Mazda".split(), ["{s} drives a {v}", "{s} gets around in a {v}", "{s} bought a {v}"], ["which car does {s} have?", "which make of car does {s} own?"]),
    "speak": ("Spanish French German Italian Dutch Danish Swedish Polish Greek".split(), ["{s} is learning {v}", "{s} can talk in {v}"], ["which language does {s} speak?"]),
    "born": (CITIES, ["{s} was born in {v}", "{s} grew up in {v}", "{s} comes from {v}"], ["where is {s} from?", "what is {s}'s place of origin?"]),
    "hobby": ("chess climbing knitting pottery sailing surfing fishing archery juggling hiking rowing".split(), ["{s} enjoys {v}", "{s} spends weekends on {v}", "{s} is into {v}"], ["what is {s}'s hobby?", "what does {s} do in the free time?"]),
}
TELL = ["{p} is {v}", "remember that {p} is {v}", "just so you know, {p} is {v}", "note that {p} is {v}", "by the way, {p} is {v}", "{p}: {v}"]
ASK = ["what is {p}?", "can you tell me {p}?", "do you remember {p}?", "remind me of {p}", "what was {p} again?"]
PERSON_NOUNS = {"locker code": "code", "favorite color": "color", "shoe size": "number", "birthday": "date", "room number": "number",
                "phone number": "phone", "badge number": "code", "lucky number": "number", "favorite city": "city", "door code": "code"}
THING_NOUNS = {"deadline": "date", "budget": "money", "owner": "name", "contact": "name", "launch date": "date", "location": "city", "version": "version", "room": "code"}
ACKS = ["Got it.", "Noted.", "Okay, I will remember that.", "Thanks, I saved that."]
SYLLABLES = "ba be bo da de di do fa ga ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe ra re ri ro sa se ta te ti to va ve vi za ze".split()
COLORS = "red blue green yellow orange purple pink brown black white gray teal".split()
MONTHS = "January February March April May June July August September October November December".split()


def value(r, kind):
    return {"code": lambda: str(r.randint(1000, 9999)), "number": lambda: str(r.randint(2, 99)), "color": lambda: r.choice(COLORS),
            "date": lambda: f"{r.choice(MONTHS)} {r.randint(1, 28)}", "phone": lambda: f"{r.randint(100, 999)}-{r.randint(1000, 9999)}",
            "city": lambda: r.choice(CITIES), "name": lambda: r.choice(NAMES), "money": lambda: f"{r.randint(2, 99)},000 dollars",
            "version": lambda: f"{r.randint(1, 9)}.{r.randint(0, 20)}"}[kind]()


def cap(s):
    return s[:1].upper() + s[1:]


def fact(r, told):
    """(told, question) of something that no state of the library knows yet."""
    while True:
        x = r.random()
        if x < .4:
            s, verb = r.choice(NAMES), r.choice(list(VERBS))
            key, (values, tells, asks) = (s, verb), VERBS[verb]
            names = {"s": s, "v": r.choice(values)}
        elif x < .7:
            s, noun = r.choice(NAMES), r.choice(list(PERSON_NOUNS))
            key, tells, asks = (s, noun), TELL, ASK
            names = {"p": f"{s}'s {noun}", "v": value(r, PERSON_NOUNS[noun])}
        else:
            s, noun = "Project " + cap("".join(r.choice(SYLLABLES) for _ in range(2))), r.choice(list(THING_NOUNS))
            key, tells, asks = (s, noun), TELL, ASK
            names = {"p": f"the {noun} of {s}", "v": value(r, THING_NOUNS[noun])}
        if key in told:
            continue
        told.add(key)
        return cap(r.choice(tells).format(**names)) + ".", cap(r.choice(asks).format(**names))


def library(count, seed):
    r, told = random.Random(seed), set()
    states = []
    for _ in range(count):
        facts = [fact(r, told) for _ in range(3)]
        history = []
        for said, _ in facts:
            history += [Message("user", said), Message("assistant", r.choice(ACKS))]
        states.append((history, [question for _, question in facts]))
    return states


def load(client, states):
    known = {ref.name for ref in client.refs("s/")}

    def one(k):
        name = f"s/{k:05}"
        if name not in known:
            try:  # left by a run that was stopped
                client.session(name).close()
            except NotFound:
                pass
            session, _ = client.create_session(name, history=states[k][0])
            session.commit()
            session.close()

    start = time.time()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for k, _ in enumerate(pool.map(one, range(len(states)))):
            if (k + 1) % 100 == 0:
                print(f"{k + 1} states, {time.time() - start:.0f} s", file=sys.stderr, flush=True)


def rank_of(hits, name, order):
    names = [hit.ref for hit in sorted(hits, key=order)]
    return names.index(name) + 1 if name in names else 10 ** 6


def last(rank):
    return rank or 10 ** 6


WAYS = {  # name: (search options, order of the hits of one full search)
    "words": ({"method": "lexical", "rerank": 0}, lambda h: last(h.lexical_rank)),
    "embedding": ({"method": "embedding", "rerank": 0}, lambda h: last(h.embedding_rank)),
    "fused": ({"rerank": 0}, lambda h: (-h.fused, h.state.id)),
    "fused + model": ({}, lambda h: (not h.reranked, -h.score)),
}


def measure(client, states, questions, rerank, seed, dump):
    r = random.Random(seed)
    picked = [(k, r.choice(states[k][1])) for k in r.sample(range(len(states)), min(questions, len(states)))]
    ranks = {way: [] for way in WAYS}
    times = {way: [] for way in WAYS}
    for k, question in picked:
        name = f"s/{k:05}"
        found = client.search(question, limit=100, rerank=rerank)
        for way, (_, order) in WAYS.items():
            ranks[way].append(rank_of(found.hits, name, order))
        if dump:
            print(json.dumps({"question": question, "name": name, "hits": [
                {f: getattr(h, f) for f in ("ref", "lexical_score", "lexical_rank", "embedding_cosine", "embedding_rank", "fused",
                                            "reranked", "pmi", "answer_gain", "entropy", "score")} for h in found.hits]}), file=dump)
    for (k, question), (way, (options, _)) in itertools.product(picked[:60], WAYS.items()):
        start = time.perf_counter()
        found = client.search(question, limit=10, **{"rerank": rerank, **options})
        times[way].append((1000 * (time.perf_counter() - start), found.candidates_ms, found.rerank_ms))
    print(f"{len(states)} states, {len(picked)} questions, the model judges {rerank}\n")
    print("| way | Recall@1 | Recall@5 | median ms | of these candidates | of these the model |\n|---|---|---|---|---|---|")
    for way in WAYS:
        recall = [sum(rank <= at for rank in ranks[way]) / len(picked) for at in (1, 5)]
        medians = [statistics.median(column) for column in zip(*times[way])]
        print(f"| {way} | {recall[0]:.3f} | {recall[1]:.3f} | " + " | ".join(f"{m:.1f}" for m in medians) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=500)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rerank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", default=str(ROOT / "build/bin/anabranchd"))
    parser.add_argument("--model", default=str(ROOT / "deploy/models/recall"))
    parser.add_argument("--data", help="folder of the library, kept; default: a temporary one")
    parser.add_argument("--dump", type=argparse.FileType("w"), help="file for the scores of every hit, as JSON lines")
    args = parser.parse_args()
    with Server(args.server, args.model, args.data) as server, Client(server.addr) as client:
        states = library(args.states, args.seed)
        load(client, states)
        measure(client, states, args.questions, args.rerank, args.seed, args.dump)


if __name__ == "__main__":
    main()
