// Starts a real penstock beside an app made with the SDK.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommunicationProtocolEnum, DaprClient, DaprServer, LogLevel } from "@dapr/dapr";

const binary = process.env.PENSTOCK ?? join(import.meta.dirname, "../../../bin/penstock");

/** One Component document. JSON is YAML too. */
export function component(name, type, options = {}) {
  const metadata = Object.entries(options).map(([name, value]) => ({ name, value }));
  return JSON.stringify({ apiVersion: "dapr.io/v1alpha1", kind: "Component", metadata: { name }, spec: { type, version: "v1", metadata } });
}

/** The document of a pub/sub named "bus" of a type. */
export function bus(dir, type) {
  return component("bus", type, type === "pubsub.sqlite" ? { connectionString: join(dir, "bus.db") } : {});
}

const given = new Set();

async function freePort() {
  for (;;) {
    // Below the ports that the system gives to who asks for any.
    const port = 15000 + Math.floor(Math.random() * 17000);
    if (given.has(port)) continue;
    given.add(port);
    const server = createServer();
    const free = await new Promise((done) => {
      server.once("error", () => done(false));
      server.listen(port, "127.0.0.1", () => done(true));
    });
    if (!free) continue;
    await new Promise((done) => server.close(done));
    return String(port);
  }
}

/** A penstock process, which can be ended and started again as it was. */
class Penstock {
  log = "";

  constructor(args, environment) {
    this.args = args;
    this.environment = environment;
  }

  start() {
    this.process = spawn(binary, this.args, { env: { ...process.env, ...this.environment } });
    this.process.stdout.on("data", (chunk) => (this.log += chunk));
    this.process.stderr.on("data", (chunk) => (this.log += chunk));
    this.ended = new Promise((done) => this.process.once("exit", (code) => done(code)));
  }

  /** Ends the process and returns its exit code, null when it was killed. */
  async end(signal = "SIGTERM") {
    this.process.kill(signal);
    return await this.ended;
  }
}

/**
 * Runs work() beside a penstock and an app that register() gave its handlers,
 * all speaking one protocol, "HTTP" or "GRPC". Documents and, where they depend
 * on it, flags are made from the folder of resources. Whatever comes of it, all is
 * ended; a penstock that ends badly is an error.
 */
export async function run({ protocol, documents, register = async () => {}, flags = [], environment = {}, token }, work) {
  const dir = mkdtempSync(join(tmpdir(), "penstock-node-"));
  const [serverPort, http, grpc] = [await freePort(), await freePort(), await freePort()];
  writeFileSync(join(dir, "resources.yaml"), documents(dir).join("\n---\n"));
  const communicationProtocol = CommunicationProtocolEnum[protocol];
  const logger = { level: LogLevel.Error, service: new Silent() };
  const daprPort = protocol === "GRPC" ? grpc : http;
  const options = (daprApiToken) => ({ daprHost: "127.0.0.1", daprPort, communicationProtocol, logger, daprApiToken });
  const server = new DaprServer({
    serverHost: "127.0.0.1", serverPort, communicationProtocol, clientOptions: options(token), logger,
  });
  await register(server);
  const penstock = new Penstock([
    "serve", "--app-id", "shop", "--app-port", serverPort, "--app-protocol", protocol.toLowerCase(),
    "--dapr-http-port", http, "--dapr-grpc-port", grpc, "--resources-path", dir, "--data-dir", join(dir, "data"),
    ...(typeof flags === "function" ? flags(dir) : flags),
  ], environment);
  penstock.start();
  const clients = [];
  const newClient = (token) => {
    const client = new DaprClient(options(token));
    clients.push(client);
    return client;
  };
  const ready = () => eventually("penstock is ready", async () => {
    const answer = await fetch(`http://127.0.0.1:${http}/v1.0/healthz`).catch(() => undefined);
    return answer?.status === 204;
  });
  try {
    await server.start();
    await ready();
    const restart = async (signal) => {
      const code = await penstock.end(signal);
      penstock.start();
      await ready();
      return code;
    };
    await work({ client: newClient(token), newClient, restart, penstock, dir, url: `http://127.0.0.1:${http}/v1.0` });
    const code = await penstock.end();
    if (code !== 0) throw new Error(`penstock ended with ${code}`);
  } catch (error) {
    console.error(penstock.log);
    throw error;
  } finally {
    await penstock.end("SIGKILL");
    for (const client of clients) await client.stop();
    await server.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Runs app.js with "penstock run", which gives it its environment. */
export async function runApp(protocol, documents) {
  const dir = mkdtempSync(join(tmpdir(), "penstock-node-"));
  writeFileSync(join(dir, "resources.yaml"), documents(dir).join("\n---\n"));
  const child = spawn(binary, [
    "run", "--app-id", "shop", "--dapr-http-port", await freePort(), "--dapr-grpc-port", await freePort(),
    "--resources-path", dir, "--data-dir", join(dir, "data"), "--", process.execPath, join(import.meta.dirname, "app.js"), protocol,
  ], { env: { ...process.env, DAPR_API_TOKEN: "sesame" } });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  child.stderr.on("data", (chunk) => (output += chunk));
  const code = await new Promise((done) => child.once("close", done));
  rmSync(dir, { recursive: true, force: true });
  return { code, output };
}

/** Keeps the SDK from writing; its errors are given to its callers as well. */
class Silent {
  error() {}
  warn() {}
  info() {}
  verbose() {}
  debug() {}
}

/** Polls until ok() is true, for at most half a minute. */
export async function eventually(what, ok) {
  const end = Date.now() + 30_000;
  while (!(await ok())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
