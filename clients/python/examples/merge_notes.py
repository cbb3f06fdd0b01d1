"""Researchers read separately; one state then knows what all of them have read.

    anabranchd serve --model deploy/models/recall --data /tmp/library &
    python clients/python/examples/merge_notes.py 127.0.0.1:50051
"""
import sys

from anabranch import Client, Message

NOTES = {
    "ann": ["The gate code is 4711.", "My name is Ann."],
    "ben": ["The meeting is in Porto.", "The boat is called Merganser."],
    "cem": ["The door code of the lab is 92014."],
}


def main(addr: str) -> None:
    with Client(addr) as client:
        # What all of them know is read once, and each goes on from it.
        team, _ = client.create_session("examples/team")
        team.append(Message("user", "We are a team of researchers. We take notes."))
        team.commit()
        for researcher, session in zip(NOTES, team.fork(names=[f"examples/{n}" for n in NOTES])):
            for note in NOTES[researcher]:
                session.append([Message("user", note), Message("assistant", "Got it.")])
            session.commit()

        # One state of all three. Nothing is read again, and what they share counts once.
        names = [f"examples/{name}" for name in NOTES]
        merge = client.merge(names, ref="examples/all")
        assert merge.usage.tokens_read == 0 and merge.ancestor_id
        print(f"{len(names)} states merged into {merge.state.token_count} tokens")
        together, _ = client.create_session("examples/together", state=merge.state.id, ref="-")
        for question in ("What is the gate code?", "Where is the meeting?"):
            (fork,) = together.fork()
            print(question, fork.ask(question, temperature=0).text)
            fork.close()

        # What one of them added, alone; all but that; and how far that is from the whole.
        span = client.span("examples/ben", merge.ancestor_id, ref="examples/ben-alone")
        print(f"ben alone: {span.state.token_count} tokens")
        without = client.merge([names[0], names[2]], ref="examples/without-ben")
        diff = client.diff("examples/all", without.state.id)
        most = max(diff.tensors, key=lambda tensor: tensor.whole.relative_l2)
        print(f"without ben: layer {most.layer} differs most, by {most.whole.relative_l2:.2f}")

        # Old notes may fade.
        faded = client.decay("examples/all", 5000, ref="examples/faded")
        print("faded:", faded.state.operation, faded.state.operation_params)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
