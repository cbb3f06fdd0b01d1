#!/usr/bin/env python3
"""Acceptance of forks: a session of 2,000 tokens into 64, and a thousand forks of one parent.

    build/python-client/bin/python tests/acceptance/fork.py --server build/bin/anabranchd \\
        --model deploy/models/recall [--tokens 2000] [--forks 64] [--repeat 30] [--thousand 1000]

Times are those of the whole call as this client sees it, durable answer included, so they hold the
client's own time as well. Prints a table; exits 1 if a fork stored payload or changed its parent (a
time beyond 5 ms is only printed: it depends on the machine).
"""
import argparse
import random
import statistics
import sys
import time

from anabranch import Client
from server import Server
from time_travel import bits, content


def payload(client):
    return sum(state.size_bytes for state in client.states())


def fork(client, parent, count, prefix):
    start = time.perf_counter()
    forks = parent.fork(count, prefix=prefix)
    milliseconds = (time.perf_counter() - start) * 1000
    return forks, milliseconds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--forks", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--thousand", type=int, default=1000)
    arguments = parser.parse_args()
    with Server(arguments.server, arguments.model, extra=("--dtype", "float32")) as server, \
            Client(server.addr) as client:
        passed = measure(client, arguments)
    sys.exit(0 if passed else 1)


def measure(client, arguments):
    vocab = client.status().model.vocab_size
    parent, _ = client.create_session("parent")
    parent.append(content(random.Random(1), vocab, arguments.tokens))
    state = parent.commit().state
    before, stored, score = bits(client, state.id), payload(client), parent.score([1, 2, 3])
    times = []
    for i in range(arguments.repeat):
        forks, milliseconds = fork(client, parent, arguments.forks, f"round{i}")
        times.append(milliseconds)
        if i < arguments.repeat - 1:
            for each in forks:
                each.close()
    growth = payload(client) - stored
    forks[0].append([1, 2, 3])  # only a branch that differs stores something
    own = payload(client) - stored
    thousand, seconds = 0, 0.0
    while thousand < arguments.thousand:
        count = min(500, arguments.thousand - thousand)
        _, milliseconds = fork(client, parent, count, f"many{thousand}")
        thousand, seconds = thousand + count, seconds + milliseconds / 1000
    same = (parent.info().head_state_id == state.id and bits(client, state.id) == before and
            parent.score([1, 2, 3]).logprob == score.logprob)
    times.sort()
    print(f"{'what':52} {'figure':>14}  aim")
    print(f"{f'{arguments.tokens} tokens into {arguments.forks}: median':52} "
          f"{statistics.median(times):11.2f} ms  < 5 ms")
    print(f"{'best, worst':52} {times[0]:5.2f}, {times[-1]:4.1f} ms")
    print(f"{'payload growth before the branches differ':52} {growth:8} bytes  0")
    print(f"{'and after one of them read 3 tokens':52} {own:8} bytes")
    print(f"{f'{thousand} forks more':52} {seconds * 1000:11.1f} ms")
    print(f"{'parent byte-identical after all forks':52} {'yes' if same else 'NO':>14}  yes")
    return growth == 0 and same


if __name__ == "__main__":
    main()
