// Numbers and times as people read them.

export function count(n) {
  if (n === undefined || n === null) return ''
  if (n < 10_000) return String(n)
  if (n < 1e6) return (n / 1e3).toFixed(n < 1e5 ? 1 : 0) + ' k'
  return (n / 1e6).toFixed(n < 1e7 ? 2 : 1) + ' M'
}

export function rate(n) {
  if (!n) return '0'
  if (n < 0.1) return '<0.1'
  return n < 10 ? n.toFixed(1) : count(Math.round(n))
}

export function bytes(n) {
  if (n === undefined || n === null) return ''
  if (n < 1024) return `${n} B`
  if (n < 1 << 20) return (n / 1024).toFixed(1) + ' KiB'
  return (n / (1 << 20)).toFixed(1) + ' MiB'
}

const two = (n) => String(n).padStart(2, '0')

// clock is the time of day, with milliseconds when fine.
export function clock(value, fine = false) {
  if (!value) return ''
  const t = new Date(value)
  if (isNaN(t)) return ''
  const text = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`
  return fine ? `${text}.${String(t.getMilliseconds()).padStart(3, '0')}` : text
}

// moment is date and time, without the date when it is today.
export function moment(value, fine = false) {
  if (!value) return ''
  const t = new Date(value)
  if (isNaN(t) || t.getFullYear() < 2000) return ''
  const day = `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`
  return t.toDateString() === new Date().toDateString() ? clock(value, fine) : `${day} ${clock(value, fine)}`
}

// ago is how long ago something was, or is to be.
export function ago(value, now = Date.now()) {
  if (!value) return ''
  const s = (now - new Date(value).getTime()) / 1000
  const text = span(Math.abs(s) * 1000)
  return s < 0 ? `in ${text}` : `${text} ago`
}

// span is a duration in milliseconds in its largest unit.
export function span(ms) {
  if (ms === undefined || ms === null || isNaN(ms)) return ''
  if (ms < 1) return `${Math.round(ms * 1000)} µs`
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`
  const s = ms / 1000
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 86400) return `${Math.floor(s / 3600)} h`
  return `${Math.floor(s / 86400)} d`
}

// pretty is a payload as text, indented when it is JSON. Numbers stay as they
// were sent: they may not fit into what JavaScript has.
export function pretty(text) {
  try {
    JSON.parse(text)
  } catch {
    return text
  }
  let out = ''
  let depth = 0
  let inText = false
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (inText) {
      out += c
      if (c === '\\') out += text[++i]
      else if (c === '"') inText = false
      continue
    }
    if (c === '"') {
      inText = true
      out += c
    } else if (c === '{' || c === '[') {
      const close = text.slice(i + 1).trimStart()[0]
      if (close === '}' || close === ']') {
        out += c + close
        i = text.indexOf(close, i + 1)
      } else out += c + '\n' + '  '.repeat(++depth)
    } else if (c === '}' || c === ']') out += '\n' + '  '.repeat(--depth) + c
    else if (c === ',') out += c + '\n' + '  '.repeat(depth)
    else if (c === ':') out += ': '
    else if (c.trim() !== '') out += c
  }
  return out
}
