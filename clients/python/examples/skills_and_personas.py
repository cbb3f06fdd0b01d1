"""One assistant, with a skill and a persona merged into its core, and others in their place later.
Nothing is read again; what the session itself has read stays.

    python skills_and_personas.py [ADDRESS]
"""
import sys

from anabranch import Client, Message, NotFound, Session

LIBRARY = {
    "cores/ada": "My name is Ada.",
    "skills/lockers": "My locker code is 4711.",
    "skills/garage": "The code for the garage is 9025.",
    "personas/gardener": "I work as a gardener.",
}


def learn(client: Client) -> None:
    for name, text in LIBRARY.items():
        try:
            client.ref(name)
        except NotFound:
            session = client.open_session(name)
            session.append(Message("user", text))
            session.generate(reply=True).result
            session.commit()
            session.close()


def show(session: Session) -> None:
    info = session.info()
    merged = ", ".join(f"{aux.id} ({aux.weight:g})" for aux in info.aux) or "nothing"
    print(f"core and {merged}: {info.base_token_count} tokens, "
          f"and {info.token_count - info.base_token_count} of its own")


def ask(session: Session, question: str) -> None:
    # On a fork, so that the question leaves no trace in the session.
    (branch,) = session.fork(1, names=[f"{session.id}/question"])
    try:
        print(f"  {question} {branch.ask(question, max_tokens=24).text}")
    finally:
        branch.close()


def main() -> None:
    with Client(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051") as client:
        learn(client)
        session, usage = client.create_session(
            from_ref="cores/ada", aux={"skills/lockers": 1.0, "personas/gardener": 0.5})
        assert usage.tokens_read == 0  # merged, not read
        show(session)
        ask(session, "What is my locker code?")
        session.append(Message("user", "My favourite colour is green."))
        session.generate(reply=True).result

        change = session.set_aux(add=["skills/garage"], drop=["skills/lockers", "personas/gardener"])
        assert change.usage.tokens_read == 0
        show(session)
        for question in ("What is the code for the garage?", "What is my locker code?",
                         "What is my favourite colour?", "What is my name?"):
            ask(session, question)

        session.set_aux([])
        show(session)
        session.close()


if __name__ == "__main__":
    main()
