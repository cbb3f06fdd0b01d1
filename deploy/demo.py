"""The play behind deploy/demo: drives the real server and the real CLI, and checks what they say."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BIN = "build/bin"
MODEL = "deploy/models/recall"
GRID = 2048  # the server's default checkpoint grid: the bound on replay

CONVERSATIONS = {
    "assistants/ada": {
        "facts": ["My name is Ada.", "I live in Lisbon.", "My favorite color is green."],
        "questions": [("What is my name?", "Ada"), ("Where do I live?", "Lisbon"),
                      ("What is my favorite color?", "green")],
    },
    "assistants/ben": {
        "facts": ["My name is Ben.", "My dog is called Biscuit.", "My locker code is 4711."],
        "questions": [("What is my name?", "Ben"), ("What is my dog called?", "Biscuit"),
                      ("What is my locker code?", "4711")],
    },
}


class Server:
    """anabranchd on a free port."""

    def __init__(self, data):
        self.data, self.process, self.addr = data, None, ""

    def start(self):
        start = time.monotonic()
        self.process = subprocess.Popen(
            [f"{BIN}/anabranchd", "serve", "--model", MODEL, "--data", self.data, "--listen",
             "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-level", "warning"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if match := re.search(r"serving .* on (\S+:\d+)", line):
                self.addr = match.group(1)
                return (time.monotonic() - start) * 1e3
            print("  server:", line.rstrip())
        sys.exit("demo: the server did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


def cli(server, *words, stdin=None):
    """One command of the CLI with --json; the last line of its output."""
    run = subprocess.run([f"{BIN}/anabranch", "--addr", server.addr, "--json", *words], input=stdin,
                         capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"demo: anabranch {' '.join(words)}: {run.stderr.strip()}")
    lines = run.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {}


def number(usage, name):
    """proto3's JSON leaves out zeros and writes 64-bit numbers as strings."""
    return float(usage.get(name, 0))


def show_usage(usage):
    names = ("reused", "replayed", "read", "generated")
    counts = ", ".join(f"{number(usage, 'tokens_' + n):.0f} {n}" for n in names)
    times = sum(number(usage, n) for n in ("queue_ms", "restore_ms", "compute_ms"))
    print(f"    [tokens: {counts}; {times:.1f} ms]")


def ask(server, name, text):
    reply = cli(server, "ask", name, text)
    print(f"  {name} > {text}\n  {'':{len(name)}} < {reply['text'].strip()}")
    show_usage(reply["usage"])
    return reply


def play_conversations(server):
    """Tells, kills, resumes, asks. Returns what went wrong."""
    problems = []
    print("\n1. Two conversations, told some facts")
    for name, talk in CONVERSATIONS.items():
        for fact in talk["facts"]:
            ask(server, name, fact)
    tokens = {name: int(cli(server, "session", "show", name)["token_count"]) for name in CONVERSATIONS}

    print("\n2. SIGKILL, while a third conversation is being written")
    busy = subprocess.Popen([f"{BIN}/anabranch", "--addr", server.addr, "ask", "assistants/eve",
                             "Tell me a long story."], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    server.kill()
    busy.wait()
    print(f"  server killed; serving again after {server.start():.0f} ms")

    print("\n3. Both conversations go on")
    for name, talk in CONVERSATIONS.items():
        expected = tokens[name]
        for question, answer in talk["questions"]:
            reply = ask(server, name, question)
            usage = reply["usage"]
            if answer.lower() not in reply["text"].lower():
                problems.append(f"{name}: '{question}' was answered '{reply['text'].strip()}', not {answer}")
            again = number(usage, "tokens_replayed")
            if again > GRID:
                problems.append(f"{name}: {again:.0f} tokens replayed, more than the bound of {GRID}")
            if number(usage, "tokens_reused") + again < expected:
                problems.append(f"{name}: only {number(usage, 'tokens_reused'):.0f} of {expected} tokens reused")
            expected = int(reply["session"]["token_count"])
    return problems


def long_text(words):
    """Plain text of about as many tokens as asked for."""
    line = "The river leaves the main stream, runs beside it for a while, and joins it again. "
    return line * (words // 18 + 1)


def compare_times(server):
    print("\n4. Resuming against reading again")
    text = long_text(2000)
    first = cli(server, "append", "notes/river", "--raw", "-", stdin=text)
    tokens = int(first["session"]["token_count"])
    cli(server, "ask", "notes/river", "Thanks.")  # commits
    server.kill()
    server.start()
    resumed = cli(server, "session", "create", "notes/resumed", "--from", "notes/river")["usage"]
    again = cli(server, "append", "notes/again", "--raw", "-", stdin=text)["usage"]
    resume_ms, read_ms = number(resumed, "restore_ms"), number(again, "compute_ms")
    print(f"  a context of {tokens} tokens: resumed in {resume_ms:.2f} ms, read again in {read_ms:.1f} ms: "
          f"{read_ms / max(resume_ms, 1e-6):.0f} times faster")
    if number(resumed, "tokens_read") or number(resumed, "tokens_replayed"):
        return ["resuming the notes ran the model"]
    return [] if resume_ms < read_ms else ["resuming was slower than reading again"]


def main():
    data = tempfile.mkdtemp(prefix="anabranch-demo-")
    server = Server(data)
    print(f"anabranchd with {MODEL} on an empty library, ready after {server.start():.0f} ms")
    try:
        problems = play_conversations(server) + compare_times(server)
    finally:
        server.kill()
        shutil.rmtree(data, ignore_errors=True)
    print()
    for problem in problems:
        print("WRONG:", problem)
    print("demo:", "FAILED" if problems else "all answers right, nothing read again")
    return 1 if problems else 0


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.exit(main())
