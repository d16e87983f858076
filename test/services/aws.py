"""The moto server for tests that have many clients at once.

usage: aws.py HOST PORT

Moto's services are not made for several threads: receives of SQS at the same
time may get the same message or fail, and a long poll of a FIFO queue goes by
the groups that were out when it began. Here one request is worked on at a time,
and a long poll that waits lets others go on. What a service answers is moto's
own.

GET /held/QUEUE answers with the bodies of all messages of a queue of SQS that
are not deleted, hidden ones too, which SQS itself shows to nobody.
"""

import collections.abc
import contextlib
import functools
import io
import json
import logging
import os
import sys
import threading
import time

from cryptography.hazmat.primitives.asymmetric import rsa
from moto import backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sns import models as sns
from moto.sqs import models as sqs
from werkzeug.serving import run_simple

turn = threading.RLock()  # held by the request that is worked on


class InTurn:
    """A WSGI application whose requests are worked on one after another."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        # A client that is slow to send must not hold up the others.
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read()
        else:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ["PATH_INFO"]
        with turn:
            if path.startswith(HELD):
                return held(path.removeprefix(HELD), start_response)
            answer = self.app(environ, start_response)
            try:
                return [b"".join(answer)]
            finally:
                getattr(answer, "close", lambda: None)()


HELD = "/held/"


def held(name, start_response):
    queue = sqs.sqs_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].queues.get(name)
    start_response("200 OK" if queue else "404 Not Found", [("Content-Type", "application/json")])
    return [json.dumps([m.body for m in queue._messages] if queue else []).encode()]


def changed(queue):
    """The condition of a queue: something about its messages has changed."""
    return queue.__dict__.setdefault("changed", threading.Condition(turn))


def telling(method):
    """Makes a method of a queue wake the receives that wait for messages of it."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        finally:
            changed(self).notify_all()

    return wrapper


sqs.Queue.add_message = telling(sqs.Queue.add_message)
sqs.Queue.delete_message = telling(sqs.Queue.delete_message)

plain_change = sqs.SQSBackend.change_message_visibility
plain_receive = sqs.SQSBackend.receive_message


def change(self, queue_name, *args, **kwargs):
    try:
        return plain_change(self, queue_name, *args, **kwargs)
    finally:
        changed(self.get_queue(queue_name)).notify_all()


def receive(self, queue_name, count, wait_seconds_timeout, *args, **kwargs):
    end = time.monotonic() + wait_seconds_timeout
    while True:
        queue = self.get_queue(queue_name)
        # Of several messages of a group that can be seen again, moto finds the
        # last first: those before it are still pending when it looks at them.
        with one_moment():
            queue._pending_messages = {m for m in queue._pending_messages if not m.visible}
            got = plain_receive(self, queue_name, count, 0, *args, **kwargs)
        left = end - time.monotonic()
        if got or left <= 0:
            return got
        changed(queue).wait(min(left, next_visible(queue)))


@contextlib.contextmanager
def one_moment():
    """Stops the clock of SQS: no message becomes visible while moto looks at them."""
    clock, now = sqs.unix_time_millis, sqs.unix_time_millis()
    sqs.unix_time_millis = lambda: now
    try:
        yield
    finally:
        sqs.unix_time_millis = clock


def next_visible(queue):
    """Seconds until a hidden message of the queue can be seen."""
    now = sqs.unix_time_millis()
    hidden = [at for m in queue._messages if (at := max(m.visible_at, m.delayed_until)) > now]
    return (min(hidden) - now) / 1000 + 0.001 if hidden else float("inf")


sqs.SQSBackend.change_message_visibility = change
sqs.SQSBackend.receive_message = receive


class Attributes(collections.abc.Mapping):
    """The attributes of a queue. Moto computes all of them whichever is asked
    for, and goes over all messages for that, at every message."""

    all = sqs.Queue.attributes.fget

    def __init__(self, queue):
        self.queue = queue

    def __getitem__(self, name):
        if name == "MessageRetentionPeriod":
            return self.queue.message_retention_period
        if name == "ContentBasedDeduplication" and self.queue.fifo_queue:
            return str(self.queue.content_based_deduplication).lower()
        return Attributes.all(self.queue)[name]

    def __contains__(self, name):
        return name == "MessageRetentionPeriod" or name in Attributes.all(self.queue)

    def __iter__(self):
        return iter(Attributes.all(self.queue))

    def __len__(self):
        return len(Attributes.all(self.queue))


def all_attributes(self, queue_name, names):
    return dict(plain_attributes(self, queue_name, names))


plain_attributes = sqs.SQSBackend.get_queue_attributes
sqs.SQSBackend.get_queue_attributes = all_attributes
sqs.Queue.attributes = property(Attributes)

# What else takes most of the time: dates instead of the clock, a key and a
# certificate for every message of SNS, and the file system at every request.
sqs.unix_time = time.time
sqs.unix_time_millis = lambda: time.time() * 1000
key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
sns.Subscription.private_key = lambda self: key
backends.list_of_moto_modules = functools.partial(list, list(backends.list_of_moto_modules()))

if __name__ == "__main__":
    # It stands for a service with machines of its own: one thread that waits among
    # all that a busy machine runs is not what is tested. Only root may have this.
    with contextlib.suppress(PermissionError):
        os.nice(-15)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    run_simple(
        sys.argv[1],
        int(sys.argv[2]),
        InTurn(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
