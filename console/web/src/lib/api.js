// What the page asks of Penstock. The cookie goes along by itself; the key that
// belongs to it is in this page's own storage.

const keyName = 'penstock-console-key'

export class Refused extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

async function refused(response) {
  let message = `${response.status} ${response.statusText}`
  try {
    message = (await response.json()).message || message
  } catch {
    // no JSON: the status says it
  }
  return new Refused(response.status, message)
}

function headers(more) {
  return { 'Penstock-Console': localStorage.getItem(keyName) ?? '', ...more }
}

// ask makes one request and returns the JSON of the answer, null when there is none.
export async function ask(method, path, body, more = {}) {
  const response = await fetch(path, {
    method,
    headers: headers(body === undefined ? more : { 'Content-Type': 'application/json', ...more }),
    body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
  })
  if (!response.ok) throw await refused(response)
  const text = await response.text()
  return text === '' ? null : JSON.parse(text)
}

// item reads one key of a state store: its text as it is, for numbers may not
// fit into what JavaScript has, its ETag and when it expires. Null: there is none.
export async function item(path) {
  const response = await fetch(path, { headers: headers() })
  if (!response.ok) throw await refused(response)
  if (response.status === 204) return null
  return { text: await response.text(), etag: response.headers.get('ETag') ?? '', expires: response.headers.get('metadata.ttlExpireTime') ?? '' }
}

// lines calls each for every JSON document of an answer that goes on.
export async function lines(method, path, body, each) {
  const response = await fetch(path, {
    method, headers: headers({ 'Content-Type': 'application/json', Accept: 'application/x-ndjson' }), body: JSON.stringify(body),
  })
  if (!response.ok) throw await refused(response)
  await read(response, '\n', (line) => line.trim() && each(JSON.parse(line)))
}

// watch calls each for every server-sent event, until the signal ends it or the
// connection breaks. An EventSource could not send the key.
export async function watch(path, signal, each) {
  const response = await fetch(path, { headers: headers({ Accept: 'text/event-stream' }), signal })
  if (!response.ok) throw await refused(response)
  await read(response, '\n\n', (block) => {
    let name = 'message'
    const data = []
    for (const line of block.split('\n')) {
      if (line.startsWith('event:')) name = line.slice(6).trim()
      else if (line.startsWith('data:')) data.push(line.slice(5).trimStart())
    }
    if (data.length > 0) each(name, JSON.parse(data.join('\n')))
  })
}

async function read(response, separator, each) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) break
    rest += value
    const parts = rest.split(separator)
    rest = parts.pop()
    for (const part of parts) each(part)
  }
  if (rest.trim() !== '') each(rest)
}

// signIn exchanges the token behind # for a session, and forgets it.
export async function signIn(token) {
  const about = await ask('POST', '/session', { token })
  localStorage.setItem(keyName, about.key)
  return about
}

// session tells about the instance, and renews a session that is half over.
export async function session() {
  const about = await ask('GET', '/session')
  localStorage.setItem(keyName, about.key)
  return about
}

export async function signOut() {
  await ask('DELETE', '/session')
  localStorage.removeItem(keyName)
}

export const segments = (name) => name.split('/').map(encodeURIComponent).join('/')
