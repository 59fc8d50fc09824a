import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { createInterface } from 'node:readline'
import { openDatabase } from '../../src/database/database.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import { policyOf } from '../../src/grants/grant-policy.ts'
import type { Login, UsageRecord } from '../../src/grants/grant-store.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { databaseConnection } from '../../src/settings/database-connection.ts'
import { loadSettingsFile } from '../../src/settings/settings.ts'
import { type IpAddress, parseIpAddress, parseNetwork } from '../../src/wire/ip-address.ts'
import type { RelayTally } from '../../src/wire/usage-event.ts'

/**
 * Makes the picture of the status page for the README: a demo with the logins of a small site in
 * one day, shown by Chromium.
 */

const root = new URL('../..', import.meta.url).pathname
const [target = `${root}docs/images/status-page.png`, scheme = 'light', width = '1240', height = '1500'] =
  process.argv.slice(2)

const mailboxes = [
  ['scanner@example.org', '192.0.2.41', false, 'apop'],
  ['till-1@example.org', '198.51.100.17', false, 'pass'],
  ['ann@example.org', '203.0.113.80', true, 'sasl'],
  ['bob@example.org', '203.0.113.9', true, 'pass'],
  ['printer-2@example.org', '2001:db8:4::11', true, 'pass'],
  ['carol@example.net', '198.51.100.203', true, 'sasl'],
  ['fax@example.net', '192.0.2.7', false, 'apop'],
] as const

function address(text: string): IpAddress {
  const ip = parseIpAddress(text)
  if (ip === undefined) throw new Error(`${text} is not an address`)
  return ip
}

/** Numbers that look random and are the same in each run. */
function* chance(): Generator<number, never> {
  for (let state = 42; ; state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) yield state / 2_147_483_648
}

/**
 * Logins, uses and decisions of a small office in the last twelve hours, with more of them in the
 * middle of that time.
 */
function day(now: number): { logins: Login[]; uses: UsageRecord[]; tallies: RelayTally[] } {
  const numbers = chance()
  const logins: Login[] = []
  const uses: UsageRecord[] = []
  const tallies: RelayTally[] = []
  for (let minute = 12 * 60; minute >= 0; minute--) {
    const at = new Date(now - minute * 60_000 - 20_000)
    const busy = 0.05 + 0.25 * Math.sin((Math.PI * (720 - minute)) / 900) ** 2
    // Mail from other hosts for the office itself, which needs no relay.
    const counts = { relayed: 0, refused: Math.floor(numbers.next().value * 20 * busy), undecided: 0, never: 0 }
    tallies.push({ at: Math.floor(at.getTime() / 1000), service: 'gate', counts, recent: [] })
    for (const [user, ip, tls, method] of mailboxes) {
      if (numbers.next().value > busy) continue
      const event = { id: `5f1e.${logins.length}`, ip: address(ip), daemon: 'popup', tls, method, user }
      logins.push({ event, at })
      if (numbers.next().value < 0.45)
        uses.push({ ip: address(ip), service: 'gate', at: new Date(at.getTime() + 4000) })
    }
  }
  return { logins, uses, tallies }
}

/** Logins with a blocked name, from 190 to 23 minutes ago. */
function refused(now: number): Login[] {
  return [190, 181, 172, 165, 151, 150, 139, 121, 58, 41, 23].map((minute, index) => ({
    event: {
      id: `6a20.${index}`,
      ip: address('198.51.100.66'),
      daemon: 'popup',
      tls: true,
      method: 'pass',
      user: 'dave@example.net',
    },
    at: new Date(now - minute * 60_000),
  }))
}

const directory = mkdtempSync(`${tmpdir()}/status-page-`)
const demo = spawn(process.execPath, [`${root}dist/auth-relay.js`, 'up', '--demo', '--dir', `${directory}/var`], {
  env: { ...process.env, POP3_PORT: '0', POP3S_PORT: '0', SMTP_PORT: '0', STATUS_PORT: '0' },
  stdio: ['ignore', 'pipe', 'pipe'],
})
try {
  let url = ''
  for await (const line of createInterface({ input: demo.stdout })) {
    url = /(http:\S+)/.exec(line)?.[1] ?? url
    if (line.startsWith('Nothing leaves')) break
  }
  demo.stdout.resume()
  demo.stderr.resume()
  const { settings } = loadSettingsFile(`${directory}/var/auth-relay.toml`)
  const database = openDatabase({ ...databaseConnection(settings, 'writer'), applicationName: 'picture' })
  const policy = policyOf(settings)
  const writer = createGrantWriter(database, policy)
  const admin = createGrantAdmin(database, policy)
  const term = { forSeconds: 86_400, reason: 'spam run', owner: 'root' }
  const { logins, uses, tallies } = day(Date.now())
  await writer.record(logins)
  await admin.block({ kind: 'login', login: 'dave@example.net' }, term)
  await writer.record(refused(Date.now()))
  await writer.recordUsageEvents(uses)
  await writer.recordTallies(tallies)
  const office = parseNetwork('198.51.100.128/28')
  if (office !== undefined) await admin.allow(office, { ...term, reason: 'office' })
  await database.close()

  mkdirSync(target.replace(/[^/]+$/, ''), { recursive: true })
  const { status, stderr } = spawnSync(
    'chromium',
    [
      ...['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
      ...['--disable-component-update', '--disable-sync', '--hide-scrollbars', `--user-data-dir=${directory}/chromium`],
      ...(scheme === 'dark' ? ['--blink-settings=preferredColorScheme=0'] : []),
      ...[`--window-size=${width},${height}`, '--force-device-scale-factor=1', `--screenshot=${target}`, url],
    ],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(`chromium: ${stderr}`)
  console.log(`${target}: ${Math.ceil(statSync(target).size / 1024)} KB`)
} finally {
  const ended = once(demo, 'exit')
  demo.kill('SIGTERM')
  await ended
  rmSync(directory, { recursive: true, force: true })
}
