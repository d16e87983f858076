"""Starts a real penstock beside an app made with the SDK."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from dapr.clients import DaprClient
from dapr.conf import settings

BINARY = os.environ.get("PENSTOCK") or os.path.join(os.path.dirname(__file__), "../../../bin/penstock")


def component(name, type, **options):
    """One Component document. JSON is YAML too."""
    metadata = [{"name": k, "value": v} for k, v in options.items()]
    return {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "spec": {"type": type, "version": "v1", "metadata": metadata}}


def free_port(given=set()):
    while True:
        # Below the ports that the system gives to who asks for any.
        port = random.randrange(15000, 32000)
        if port in given:
            continue
        given.add(port)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def eventually(what, ok):
    """Polls until ok() is true, for at most half a minute."""
    end = time.monotonic() + 30
    while not ok():
        if time.monotonic() > end:
            raise TimeoutError(f"not in time: {what}")
        time.sleep(0.02)


class Penstock:
    """A penstock process, which can be ended and started again as it was."""

    def __init__(self, documents, app_port=None, flags=(), environment=None):
        self.dir = tempfile.mkdtemp(prefix="penstock-python-")
        self.http, self.grpc = free_port(), free_port()
        with open(os.path.join(self.dir, "resources.yaml"), "w") as f:
            f.write("\n---\n".join(json.dumps(d) for d in documents(self.dir)))
        self.args = [
            BINARY, "serve", "--app-id", "shop", "--dapr-http-port", str(self.http), "--dapr-grpc-port", str(self.grpc),
            "--resources-path", self.dir, "--data-dir", os.path.join(self.dir, "data"), *flags,
        ]
        if app_port:
            self.args += ["--app-port", str(app_port), "--app-protocol", "grpc"]
        self.environment = {**os.environ, **(environment or {})}
        self.log = open(os.path.join(self.dir, "log"), "wb")

    def start(self):
        self.process = subprocess.Popen(self.args, stdout=self.log, stderr=self.log, env=self.environment)

    def end(self, sig=signal.SIGTERM):
        """Ends the process and returns its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(30)

    def ready(self):
        def ok():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v1.0/healthz", timeout=5) as answer:
                    return answer.status == 204
            except OSError:
                return False

        eventually("penstock is ready", ok)

    def restart(self, sig):
        code = self.end(sig)
        self.start()
        self.ready()
        return code


@contextlib.contextmanager
def penstock(documents, app=None, **options):
    """A penstock, beside an app of the SDK if one is given, and a client of it."""
    port = free_port() if app else None
    if app:
        thread = threading.Thread(target=app.run, args=(port, "127.0.0.1"), daemon=True)
        thread.start()
    p = Penstock(documents, port, **options)
    settings.DAPR_HTTP_PORT, settings.DAPR_GRPC_PORT = p.http, p.grpc
    p.start()
    try:
        with DaprClient() as client:  # waits for penstock
            yield p, client
            if p.process.poll() is None and p.end() != 0:
                raise AssertionError("penstock ended badly")
    except BaseException:
        with open(p.log.name) as f:
            print(f.read())
        raise
    finally:
        if p.process.poll() is None:
            p.end(signal.SIGKILL)
        if app:
            app.stop()
            thread.join(10)
        p.log.close()
        shutil.rmtree(p.dir, ignore_errors=True)
