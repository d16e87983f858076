// What the JavaScript SDK offers, unmodified, against a real penstock: every
// case over HTTP and over gRPC, those of events on each pub/sub of the build.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DaprPubSubStatusEnum } from "@dapr/dapr";
import { bus, component, eventually, run, runApp } from "./sidecar.js";

const { SUCCESS, RETRY, DROP } = DaprPubSubStatusEnum;

/** Publishes and returns the error, if any: over gRPC the SDK throws it, over HTTP it returns it. */
async function publish(client, ...args) {
  try {
    return (await client.pubsub.publish(...args)).error;
  } catch (thrown) {
    return thrown.error ?? thrown;
  }
}

const sorted = (list) => list.map((v) => JSON.stringify(v)).sort();

/** Declares the tests of one protocol. */
export function cases(protocol) {
  for (const type of ["pubsub.in-memory", "pubsub.sqlite"]) {
    const on = (name, options, work) =>
      test(`${protocol}, ${type}: ${name}`, () => run({ protocol, documents: (dir) => [bus(dir, type)], ...options }, work));
    onEach(on, type, protocol);
  }
  const once = (name, options, work) =>
    test(`${protocol}: ${name}`, () => run({ protocol, documents: (dir) => [bus(dir, "pubsub.in-memory")], ...options }, work));
  onOne(once, protocol);
}

