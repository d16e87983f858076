// Locks and configuration, as the JavaScript SDK offers them, over one protocol.
import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { component, eventually, run } from "./sidecar.js";

/** Declares the tests of one protocol. */
export function storeCases(protocol) {
  test(`${protocol}: locks`, () => run({ protocol, documents: () => [component("locks", "lock.sqlite")] }, async ({ client: { lock } }) => {
    const take = async (owner) => (await lock.lock("locks", "file", owner, 60)).success;
    const release = async (owner) => (await lock.unlock("locks", "file", owner)).status;
    assert.equal(await take("ann"), true);
    assert.equal(await take("bob"), false);
    const foreign = await release("bob");
    assert.equal(await take("bob"), false, "a foreign unlock gave the lock free");
    const own = await release("ann");
    assert.notEqual(own, foreign);
    assert.equal(await take("bob"), true);
  }));

  const documents = (dir) => {
    writeFileSync(join(dir, "settings.json"), JSON.stringify({ colour: { value: "blue", version: "1" }, size: "small" }));
    return [component("settings", "configuration.file", { path: join(dir, "settings.json") })];
  };
  test(`${protocol}: configuration`, () => run({ protocol, documents }, async ({ client: { configuration }, dir }) => {
    if (protocol === "HTTP") { // the SDK has it over gRPC only
      await assert.rejects(async () => configuration.get("settings", ["colour"]), /not supported|HTTP/i);
      return;
    }
    const { items } = await configuration.get("settings", ["colour", "never"]);
    assert.deepEqual([Object.keys(items), items.colour.value, items.colour.version], [["colour"], "blue", "1"]);
    const told = [];
    const stream = await configuration.subscribeWithKeys("settings", ["colour"], async ({ items }) => void told.push(items.colour?.value));
    let n = 0; // the SDK does not tell when the subscription has begun
    await eventually("a change", () => {
      writeFileSync(join(dir, "new.json"), JSON.stringify({ colour: `green ${++n}` }));
      renameSync(join(dir, "new.json"), join(dir, "settings.json"));
      return told.some((value) => value.startsWith("green"));
    });
    await stream.stop();
  }));
}
