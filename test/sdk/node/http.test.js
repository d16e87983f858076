// The JavaScript SDK over HTTP, unmodified, against a real penstock.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DaprPubSubStatusEnum } from "@dapr/dapr";
import { buses, component, eventually, scratch, start } from "./sidecar.js";

for (const bus of ["pubsub.in-memory", "pubsub.sqlite"]) {
  test(`${bus}: publish, routes and bulk publish`, async () => {
    const { dir, remove } = scratch();
    const got = { plain: [], large: [], small: [], text: [], declared: [] };
    const subscription = JSON.stringify({
      apiVersion: "dapr.io/v2alpha1", kind: "Subscription", metadata: { name: "declared" },
      spec: { pubsubname: "bus", topic: "declared", routes: { default: "/declared" } },
    });
    const { client, stop } = await start(dir, [buses(dir)[bus], subscription], async (server) => {
      await server.pubsub.subscribe("bus", "plain", async (data) => void got.plain.push(data));
      await server.pubsub.subscribe("bus", "text", async (data) => void got.text.push(data));
      const routes = { rules: [{ match: "event.data.total > 100", path: "/large" }], default: "/small" };
      await server.pubsub.subscribeWithOptions("bus", "orders", { route: routes });
      server.pubsub.subscribeToRoute("bus", "orders", "/large", async (data) => void got.large.push(data));
      server.pubsub.subscribeToRoute("bus", "orders", "/small", async (data) => void got.small.push(data));
    });
    try {
      assert.deepEqual(await client.pubsub.publish("bus", "plain", { hello: "world" }), {});
      assert.deepEqual(await client.pubsub.publish("bus", "text", "just text"), {});
      assert.deepEqual(await client.pubsub.publish("bus", "orders", { total: 250 }), {});
      assert.deepEqual(await client.pubsub.publish("bus", "orders", { total: 5 }), {});
      const bulk = await client.pubsub.publishBulk("bus", "plain", [
        { n: 1 }, "two", { entryID: "three", event: { n: 3 }, contentType: "application/json", metadata: {} },
      ]);
      assert.deepEqual(bulk.failedMessages, []);
      await eventually("all events", () => got.plain.length >= 4 && got.text.length && got.large.length && got.small.length);
      assert.deepEqual(got.plain[0], { hello: "world" });
      assert.deepEqual(new Set(got.plain.slice(1).map((d) => JSON.stringify(d))), new Set(['{"n":1}', '"two"', '{"n":3}']));
      assert.deepEqual([got.text, got.large, got.small], [["just text"], [{ total: 250 }], [{ total: 5 }]]);
    } finally {
      await stop();
      remove();
    }
  });

  test(`${bus}: SUCCESS, RETRY, DROP and dead letter`, async () => {
    const { dir, remove } = scratch();
    let tries = 0;
    const dropped = [], dead = [];
    const { client, stop } = await start(dir, [buses(dir)[bus]], async (server) => {
      await server.pubsub.subscribe("bus", "again", async () => (++tries < 3 ? DaprPubSubStatusEnum.RETRY : DaprPubSubStatusEnum.SUCCESS));
      await server.pubsub.subscribeWithOptions("bus", "bad", {
        callback: async (data) => { dropped.push(data); return DaprPubSubStatusEnum.DROP; },
        deadLetterTopic: "graves",
      });
      await server.pubsub.subscribe("bus", "graves", async (data) => void dead.push(data));
    });
    try {
      assert.deepEqual((await client.metadata.get()).subscriptions.find((s) => s.topic === "bad").deadLetterTopic, "graves");
      await client.pubsub.publish("bus", "again", { n: 1 });
      await client.pubsub.publish("bus", "bad", { n: 2 });
      await eventually("three tries and a dead letter", () => tries === 3 && dead.length === 1);
      assert.deepEqual([dropped, dead], [[{ n: 2 }], [{ n: 2 }]]);
    } finally {
      await stop();
      remove();
    }
  });
}

test("bulk subscribe", async () => {
  const { dir, remove } = scratch();
  const got = [];
  let refused = 0;
  const { client, stop } = await start(dir, [buses(dir)["pubsub.in-memory"]], async (server) => {
    await server.pubsub.subscribeBulk("bus", "many", async (data) => {
      if (data.n === 3 && refused++ === 0) return DaprPubSubStatusEnum.RETRY;
      got.push(data.n);
    }, { maxMessagesCount: 10, maxAwaitDurationMs: 100 });
  });
  try {
    await client.pubsub.publishBulk("bus", "many", Array.from({ length: 25 }, (_, n) => ({ n })));
    await eventually("every event once", () => got.length === 25);
    assert.deepEqual(got.sort((a, b) => a - b), Array.from({ length: 25 }, (_, n) => n));
    assert.equal(refused, 2);
  } finally {
    await stop();
    remove();
  }
});

test("bindings in and out, metadata and health", async () => {
  const { dir, remove } = scratch();
  let ticks = 0;
  const documents = [
    component("tick", "bindings.cron", { schedule: "@every 1s" }),
    component("store", "bindings.localstorage", { rootPath: join(dir, "out") }),
  ];
  const { client, stop } = await start(dir, documents, async (server) => {
    await server.binding.receive("tick", async () => void ticks++);
  });
  try {
    await client.binding.send("store", "create", { a: [1, 2] }, { fileName: "x.json" });
    assert.deepEqual(JSON.parse(readFileSync(join(dir, "out", "x.json"), "utf8")), { a: [1, 2] });
    assert.deepEqual(await client.binding.send("store", "get", undefined, { fileName: "x.json" }), { a: [1, 2] });
    await eventually("a tick", () => ticks > 0);
    assert.equal(await client.health.isHealthy(), true);
    assert.equal(await client.metadata.set("colour", "blue"), true);
    const metadata = await client.metadata.get();
    assert.equal(metadata.id, "shop");
    assert.equal(metadata.extended.colour, "blue");
    assert.deepEqual(metadata.components.map((c) => [c.name, c.type, c.version]).sort(), [
      ["store", "bindings.localstorage", "v1"], ["tick", "bindings.cron", "v1"],
    ]);
  } finally {
    await stop();
    remove();
  }
});

test("errors say what is wrong", async () => {
  const { dir, remove } = scratch();
  const { client, stop, url } = await start(dir, [buses(dir)["pubsub.in-memory"]], async () => {});
  try {
    const { error } = await client.pubsub.publish("nobody", "t", { n: 1 });
    assert.match(String(error), /ERR_PUBSUB_NOT_FOUND/);
    const answer = await fetch(`${url}/bindings/nobody`, { method: "POST", body: '{"operation":"create"}' });
    assert.equal(answer.status, 500);
    assert.equal((await answer.json()).errorCode, "ERR_INVOKE_OUTPUT_BINDING");
  } finally {
    await stop();
    remove();
  }
});