function onEach(on, type, protocol) {
  const got = { plain: [], large: [], small: [], wild: [], headers: [], own: [] };
  on("publish, content types, routes and wildcards", {
    register: async ({ pubsub }) => {
      await pubsub.subscribe("bus", "plain", async (data, headers) => void (got.plain.push(data), got.headers.push(headers)));
      await pubsub.subscribe("bus", "own", async (data) => void got.own.push(data));
      const routes = { rules: [{ match: "event.data.total > 100", path: "/large" }], default: "/small" };
      await pubsub.subscribeWithOptions("bus", "orders", { route: routes });
      pubsub.subscribeToRoute("bus", "orders", "/large", async (data) => void got.large.push(data));
      pubsub.subscribeToRoute("bus", "orders", "/small", async (data) => void got.small.push(data));
      await pubsub.subscribe("bus", "fleet/*", async (data) => void got.wild.push(data), "wild");
    },
  }, async ({ client }) => {
    const bytes = new TextEncoder().encode("[1,2]");
    const event = { specversion: "1.0", id: "mine", source: "me", type: "made", datacontenttype: "application/json", data: { own: true } };
    for (const data of [{ hello: "world" }, "just text", [1, 2, 3], "ünïcödé ☃", bytes]) {
      assert.equal(await publish(client, "bus", "plain", data), undefined);
    }
    assert.equal(await publish(client, "bus", "own", event, { contentType: "application/cloudevents+json" }), undefined);
    assert.equal(await publish(client, "bus", "orders", { total: 250 }), undefined);
    assert.equal(await publish(client, "bus", "orders", { total: 5 }), undefined);
    assert.equal(await publish(client, "bus", "fleet/7", { car: 7 }, { metadata: { ttlInSeconds: "60" } }), undefined);
    await eventually("all events", () => got.plain.length === 5 && got.own.length && got.large.length && got.small.length && got.wild.length);
    assert.deepEqual(sorted(got.plain), sorted([{ hello: "world" }, "just text", [1, 2, 3], "ünïcödé ☃", [1, 2]]));
    assert.deepEqual([got.own, got.large, got.small, got.wild], [[{ own: true }], [{ total: 250 }], [{ total: 5 }], [{ car: 7 }]]);
    assert.match(got.headers[0].traceparent ?? "", /^00-/);
  });

  const raw = [];
  on("raw payloads", {
    register: async ({ pubsub }) => {
      await pubsub.subscribe("bus", "raw", async (data) => void raw.push(data), "raw", { rawPayload: true });
    },
  }, async ({ client }) => {
    assert.equal(await publish(client, "bus", "raw", { n: 1 }, { metadata: { rawPayload: "true" } }), undefined);
    await eventually("the event", () => raw.length);
    assert.deepEqual(raw, [{ n: 1 }]);
  });

  const seen = { tries: 0, dropped: [], dead: [] };
  on("SUCCESS, RETRY, DROP and dead letter", {
    register: async ({ pubsub }) => {
      await pubsub.subscribe("bus", "again", async () => (++seen.tries < 3 ? RETRY : SUCCESS));
      const callback = async (data) => (seen.dropped.push(data), DROP);
      await pubsub.subscribeWithOptions("bus", "bad", { callback, deadLetterTopic: "graves" });
      await pubsub.subscribe("bus", "graves", async (data) => void seen.dead.push(data));
    },
  }, async ({ client, url }) => {
    const { subscriptions } = await (await fetch(`${url}/metadata`)).json();
    assert.equal(subscriptions.find((s) => s.topic === "bad").deadLetterTopic, "graves");
    assert.equal(await publish(client, "bus", "again", { n: 1 }), undefined);
    assert.equal(await publish(client, "bus", "bad", { n: 2 }), undefined);
    await eventually("three tries and a dead letter", () => seen.tries === 3 && seen.dead.length === 1);
    assert.deepEqual([seen.dropped, seen.dead], [[{ n: 2 }], [{ n: 2 }]]);
  });

  const bulk = { got: [], single: [], refused: 0 };
  on("bulk publish and bulk subscribe", {
    register: async ({ pubsub }) => {
      const options = { maxMessagesCount: 10, maxAwaitDurationMs: 100 };
      await pubsub.subscribe("bus", "single", async (data) => void bulk.single.push(data));
      await pubsub.subscribeBulk("bus", "many", async (data) => {
        if (data.n === 3 && bulk.refused++ === 0) return RETRY;
        bulk.got.push(data.n);
      }, options);
    },
  }, async ({ client }) => {
    const numbers = Array.from({ length: 25 }, (_, n) => n);
    assert.deepEqual((await client.pubsub.publishBulk("bus", "many", numbers.map((n) => ({ n })))).failedMessages, []);
    const three = { entryID: "three", event: { n: 3 }, contentType: "application/json", metadata: {} };
    assert.deepEqual((await client.pubsub.publishBulk("bus", "single", [{ n: 1 }, "two", three])).failedMessages, []);
    await eventually("every event once", () => bulk.got.length === 25 && bulk.single.length === 3);
    assert.deepEqual(bulk.got.sort((a, b) => a - b), numbers);
    assert.equal(bulk.refused, 2);
    assert.deepEqual(sorted(bulk.single), sorted([{ n: 1 }, "two", { n: 3 }]));
    const failed = await client.pubsub.publishBulk("nobody", "many", [{ n: 1 }, { n: 2 }]);
    assert.deepEqual(failed.failedMessages.map((f) => f.message.event), [{ n: 1 }, { n: 2 }]);
    assert.match(String(failed.failedMessages[0].error), /nobody/);
  });

  const arrived = new Set();
  on("penstock is killed and stopped meanwhile", {
    register: async ({ pubsub }) => {
      await pubsub.subscribe("bus", "steady", async ({ n }) => void arrived.add(n));
    },
  }, async ({ client, restart }) => {
    let n = 0;
    for (const signal of ["SIGKILL", "SIGTERM"]) {
      let back = false;
      const restarted = restart(signal).then((code) => ((back = true), code));
      const published = [];
      for (let after = 0; after < 20; back && after++) {
        if ((await publish(client, "bus", "steady", { n: ++n })) === undefined) published.push(n);
        else await new Promise(setImmediate);
      }
      assert.equal(await restarted, signal === "SIGTERM" ? 0 : null);
      // What the durable bus confirmed arrives. Memory forgets when the process
      // ends; what came after the restart arrives there too.
      const owed = type === "pubsub.sqlite" ? published : published.slice(-20);
      await eventually("every confirmed event", () => owed.every((n) => arrived.has(n)));
    }
  });
}

