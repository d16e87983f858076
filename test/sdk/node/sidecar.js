// Starts a real penstock beside an app made with the SDK.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommunicationProtocolEnum, DaprClient, DaprServer, LogLevel } from "@dapr/dapr";

const binary = process.env.PENSTOCK ?? join(import.meta.dirname, "../../../bin/penstock");

/** The in-memory and the durable bus, by type. */
export function buses(dir) {
  return {
    "pubsub.in-memory": component("bus", "pubsub.in-memory", {}),
    "pubsub.sqlite": component("bus", "pubsub.sqlite", { connectionString: join(dir, "bus.db") }),
  };
}

/** One Component document. JSON is YAML too. */
export function component(name, type, options) {
  const metadata = Object.entries(options).map(([name, value]) => ({ name, value }));
  return JSON.stringify({ apiVersion: "dapr.io/v1alpha1", kind: "Component", metadata: { name }, spec: { type, version: "v1", metadata } });
}

export function scratch() {
  const dir = mkdtempSync(join(tmpdir(), "penstock-node-"));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return String(port);
}

/**
 * Makes an app, lets register() add handlers, starts it with penstock beside it
 * and returns a client. stop() ends both; it throws when penstock did not end
 * well.
 */
export async function start(dir, documents, register, flags = []) {
  const [serverPort, daprPort] = [await freePort(), await freePort()];
  writeFileSync(join(dir, "resources.yaml"), documents.join("\n---\n"));
  const options = {
    daprHost: "127.0.0.1", daprPort, communicationProtocol: CommunicationProtocolEnum.HTTP,
    logger: { level: LogLevel.Error },
  };
  const server = new DaprServer({
    serverHost: "127.0.0.1", serverPort, communicationProtocol: CommunicationProtocolEnum.HTTP,
    clientOptions: options, logger: { level: LogLevel.Error },
  });
  await register(server);
  let log = "";
  const process = spawn(binary, [
    "serve", "--app-id", "shop", "--app-port", serverPort, "--dapr-http-port", daprPort, "--dapr-grpc-port", "0",
    "--resources-path", dir, "--data-dir", join(dir, "data"), ...flags,
  ]);
  process.stdout.on("data", (chunk) => (log += chunk));
  process.stderr.on("data", (chunk) => (log += chunk));
  const ended = new Promise((done) => process.once("exit", (code) => done(code)));
  await server.start();
  const client = new DaprClient(options);
  await eventually("penstock is ready", async () => {
    const answer = await fetch(`http://127.0.0.1:${daprPort}/v1.0/healthz`).catch(() => undefined);
    return answer?.status === 204;
  });
  const stop = async () => {
    process.kill("SIGTERM");
    const code = await ended;
    await client.stop();
    await server.stop();
    if (code !== 0) throw new Error(`penstock ended with ${code}:\n${log}`);
  };
  return { client, stop, url: `http://127.0.0.1:${daprPort}/v1.0` };
}

/** Polls until ok() is true, for at most ten seconds. */
export async function eventually(what, ok) {
  const end = Date.now() + 10_000;
  while (!(await ok())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
