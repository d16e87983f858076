// What is going on, polled once a second while somebody looks.
import { ask, session, signIn, signOut, Refused } from './api.js'

const every = 1000
const seconds = 180 // of history

const zero = { delivered: 0, deadLettered: 0, dropped: 0, retried: 0, givenBack: 0 }

class Live {
  state = $state('starting') // starting, out (nobody is signed in), up, lost
  why = $state('')
  about = $state.raw({})
  routes = $state.raw([])
  meta = $state.raw({ components: [], subscriptions: [], circuitBreakers: [], extended: {} })
  rates = $state.raw(new Map()) // by route, per second
  history = $state.raw([[], [], [], []]) // time, delivered, retried, dead
  now = $state(Date.now())
  toasts = $state([])

  #before = new Map()
  #at = 0
  #started = ''
  #round = 0
  #timer = 0

  async begin() {
    const token = new URLSearchParams(location.hash.slice(1)).get('token')
    if (token !== null) history.replaceState(null, '', location.pathname + '#/map')
    try {
      if (token !== null) this.#met(await signIn(token))
      else this.#met(await session())
    } catch (e) {
      this.#failed(e)
    }
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.poll()
    })
    this.poll()
  }

  #met(about) {
    if (this.#started !== '' && about.started !== this.#started) this.say(`Penstock was started again at ${new Date(about.started).toLocaleTimeString()}`)
    this.#started = about.started
    this.about = about
    this.state = 'up'
    this.why = ''
    document.title = `${about.appId} · Penstock`
  }

  #failed(e) {
    if (e instanceof Refused && (e.status === 401 || e.status === 403)) {
      this.state = 'out'
    } else {
      this.state = 'lost'
    }
    this.why = e.message
  }

  async poll() {
    clearTimeout(this.#timer)
    if (document.hidden) return
    const began = Date.now()
    this.now = began
    try {
      if (this.state !== 'out') await this.#read()
    } catch (e) {
      this.#failed(e)
    }
    this.#timer = setTimeout(() => this.poll(), Math.max(100, every - (Date.now() - began)))
  }

  async #read() {
    const looked = this.#round++ % 5 === 0 || this.state !== 'up'
    if (looked) this.#met(await session())
    const [{ routes }, meta] = await Promise.all([
      ask('GET', '/v1.0-penstock/routes?window=10s'), looked || this.meta.components.length === 0 ? ask('GET', '/v1.0/metadata') : this.meta,
    ])
    this.meta = meta
    this.#count(routes)
    this.routes = routes
  }

  // refresh reads at once, after something was done.
  refresh() {
    this.#round = 0
    setTimeout(() => this.poll(), 550)
  }

  #count(routes) {
    const now = Date.now()
    const time = (now - this.#at) / 1000
    const known = this.#at > 0 && time < 30
    const rates = new Map()
    const all = { ...zero }
    for (const r of routes) {
      const was = this.#before.get(r.name)
      const now = {}
      for (const k in zero) {
        // A route that was started anew counts from zero.
        now[k] = known && was && r[k] >= was[k] ? (r[k] - was[k]) / time : 0
        if (!r.name.startsWith('deadletters/')) all[k] += now[k]
      }
      rates.set(r.name, now)
    }
    this.#before = new Map(routes.map((r) => [r.name, r]))
    this.#at = now
    this.rates = rates
    if (known) {
      const [t, d, re, dead] = this.history
      const add = (list, v) => [...list.slice(-seconds + 1), v]
      this.history = [add(t, now / 1000), add(d, all.delivered), add(re, all.retried), add(dead, all.deadLettered)]
    }
  }

  // act does something, and says when it does not work.
  async act(what, f) {
    try {
      const result = await f()
      this.refresh()
      return result ?? true
    } catch (e) {
      this.say(`${what}: ${e.message}`, true)
      if (e instanceof Refused && e.status === 401) this.#failed(e)
      return undefined
    }
  }

  #toast = 0
  say(text, bad = false) {
    const id = ++this.#toast
    this.toasts = [...this.toasts.slice(-3), { id, text, bad }]
    setTimeout(() => this.hush(id), bad ? 15000 : 6000)
  }

  hush(id) {
    this.toasts = this.toasts.filter((t) => t.id !== id)
  }

  async leave() {
    await this.act('sign out', signOut)
    this.state = 'out'
    this.why = 'You have signed out.'
  }
}

export const live = new Live()

// where is the page's own address: #/view/argument.
class Where {
  view = $state('map')
  arg = $state('')

  constructor() {
    this.#read()
    addEventListener('hashchange', () => this.#read())
  }

  #read() {
    const parts = location.hash.replace(/^#\/?/, '').split('/')
    this.view = parts[0] || 'map'
    try {
      this.arg = decodeURIComponent(parts.slice(1).join('/'))
    } catch {
      this.arg = ''
    }
  }

  go(view, arg = '') {
    location.hash = link(view, arg)
  }
}

export const link = (view, arg = '') => `#/${view}${arg ? '/' + encodeURIComponent(arg) : ''}`
export const where = new Where()
