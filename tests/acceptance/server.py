"""The server that an acceptance script measures: started on a free port, ended with the script."""
import re
import signal
import subprocess
import tempfile


class Server:
    """data: folder of its library, kept; without one a temporary folder that goes with the server."""

    def __init__(self, binary, model, data=None, extra=()):
        self.temporary = None if data else tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [binary, "serve", "--model", model, "--data", data or self.temporary.name,
             "--listen", "127.0.0.1:0", "--metrics", "off", *extra],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if match := re.search(r"serving .* on (\S+:\d+)", line):
                self.addr = match.group(1)
                break
        else:
            raise SystemExit("the server did not start:\n" + "".join(lines))
        # The pipe must not fill.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.drain.wait()
        if self.temporary:
            self.temporary.cleanup()
