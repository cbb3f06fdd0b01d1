#!/usr/bin/env python3
"""An assistant that outlives its process and the server.

    python long_running_assistant.py tell "My name is Ada."      # as often as you like
    python long_running_assistant.py ask "What is my name?"      # later, from another process

Every call opens the session by its name. If the session is gone, the ref of that name (moved by
commit) still knows the state to go on from. Nothing that was read is read again.
"""
import argparse
import time

from anabranch import Client, Message, Session, Unavailable, Usage


def with_patience(call, seconds: float = 60):
    """Repeats a call that changes nothing while the server restarts."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def tell(assistant: Session, fact: str) -> Usage:
    """Reads a fact and moves the ref to the state after it; durable when this returns."""
    usage = assistant.append(Message("user", fact)).usage
    assistant.commit()
    return usage


def ask(assistant: Session, question: str) -> tuple[str, Usage]:
    assistant.append(Message("user", question))
    result = assistant.generate(reply=True, max_tokens=48).result
    return result.text, result.usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--addr", default="127.0.0.1:50051")
    parser.add_argument("--name", default="assistants/ada", help="session and ref")
    parser.add_argument("what", choices=["tell", "ask"])
    parser.add_argument("text")
    arguments = parser.parse_args()
    with Client(arguments.addr) as client:
        assistant = with_patience(lambda: client.open_session(arguments.name))
        if arguments.what == "tell":
            usage = tell(assistant, arguments.text)
        else:
            answer, usage = ask(assistant, arguments.text)
            print(answer)
        print(f"[{usage.tokens_reused} tokens reused, {usage.tokens_read} read, "
              f"{usage.tokens_generated} generated]")


if __name__ == "__main__":
    main()
