// Calls from app to app, as the JavaScript SDK offers them, over one protocol.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HttpMethod } from "@dapr/dapr";
import { component, run } from "./sidecar.js";

/** Declares the tests of one protocol. */
export function invokeCases(protocol) {
  const register = async (server) => {
    await server.invoker.listen("echo", async ({ body }) => ({ got: typeof body === "string" ? JSON.parse(body) : body }), { method: HttpMethod.POST });
  };
  const documents = () => [component("bus", "pubsub.in-memory")];
  test(`${protocol}: invocation`, () => run({ protocol, documents, register }, async ({ client }) => {
    assert.deepEqual(await client.invoker.invoke("shop", "echo", HttpMethod.POST, { n: 1 }), { got: { n: 1 } });
    await assert.rejects(client.invoker.invoke("shop", "nothing", HttpMethod.POST, { n: 1 }));
    await assert.rejects(client.invoker.invoke("nobody", "echo", HttpMethod.POST, { n: 1 }));
  }));
}
