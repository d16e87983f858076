"""What the Python SDK offers, unmodified, against a real penstock. The SDK
speaks gRPC, and asks over HTTP whether it can begin."""

import json
import os
import queue
import signal
import threading
import unittest
import urllib.request

import grpc
from cloudevents.sdk.event import v1
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc._response import TopicEventResponse
from dapr.conf import settings
from dapr.ext.grpc import App, Rule, SubscriptionMessage

from sidecar import component, eventually, penstock


def bus(dir, type):
    options = {"connectionString": os.path.join(dir, "bus.db")} if type == "pubsub.sqlite" else {}
    return component("bus", type, **options)


def publish(client, topic, data, **options):
    client.publish_event("bus", topic, json.dumps(data), data_content_type="application/json", **options)


class Buses:
    """The cases of events; type is a pub/sub of the build."""

    def documents(self, dir):
        return [bus(dir, self.type)]

    def test_app_with_routes_retry_drop_and_dead_letter(self):
        app, got, tries = App(), queue.Queue(), []

        # Without a rule that takes the rest it would be dropped: the SDK names no default.
        @app.subscribe("bus", "orders", rule=Rule("true", 2))
        def small(event: v1.Event):
            got.put(("small", json.loads(event.data), event.Subject()))

        @app.subscribe("bus", "orders", rule=Rule("event.data.total > 100", 1))
        def large(event: v1.Event):
            got.put(("large", json.loads(event.data), event.Subject()))

        @app.subscribe("bus", "again")
        def again(event: v1.Event):
            tries.append(event.EventID())
            if len(tries) == 2:
                raise ValueError("the SDK answers with an error")
            return TopicEventResponse("retry" if len(tries) < 3 else "success")

        @app.subscribe("bus", "bad", dead_letter_topic="graves")
        def bad(event: v1.Event):
            return TopicEventResponse("drop")

        @app.subscribe("bus", "graves")
        def graves(event: v1.Event):
            got.put(("dead", json.loads(event.data), event.Subject()))

        @app.subscribe("bus", "fleet/*")
        def fleet(event: v1.Event):
            got.put(("fleet", json.loads(event.data), event.Extensions()["topic"]))

        with penstock(self.documents, app) as (_, client):
            for topic, data, want in [
                ("orders", {"total": 3}, ("small", {"total": 3}, "orders")),
                ("orders", {"total": 250}, ("large", {"total": 250}, "orders")),
                ("bad", {"n": 1}, ("dead", {"n": 1}, "graves")),
                ("fleet/7", {"car": 7}, ("fleet", {"car": 7}, "fleet/7")),
            ]:
                publish(client, topic, data)
                self.assertEqual(got.get(timeout=30), want)
            publish(client, "again", {"n": 1})
            eventually("the third try", lambda: len(tries) == 3)
            self.assertEqual(len(set(tries)), 1, "the id of the event changed")

    def test_bulk_subscription_from_yaml(self):
        app, got = App(), []

        # It takes other topics as well; a subscription of its own to this one would be without bulk.
        @app.subscribe("bus", "own", rule=Rule("true", 1), disable_topic_validation=True)
        def many(message: SubscriptionMessage):
            got.append(message.data()["n"])

        def documents(dir):
            return [*self.documents(dir), {
                "apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "many"},
                "spec": {
                    "pubsubname": "bus", "topic": "many", "routes": {"default": "many"},
                    "bulkSubscribe": {"enabled": True, "maxMessagesCount": 10, "maxAwaitDurationMs": 50},
                },
            }]

        with penstock(documents, app) as (_, client):
            answer = client.publish_events("bus", "many", [json.dumps({"n": n}) for n in range(25)], data_content_type="application/json")
            self.assertEqual(answer.failed_entries, [])
            eventually("every event", lambda: len(got) >= 25)
            self.assertEqual(sorted(got), list(range(25)))

    def test_streams(self):
        with penstock(self.documents) as (_, client):
            got, dead, tries = queue.Queue(), queue.Queue(), []

            def again(message):
                tries.append(message.id())
                return TopicEventResponse("retry" if len(tries) < 3 else "success")

            def plain(message):
                got.put((message.data(), message.data_content_type(), message.topic(), message.pubsub_name()))
                return TopicEventResponse("success")

            stops = [
                client.subscribe_with_handler("bus", "plain", plain),
                client.subscribe_with_handler("bus", "again", again),
                client.subscribe_with_handler("bus", "bad", lambda _: TopicEventResponse("drop"), dead_letter_topic="graves"),
                client.subscribe_with_handler("bus", "graves", lambda m: (dead.put(m.data()), TopicEventResponse("success"))[1]),
            ]
            try:
                publish(client, "plain", {"n": 1})
                self.assertEqual(got.get(timeout=30), ({"n": 1}, "application/json", "plain", "bus"))
                client.publish_event("bus", "plain", "text", data_content_type="text/plain")
                self.assertEqual(got.get(timeout=30), ("text", "text/plain", "plain", "bus"))
                publish(client, "again", {"n": 2})
                eventually("the third try", lambda: len(tries) == 3)
                publish(client, "bad", {"n": 3})
                self.assertEqual(dead.get(timeout=30), {"n": 3})
            finally:
                for stop in stops:
                    stop()

    def test_streams_go_on_when_penstock_is_killed_and_stopped(self):
        with penstock(self.documents) as (p, client):
            arrived = set()

            def handle(message):
                arrived.add(message.data())
                return TopicEventResponse("success")

            stops = [client.subscribe_with_handler("bus", f"t{i}", handle) for i in range(5)]
            sent = 0

            def send(confirmed):
                nonlocal sent
                for i in range(5):
                    sent += 1
                    try:
                        client.publish_event("bus", f"t{i}", f"m{sent}", data_content_type="text/plain")
                        confirmed.append(f"m{sent}")
                    except (DaprGrpcError, grpc.RpcError):
                        pass

            try:
                for sig in (signal.SIGKILL, signal.SIGTERM):
                    confirmed, back = [], threading.Event()

                    def keep_sending():
                        while not back.is_set():
                            send(confirmed)

                    sender = threading.Thread(target=keep_sending)
                    sender.start()
                    self.assertEqual(p.restart(sig), 0 if sig == signal.SIGTERM else -sig)
                    back.set()
                    sender.join()
                    eventually("the connection is back", lambda: len(set(self.subscriptions(p))) == 5)
                    if self.type == "pubsub.in-memory":
                        confirmed.clear()  # memory forgets when the process ends
                    end = len(confirmed)
                    eventually("publishing works again", lambda: (send(confirmed), len(confirmed) > end)[1])
                    eventually("every confirmed event", lambda: arrived.issuperset(confirmed))
            finally:
                for stop in stops:
                    stop()

    def subscriptions(self, p):
        with urllib.request.urlopen(f"http://127.0.0.1:{p.http}/v1.0/metadata", timeout=5) as answer:
            return [s["topic"] for s in json.load(answer)["subscriptions"]]


