// State, as the JavaScript SDK offers it, over one protocol.
import assert from "node:assert/strict";
import { test } from "node:test";
import { component, run } from "./sidecar.js";

/** Declares the tests of one protocol. */
export function stateCases(protocol) {
  const over = (name, work) =>
    test(`${protocol}: ${name}`, () => run({ protocol, documents: () => [component("statestore", "state.in-memory")] }, work));

  over("state: save, get, bulk, delete", async ({ client: { state } }) => {
    const values = { object: { n: 1, deep: [true, null] }, text: "ünïcödé ☃", list: [1, 2], zero: 0 };
    const saved = await state.save("statestore", Object.entries(values).map(([key, value]) => ({ key, value })));
    assert.equal(saved?.error, undefined);
    for (const [key, value] of Object.entries(values)) assert.deepEqual(await state.get("statestore", key), value);
    const many = await state.getBulk("statestore", ["object", "never", "list"]);
    assert.deepEqual(many.map(({ key }) => key), ["object", "never", "list"]);
    assert.deepEqual(many[0].data, values.object);
    const gone = await state.delete("statestore", "object");
    assert.equal(gone?.error, undefined);
    assert.ok(!(await state.get("statestore", "object")));
  });

  over("state: ETags", async ({ client: { state } }) => {
    await state.save("statestore", [{ key: "a", value: "1" }]);
    const [{ etag }] = await state.getBulk("statestore", ["a"]);
    assert.ok(etag);
    const put = (value, tag) => state.save("statestore", [{ key: "a", value, etag: tag }]);
    assert.equal((await put("2", etag))?.error, undefined);
    const refused = await put("3", etag).catch((thrown) => ({ error: thrown }));
    assert.ok(refused?.error, "an old ETag is taken");
    assert.equal(String(await state.get("statestore", "a")), "2");
  });

  over("state: transactions", async ({ client: { state } }) => {
    await state.save("statestore", [{ key: "old", value: "1" }]);
    await state.transaction("statestore", [
      { operation: "upsert", request: { key: "new", value: "2" } },
      { operation: "delete", request: { key: "old" } },
    ]);
    assert.equal(String(await state.get("statestore", "new")), "2");
    assert.ok(!(await state.get("statestore", "old")));
  });
}
