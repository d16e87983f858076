// What docs/when-events-fail.md says under "The same in the console", with the
// resources of that page: an app breaks, what failed is found in the browser and
// on the command line, the app is mended, and each event is delivered once.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { browser, shots, Sidecar, until } from './rig.mjs'

const text = readFileSync(new URL('../../docs/when-events-fail.md', import.meta.url), 'utf8')
const why = 'answered 500 Internal Server Error: "the database is gone"'
let chrome, sidecar, page

before(async () => {
  const yaml = text.match(/cat > resources\/app\.yaml <<'YAML'\n(.*?)\nYAML\n/s)[1]
  sidecar = await (await new Sidecar().prepare([], yaml)).start()
  sidecar.app.trouble = 'the database is gone'
  chrome = await browser()
  page = await chrome.newPage({ viewport: { width: 1360, height: 820 } })
  page.setDefaultTimeout(10_000)
}, { timeout: 60_000 })

after(async () => {
  await chrome?.close()
  await sidecar?.stop()
  sidecar?.app.server.closeAllConnections()
  sidecar?.app.server.close()
})

const shot = (name) => page.screenshot({ path: `${shots}/story-${name}.png` })
const menu = (name) => page.getByRole('navigation').getByRole('link', { name }).click()
const order = (n) => sidecar.publish('orders', { id: `order-${n}`, data: { total: 12 } })

test('an app breaks, and nothing is lost', async () => {
  await page.goto(sidecar.url())
  await page.getByRole('link', { name: /bus\/orders subscription/ }).waitFor()
  for (const n of [1, 2, 3]) await order(n)
  await until('the first three', () => sidecar.app.orders.length === 3)

  // Break it: the menu counts what is given up.
  await menu(/^Tail/)
  await page.getByText('live', { exact: true }).waitFor()
  await page.getByLabel('Outcome').selectOption({ label: 'dead letter' })
  await page.getByText('live', { exact: true }).waitFor()
  sidecar.app.answer = () => 500
  await order(4)
  await order(5)
  for (const n of [4, 5]) await page.getByRole('link', { name: `order-${n}` }).waitFor()
  await shot('tail')

  // What is wrong? The map leads to the route, which says why.
  await menu(/^Map/)
  await page.getByRole('link', { name: /bus\/orders subscription/ }).click()
  await page.locator('.errors').getByText(why).waitFor()
  await shot('route')

  // Where is my order? Its way, and from there what was kept of it.
  await menu(/^Event/)
  await page.getByLabel('Event id').fill('order-4')
  await page.keyboard.press('Enter')
  await until('three tries', async () => (await page.locator('.rounds > li').count()) === 3)
  assert.match(await page.locator('.rounds').innerText(), /the database is gone/)
  await shot('event')
  await page.getByRole('link', { name: /^[a-z0-9]{16}$/ }).click()
  await page.locator('aside').getByText(why).waitFor()
  const shown = (await page.locator('aside dd').first().textContent()).trim()
  await shot('letter')

  // The command line says the same of it.
  const deadLetters = JSON.parse(sidecar.command('deadletters', 'list', '-o', 'json'))
  assert.deepEqual(deadLetters.map((l) => l.eventId).sort(), ['order-4', 'order-5'])
  assert.ok(deadLetters.every((l) => l.reason.includes(why) && l.attempts === 3), JSON.stringify(deadLetters))
  assert.equal(deadLetters.find((l) => l.id === shown)?.eventId, 'order-4')

  // Mend the app, replay.
  sidecar.app.answer = () => ({ status: 'SUCCESS' })
  await page.getByRole('link', { name: 'Close' }).click()
  await page.getByLabel('all', { exact: true }).check()
  await page.getByRole('button', { name: 'Replay all that match' }).click()
  await page.getByText('Replayed 2, given up again 0, left 0').waitFor()
  await page.getByText('Nothing was given up.').waitFor()
  await shot('replayed')
  assert.deepEqual(sidecar.app.orders.map((o) => o.id).sort(), [1, 2, 3, 4, 5].map((n) => `order-${n}`))
  assert.equal(sidecar.command('deadletters', 'list').trim(), 'no dead letters')
})
