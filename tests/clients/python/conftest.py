"""A real server on a free port for each test session."""
import os
import re
import signal
import subprocess
import tempfile

import pytest


class Server:
    def __init__(self, data):
        self.data, self.process, self.addr = data, None, ""

    def start(self):
        self.process = subprocess.Popen(
            [os.environ["ANABRANCHD"], "serve", "--model", os.environ["ANABRANCH_MODEL"],
             "--data", self.data, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
             "--backup-root", os.path.join(self.data, "backups")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if match := re.search(r"serving .* on (\S+:\d+)", line):
                self.addr = match.group(1)
                return
        raise RuntimeError("the server did not start:\n" + "".join(lines))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def server():
    with tempfile.TemporaryDirectory() as data:
        server = Server(data)
        server.start()
        yield server
        server.kill()