function onOne(once, protocol) {
  const input = { ticks: 0, failed: 0 };
  once("bindings in and out", {
    documents: (dir) => [
      component("tick", "bindings.cron", { schedule: "@every 1s" }),
      component("store", "bindings.localstorage", { rootPath: join(dir, "out") }),
    ],
    register: async ({ binding }) => {
      await binding.receive("tick", async () => {
        input.ticks++;
        if (input.failed++ === 0) throw new Error("not this one");
      });
    },
  }, async ({ client, dir }) => {
    await client.binding.send("store", "create", { a: [1, 2] }, { fileName: "x.json" });
    assert.deepEqual(JSON.parse(readFileSync(join(dir, "out", "x.json"), "utf8")), { a: [1, 2] });
    const answer = await client.binding.send("store", "get", undefined, { fileName: "x.json" });
    assert.deepEqual(protocol === "GRPC" ? JSON.parse(Buffer.from(answer.data)) : answer, { a: [1, 2] });
    await eventually("a tick, tried again", () => input.ticks > 1);
    await assert.rejects(client.binding.send("store", "dance", { a: 1 }), /dance/);
    await assert.rejects(client.binding.send("nobody", "create", { a: 1 }), protocol === "GRPC" ? /nobody/ : /ERR_INVOKE_OUTPUT_BINDING/);
  });

  once("metadata and health", {}, async ({ client }) => {
    assert.equal(await client.health.isHealthy(), true);
    assert.equal(await client.metadata.set("colour", "blue"), true);
    const metadata = await client.metadata.get();
    assert.equal(metadata.id, "shop");
    assert.equal(metadata.extended.colour, "blue");
    assert.deepEqual(metadata.components.map((c) => [c.name, c.type, c.version]), [["bus", "pubsub.in-memory", "v1"]]);
  });

  once("secrets", {
    documents: (dir) => {
      writeFileSync(join(dir, "secrets.json"), JSON.stringify({ password: "open", nested: { key: "sesame" } }));
      return [component("vault", "secretstores.local.file", { secretsFile: join(dir, "secrets.json") })];
    },
  }, async ({ client }) => {
    assert.deepEqual(await client.secret.get("vault", "password"), { password: "open" });
    const all = await client.secret.getBulk("vault");
    assert.deepEqual({ ...all.password }, { password: "open" });
    assert.deepEqual({ ...all["nested:key"] }, { "nested:key": "sesame" });
    await assert.rejects(client.secret.get("vault", "nothing"), /nothing/);
    await assert.rejects(client.secret.get("nobody", "password"), /nobody/);
  });

  once("secrets within their scope", {
    documents: (dir) => {
      writeFileSync(join(dir, "secrets.json"), JSON.stringify({ password: "open", hidden: "canary" }));
      mkdirSync(join(dir, "config"));
      writeFileSync(join(dir, "config", "c.yaml"), JSON.stringify({
        apiVersion: "dapr.io/v1alpha1", kind: "Configuration", metadata: { name: "c" },
        spec: { secrets: { scopes: [{ storeName: "vault", defaultAccess: "allow", deniedSecrets: ["hidden"] }] } },
      }));
      return [component("vault", "secretstores.local.file", { secretsFile: join(dir, "secrets.json") })];
    },
    flags: (dir) => ["--config", join(dir, "config", "c.yaml")],
  }, async ({ client }) => {
    assert.deepEqual(await client.secret.get("vault", "password"), { password: "open" });
    for (const key of ["hidden", "HIDDEN", "Hidden"]) {
      await assert.rejects(client.secret.get("vault", key), (error) => /not allowed/.test(String(error)) && !/canary/.test(String(error)), key);
    }
    const all = await client.secret.getBulk("vault");
    assert.deepEqual(Object.keys(all), ["password"]);
  });

  once("a secret that changes", {
    documents: (dir) => {
      writeFileSync(join(dir, "secrets.json"), JSON.stringify({ folder: join(dir, "one") }));
      const store = JSON.parse(component("store", "bindings.localstorage"));
      store.spec.metadata = [{ name: "rootPath", secretKeyRef: { name: "folder" } }];
      store.auth = { secretStore: "vault" };
      return [component("vault", "secretstores.local.file", { secretsFile: join(dir, "secrets.json") }), JSON.stringify(store)];
    },
  }, async ({ client, dir }) => {
    await client.binding.send("store", "create", "x", { fileName: "before" });
    writeFileSync(join(dir, "secrets.json.new"), JSON.stringify({ folder: join(dir, "two") }));
    renameSync(join(dir, "secrets.json.new"), join(dir, "secrets.json"));
    assert.deepEqual(await client.secret.get("vault", "folder"), { folder: join(dir, "two") });
    await eventually("the binding uses the second folder", async () => {
      await client.binding.send("store", "create", "x", { fileName: "after" });
      return existsSync(join(dir, "two", "after"));
    });
    assert.ok(existsSync(join(dir, "one", "before")));
  });

  once("cryptography", {
    documents: (dir) => {
      writeFileSync(join(dir, "key"), Buffer.alloc(32, 0xfb));
      return [component("keys", "crypto.dapr.localstorage", { path: dir })];
    },
  }, async ({ client }) => {
    const options = { componentName: "keys", keyName: "key", keyWrapAlgorithm: "AES" };
    if (protocol === "HTTP") { // the SDK has it over gRPC only
      assert.throws(() => client.crypto.encrypt("data", options), /not available/);
      return;
    }
    const long = Buffer.alloc(8 << 20, "a page of a long letter\n"); // more than a message may have
    for (const data of [Buffer.from("data"), long]) {
      for (const dataEncryptionCipher of ["aes-gcm", "chacha20-poly1305"]) {
        const sealed = await client.crypto.encrypt(data, { ...options, dataEncryptionCipher });
        assert.equal(sealed.toString("latin1", 0, 15), "dapr.io/enc/v1\n");
        assert.ok(data.equals(await client.crypto.decrypt(sealed, { componentName: "keys" })));
      }
    }
    const unnamed = await client.crypto.encrypt(Buffer.from("data"), { ...options, omitDecryptionKeyName: true });
    await assert.rejects(client.crypto.decrypt(unnamed, { componentName: "keys" }), /names no key/);
    assert.equal((await client.crypto.decrypt(unnamed, { componentName: "keys", keyName: "key" })).toString(), "data");
    await assert.rejects(client.crypto.encrypt(Buffer.from("data"), { ...options, keyName: "none" }), /none/);
  });

  once("errors say what is wrong", {}, async ({ client }) => {
    const error = await publish(client, "nobody", "t", { n: 1 });
    if (protocol === "HTTP") {
      assert.match(String(error), /ERR_PUBSUB_NOT_FOUND/);
      return;
    }
    assert.equal(error.code, 3, "InvalidArgument");
    assert.match(error.rawMessage, /nobody/);
    const { value } = error.details.find((d) => d.type === "google.rpc.ErrorInfo");
    assert.ok(Buffer.from(value).includes("DAPR_PUBSUB_NOT_FOUND"));
  });

  const health = { well: false, got: [] };
  once("events wait until the app is well", {
    flags: ["--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-check-path", "/well"],
    register: async ({ pubsub, daprServer }) => {
      if (protocol === "HTTP") {
        daprServer.getServer().get("/well", (_, answer) => answer.status(health.well ? 200 : 503).end());
      } else { // the SDK's own answer is always that it is well
        const impl = daprServer.getServerImpl();
        const own = impl.healthCheck.bind(impl);
        impl.healthCheck = async (...args) => {
          if (!health.well) throw new Error("not yet");
          return own(...args);
        };
      }
      await pubsub.subscribe("bus", "t", async (data) => void health.got.push([health.well, data]));
    },
  }, async ({ client }) => {
    assert.equal(await publish(client, "bus", "t", { n: 1 }), undefined);
    health.well = true;
    await eventually("the event", () => health.got.length);
    assert.deepEqual(health.got, [[true, { n: 1 }]]);
  });

  const tokens = [];
  once("tokens of the API and of the app", {
    environment: { DAPR_API_TOKEN: "sesame", APP_API_TOKEN: "mine" },
    token: "sesame",
    register: async ({ pubsub }) => {
      await pubsub.subscribe("bus", "t", async (_, headers) => void tokens.push(headers["dapr-api-token"]));
    },
  }, async ({ client, newClient, url }) => {
    assert.equal(await publish(client, "bus", "t", { n: 1 }), undefined);
    await eventually("the event", () => tokens.length);
    assert.deepEqual(tokens, ["mine"]);
    for (const token of ["wrong", undefined]) {
      const other = newClient(token);
      other.daprClient.setIsInitialized(true); // it would wait for a minute
      const error = await publish(other, "bus", "t", { n: 1 });
      if (protocol === "GRPC") assert.equal(error.code, 16, "Unauthenticated");
      else assert.match(String(error), /401/);
    }
    assert.equal((await fetch(`${url}/metadata`)).status, 401);
  });

  once("shutdown", {}, async ({ client, penstock }) => {
    await client.sidecar.shutdown();
    assert.equal(await penstock.ended, 0);
  });

  test(`${protocol}: an app that knows no more than its environment`, async () => {
    const { code, output } = await runApp(protocol, (dir) => [bus(dir, "pubsub.in-memory")]);
    assert.equal(code, 0, output);
    assert.match(output, /published as shop/);
  });
}
