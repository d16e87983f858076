// The rig of the console's tests: the built program with an app of its own, and
// a browser that looks at it.
import { spawn, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const penstock = process.env.PENSTOCK
if (!penstock || !existsSync(penstock)) throw new Error('PENSTOCK must name the built program; run make test-console')

export const folder = mkdtempSync(join(tmpdir(), 'penstock-console-'))
export const shots = process.env.SHOTS ?? join(folder, 'shots')
mkdirSync(shots, { recursive: true })

function freePort() {
  return new Promise((resolve, reject) => {
    const s = createSocket().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = s.address()
      s.close(() => resolve(port))
    })
  })
}

// until polls f until it is true, and says what was wanted when it never is.
export async function until(what, f, limit = 10_000) {
  for (const end = Date.now() + limit; ;) {
    const got = await f()
    if (got) return got
    if (Date.now() > end) throw new Error(`${what}: not within ${limit} ms`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

// App answers as it is told, and notes what it gets.
class App {
  orders = []
  trouble = '' // what it says beside a status that is none of success
  answer = () => ({ status: 'SUCCESS' })

  async start() {
    this.server = createServer((req, res) => {
      let body = ''
      req.on('data', (d) => (body += d)).on('end', () => {
        let out = {}
        if (req.method === 'POST' && req.url === '/orders') {
          const event = JSON.parse(body)
          const said = this.answer(event)
          if (said.status === 'SUCCESS') this.orders.push(event)
          if (typeof said === 'number') {
            res.writeHead(said).end(this.trouble)
            return
          }
          out = said
        } else if (req.method === 'POST' && req.url === '/tick') this.ticks = (this.ticks ?? 0) + 1
        res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(out))
      })
    })
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve))
    this.port = this.server.address().port
  }
}

const document = (name, type, metadata = {}) => JSON.stringify({
  apiVersion: 'dapr.io/v1alpha1', kind: 'Component', metadata: { name },
  spec: { type, version: 'v1', metadata: Object.entries(metadata).map(([name, value]) => ({ name, value })) },
})

function resources(hook, extra) {
  return [
    document('bus', 'pubsub.in-memory'),
    document('store', 'state.in-memory'),
    document('tick', 'bindings.cron', { schedule: '@every 1h' }),
    document('hook', 'bindings.webhook', { path: '/hooks/shop', listen: `127.0.0.1:${hook}`, answer: 'accepted' }),
    document('files', 'bindings.localstorage', { rootPath: join(folder, 'files') }),
    `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: quick}
spec:
  policies: {retries: {quick: {policy: constant, duration: 300ms, maxRetries: 3}}}
  targets: {components: {bus: {inbound: {retry: quick}}}}`,
    `apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: bus, topic: orders, deadLetterTopic: orders-failed, routes: {default: /orders}}`,
    `apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: hook-to-files}
spec:
  from: {binding: hook}
  steps:
    - filter: event.data.keep
    - set: {type: '"shop.kept"'}
  to:
    - binding: {name: files, operation: create, metadata: {fileName: '{{ event.id }}.json'}}
    - pubsub: {name: bus, topic: kept}`,
    ...extra,
  ].join('\n---\n')
}

// Sidecar is one Penstock with its app; it can be stopped and started again.
export class Sidecar {
  app = new App()
  log = ''

  // extra are documents beside the usual ones, only those that are there instead.
  async prepare(extra = [], only = undefined) {
    await this.app.start()
    this.dir = mkdtempSync(join(folder, 'run-'))
    ;[this.port, this.page, this.hook] = [await freePort(), await freePort(), await freePort()]
    mkdirSync(join(this.dir, 'resources'))
    writeFileSync(join(this.dir, 'resources', 'all.yaml'), only ?? resources(this.hook, extra))
    return this
  }

  // more are flags that this one has besides.
  async start(more = this.more ?? []) {
    this.more = more
    const args = ['serve', '--app-id', 'shop', '--app-port', this.app.port, '--dapr-http-port', this.port, '--dapr-grpc-port', 0, '--no-enable-metrics',
      '--console-port', this.page, '--resources-path', 'resources', '--data-dir', 'data', ...more]
    this.env = { ...process.env, HOME: this.dir, XDG_CACHE_HOME: join(this.dir, 'cache') }
    this.process = spawn(penstock, args.map(String), { cwd: this.dir, env: this.env })
    for (const out of [this.process.stdout, this.process.stderr]) out.on('data', (d) => (this.log += d))
    await until(`penstock is ready\n${this.log}`, () => fetch(`http://127.0.0.1:${this.port}/v1.0/healthz`).then((r) => r.ok, () => false), 20_000)
    return this
  }

  // url is what penstock console prints.
  url() {
    return this.command('console', '--app-id', 'shop').trim()
  }

  // command is what the program prints for the one who runs the sidecar.
  command(...args) {
    return execFileSync(penstock, args, { cwd: this.dir, env: { ...this.env, DAPR_HTTP_PORT: String(this.port) }, encoding: 'utf8' })
  }

  token() {
    return readFileSync(join(this.dir, 'data', 'console.token'), 'utf8').trim()
  }

  async stop() {
    if (!this.process) return
    const gone = new Promise((resolve) => this.process.once('exit', resolve))
    this.process.kill('SIGTERM')
    await gone
    this.process = null
  }

  async publish(topic, event) {
    const r = await fetch(`http://127.0.0.1:${this.port}/v1.0/publish/bus/${encodeURIComponent(topic)}`, {
      method: 'POST', headers: { 'Content-Type': 'application/cloudevents+json' },
      body: JSON.stringify({ specversion: '1.0', source: 'test', type: 'order.placed', datacontenttype: 'application/json', ...event }),
    })
    if (!r.ok) throw new Error(`publish: ${r.status} ${await r.text()}`)
  }

  async api(method, path, body) {
    const r = await fetch(`http://127.0.0.1:${this.port}${path}`, { method, body: body && JSON.stringify(body), headers: { 'Content-Type': 'application/json' } })
    const text = await r.text()
    if (!r.ok) throw new Error(`${method} ${path}: ${r.status} ${text}`)
    return text ? JSON.parse(text) : null
  }
}

const places = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].filter(Boolean)

export function browser() {
  const executablePath = places.find((p) => existsSync(p))
  if (!executablePath) throw new Error('there is no Chromium; install it (apt-get install chromium) or set CHROMIUM to the program')
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
}

export const axeSource = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
