"""The examples run as they are, against a real server."""
import os
import pathlib
import subprocess
import sys

from anabranch import Client

EXAMPLES = pathlib.Path(__file__).parents[3] / "clients" / "python" / "examples"


def test_time_travel(server):
    done = subprocess.run([sys.executable, EXAMPLES / "time_travel.py", server.addr],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "the lines part at token" in done.stdout


def test_merge_notes(server):
    done = subprocess.run([sys.executable, EXAMPLES / "merge_notes.py", server.addr],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "3 states merged" in done.stdout and "faded: decay" in done.stdout


def test_skills_and_personas_go_in_and_out_of_a_session(server):
    done = subprocess.run([sys.executable, EXAMPLES / "skills_and_personas.py", server.addr],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with_skill, without, bare = done.stdout.split("core and ")[1:]
    assert "skills/lockers (1), personas/gardener (0.5)" in with_skill and "4711" in with_skill
    assert "skills/garage (1):" in without and "9025" in without and "4711" not in without
    assert bare.startswith("nothing:")


def test_tables_of_merging_and_forgetting_are_made():
    scripts = EXAMPLES.parents[2] / "tests" / "acceptance"
    for name, more in (("merge_table.py", ["--sizes", "2,4"]), ("forget_table.py", ["--decay", "0,50"])):
        done = subprocess.run([sys.executable, "-B", scripts / name, "--server",
                               os.environ["ANABRANCHD"], "--trials", "1", *more],
                              capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 merges" in done.stdout or "1 trials" in done.stdout


def test_time_travel_is_accepted_on_a_small_session():
    script = EXAMPLES.parents[2] / "tests" / "acceptance" / "time_travel.py"
    model = EXAMPLES.parents[2] / "tests" / "golden" / "models" / "mamba2"
    done = subprocess.run([sys.executable, script, "--server", os.environ["ANABRANCHD"],
                           "--model", model, "--tokens", "400", "--positions", "8", "--every", "16"],
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8" in done.stdout


def test_a_mailbox_is_scanned_in_branches_of_which_only_findings_stay(server):
    done = subprocess.run([sys.executable, EXAMPLES / "mailbox.py", "--addr", server.addr,
                           "--messages", "9", "--branches", "3", "--findings", "2", "--context", "2"],
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "recall of findings" in done.stdout
    assert "context after the scan: unchanged" in done.stdout
    assert "Your name is Ada" in done.stdout
    with Client(server.addr) as client:
        assert len(list(client.sessions())) == 1, "branches stayed"


def test_subtasks_run_in_parallel_and_the_best_attempt_goes_on(server):
    done = subprocess.run([sys.executable, EXAMPLES / "parallel_subtasks.py", "--addr", server.addr],
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Your name is Ada" in done.stdout
    assert done.stdout.count("kept") == 1


def test_an_assistant_outlives_its_process_its_session_and_the_server(server):
    def assistant(what, text):
        done = subprocess.run([sys.executable, EXAMPLES / "long_running_assistant.py", "--addr",
                               server.addr, what, text], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "[0 tokens reused" in assistant("tell", "My name is Ada.")
    server.kill()
    server.start()
    assistant("tell", "My locker code is 4711.")
    with Client(server.addr) as client:
        told = client.session("assistants/ada").info().token_count
        client.session("assistants/ada").close()  # the ref stays
    server.kill()
    server.start()
    answer = assistant("ask", "What is my name?")
    assert answer.strip() and "[0 tokens reused" not in answer
    with Client(server.addr) as client:
        text = client.session("assistants/ada").text()
        assert "My name is Ada." in text and "4711" in text
        assert client.session("assistants/ada").info().token_count > told


def test_forks_store_nothing_and_leave_their_parent_as_it_was():
    script = EXAMPLES.parents[2] / "tests" / "acceptance" / "fork.py"
    model = EXAMPLES.parents[2] / "tests" / "golden" / "models" / "mamba2"
    done = subprocess.run([sys.executable, script, "--server", os.environ["ANABRANCHD"],
                           "--model", model, "--tokens", "200", "--forks", "8", "--repeat", "2",
                           "--thousand", "40"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
