"""A library of skills: each is read once and kept; a question finds the one that knows and goes on
from it, without reading anything again.

    python skill_library.py [ADDRESS]
"""
import sys

from anabranch import Client, Message, NotFound

SKILLS = {
    "skills/gate": "The code for the gate is 4417.",
    "skills/garage": "The code for the garage is 9025.",
    "skills/boat": "The boat is in the harbor of Lisbon.",
    "skills/printer": "The password for the printer is velvet-otter.",
    "skills/ada": "Ada works as a gardener.",
    "skills/ben": "Ben is allergic to walnuts.",
}


def learn(client: Client) -> None:
    for name, text in SKILLS.items():
        try:
            client.ref(name)
        except NotFound:
            session = client.open_session(name)
            session.append(Message("user", text))
            session.generate(reply=True).result
            session.commit(labels={"kind": "skill"})


def answer(client: Client, question: str) -> str:
    found = client.search(question, labels={"kind": "skill"}, limit=1)
    hit = found.hits[0]
    print(f"{question} {hit.ref} knows: words {hit.lexical_score:.1f}, pmi {hit.pmi:.2f}, "
          f"answer {hit.answer_gain:.1f} nats; {found.candidates_ms + found.rerank_ms:.0f} ms")
    session, usage = client.create_session(state=hit.state.id)
    assert usage.tokens_read == 0  # resumed, not read
    try:
        return session.ask(question, max_tokens=24).text
    finally:
        session.close()


def main() -> None:
    with Client(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051") as client:
        learn(client)
        for question in ("What is the code for the gate?", "What is Ada's profession?"):
            print("  " + answer(client, question))


if __name__ == "__main__":
    main()
