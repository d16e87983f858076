// The words of outcomes and states, with the class that colours them.

export const outcomes = {
  ack: ['delivered', 'ok'], retry: ['retry', 'warn'], giveback: ['given back', 'warn'], drop: ['dropped', ''],
  deadletter: ['dead letter', 'bad'], leave: ['left', ''], underway: ['under way', 'warn'],
}
export const states = {
  running: 'ok', paused: 'warn', failing: 'bad', waiting: 'warn', stopping: 'warn', ready: 'ok', opening: 'warn', failed: 'bad', closed: '',
  open: 'bad', 'half-open': 'warn',
}

// kind is what a route is: subscription, binding, pipeline and so on.
export const kind = (name) => name.slice(0, Math.max(0, name.indexOf('/')))
// internal routes are Penstock's own.
export const internal = (name) => ['deadletters', 'delay', 'outbox'].includes(kind(name))