class InMemory(Buses, unittest.TestCase):
    type = "pubsub.in-memory"


class SQLite(Buses, unittest.TestCase):
    type = "pubsub.sqlite"


class Rest(unittest.TestCase):
    def documents(self, dir):
        return [bus(dir, "pubsub.in-memory")]

    def test_bindings(self):
        app, ticks = App(), []

        @app.binding("tick")
        def tick(request):
            ticks.append(request.data)
            if len(ticks) == 1:
                raise ValueError("not this one")

        def documents(dir):
            return [
                component("tick", "bindings.cron", schedule="@every 1s"),
                component("store", "bindings.localstorage", rootPath=os.path.join(dir, "out")),
            ]

        with penstock(documents, app) as (_, client):
            client.invoke_binding("store", "create", '{"a": 1.0}', {"fileName": "x.json"})
            answer = client.invoke_binding("store", "get", "", {"fileName": "x.json"})
            self.assertEqual(answer.data, b'{"a": 1.0}')
            eventually("a tick, tried again", lambda: len(ticks) > 1)

    def test_secrets(self):
        def documents(dir):
            with open(os.path.join(dir, "secrets.json"), "w") as f:
                json.dump({"password": "open"}, f)
            return [component("vault", "secretstores.local.file", secretsFile=f.name)]

        with penstock(documents) as (_, client):
            self.assertEqual(dict(client.get_secret("vault", "password").secret), {"password": "open"})
            self.assertEqual(dict(client.get_bulk_secret("vault").secrets["password"]), {"password": "open"})

    def test_metadata_and_shutdown(self):
        with penstock(self.documents) as (p, client):
            client.set_metadata("colour", "blue")
            metadata = client.get_metadata()
            self.assertEqual(metadata.application_id, "shop")
            self.assertEqual(metadata.extended_metadata["colour"], "blue")
            self.assertEqual([(c.name, c.type, c.version) for c in metadata.registered_components], [("bus", "pubsub.in-memory", "v1")])
            client.shutdown()
            self.assertEqual(p.process.wait(30), 0)

    def test_errors(self):
        with penstock(self.documents) as (_, client):
            with self.assertRaises(DaprGrpcError) as caught:
                client.publish_event("nobody", "t", "x")
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertEqual(caught.exception.error_code(), "DAPR_PUBSUB_NOT_FOUND")
            self.assertIn("nobody", caught.exception.details())
            with self.assertRaises(DaprGrpcError) as caught:
                client.get_state("nobody", "k")
            self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertEqual(caught.exception.error_code(), "DAPR_STATE_NOT_CONFIGURED")

    def test_health_of_the_app(self):
        app, well, got = App(), threading.Event(), queue.Queue()

        def health():
            if not well.is_set():
                raise ValueError("not yet")

        app.register_health_check(health)

        @app.subscribe("bus", "t")
        def t(event: v1.Event):
            got.put(well.is_set())

        with penstock(self.documents, app, flags=["--enable-app-health-check", "--app-health-probe-interval", "1"]) as (_, client):
            publish(client, "t", 1)
            well.set()
            self.assertTrue(got.get(timeout=30))

    def test_api_token(self):
        settings.DAPR_API_TOKEN = "sesame"
        self.addCleanup(setattr, settings, "DAPR_API_TOKEN", None)
        with penstock(self.documents, environment={"DAPR_API_TOKEN": "sesame"}) as (_, client):
            publish(client, "t", 1)
            settings.DAPR_API_TOKEN = "wrong"
            with DaprClient() as other, self.assertRaises(DaprGrpcError) as caught:
                publish(other, "t", 1)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)


if __name__ == "__main__":
    unittest.main()
