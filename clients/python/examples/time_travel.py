"""Time travel: name positions, go back to any token, write another history, keep both.

    anabranchd serve --model deploy/models/recall --data /tmp/library &
    python clients/python/examples/time_travel.py 127.0.0.1:50051
"""
import sys

from anabranch import CheckpointPolicy, Client, Message


def main(addr: str) -> None:
    with Client(addr) as client:
        # A state at every turn's end, and one every 64 tokens, of which old ones are thinned.
        ada, _ = client.create_session("examples/ada", checkpoints=CheckpointPolicy(every=64))
        ada.append(Message("user", "My name is Ada. The boat is in Porto."))
        ada.mark("introduced")
        for day in range(1, 9):
            ada.append(Message("user", f"Day {day}: the weather was fine and nothing happened."))
        log = ada.log()
        print(f"{log.token_count} tokens; states at", [e.state.token_count for e in log.entries])

        # Any token can be gone back to. What it costs is known before.
        target = log.token_count // 2
        plan = ada.rewind(target, dry_run=True)
        assert plan.tokens_to_replay == log.replay_to(target)
        print(f"token {target}: {plan.tokens_to_replay} tokens to replay, "
              f"{plan.tokens_dropped} dropped")

        # Another history from the mark on. The old one stays, under a mark of its own.
        (start,) = [e for e in log.entries if "examples/ada/marks/introduced" in e.ref_names]
        edit = ada.edit(start.state.token_count, Message("user", "Day 1: the boat sank."))
        print("the old line:", edit.before.name)
        old, usage = client.create_session("examples/old", from_ref=edit.before.name)
        assert usage.tokens_read == 0 and usage.tokens_replayed == 0
        assert "Day 8" in old.text() and "Day 8" not in ada.text()
        assert old.text().startswith(ada.text()[:40])

        # Both lines, and where they part.
        family = client.graph(session="examples/ada")
        (fork,) = [e for e in family.entries if e.child_count == 2]
        print("the lines part at token", fork.state.token_count)
        assert fork.state.id == start.state.id


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
