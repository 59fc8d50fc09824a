import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import * as v from 'valibot'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { int8 } from '../../../src/database/statement.ts'
import { formatLoginEvent } from '../../../src/wire/login-event.ts'
import { AuthdClient, loginFrom, publicAddress } from '../../harness/authd/authd-client.ts'
import { databaseSettings } from '../../harness/authd/authd-settings.ts'
import { bsdStamp } from '../../harness/authd/bsd-stamp.ts'
import { eventually } from '../../harness/eventually.ts'
import { storedGrants } from '../../harness/postgres/stored-grants.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { run } from '../../harness/processes/program.ts'
import { describeWith, ROOT } from '../../harness/runner/describe-with.ts'
import { commandOf, Stack, type TestSettings } from '../../harness/stack.ts'

let database: TestDatabase
let stack: Stack

beforeEach(async () => {
  database = await createTestDatabase()
  stack = new Stack()
  stack.showLogsOnFailure()
})
afterEach(async () => {
  await stack.stop()
  await database.remove()
})

function configure(settings: TestSettings = {}): void {
  stack.configure({
    ...databaseSettings(database.connection('pop3authd')),
    ...settings,
    authd: {
      socket: `${stack.directory}/run/authd.sock`,
      usage_socket: `${stack.directory}/run/usage.sock`,
      ...settings['authd'],
    },
  })
}
const start = (settings: TestSettings = {}) => {
  configure(settings)
  return stack.start('authd')
}
const announcer = () => AuthdClient.connect(`${stack.directory}/run/authd.sock`)

/** Sends lines to the TCP listener, then ends the connection. */
async function sendSyslog(lines: readonly string[]): Promise<void> {
  const socket = createConnection({ host: '127.0.0.1', port: stack.port('authd', 0, 'syslog') })
  await new Promise<void>(resolve => socket.end(lines.map(line => `${line}\n`).join(''), () => resolve()))
}

describe('the login socket', () => {
  it('grants no proxy of the current settings, and stores the list of proxies in the database', async () => {
    const published = async (): Promise<readonly string[]> => {
      const row = v.object({ net: v.string() })
      const { rows } = await database.owner.query({ text: 'SELECT host(net) AS net FROM relay_ungrantable', row })
      return rows.map(({ net }) => net)
    }
    await start({ popup: { proxy_trust: ['203.0.113.9'] } })
    const client = await announcer()
    const refused = { verdict: 'refused', reason: 'proxy' }
    const committed = { verdict: 'committed' }
    expect(await client.announce(loginFrom('1.1', '203.0.113.9'))).toMatchObject(refused)
    expect(await client.announce(loginFrom('1.2', '64:ff9b::203.0.113.9'))).toMatchObject(refused)
    expect(await client.announce(loginFrom('1.3', '203.0.113.10'))).toMatchObject(committed)
    await eventually('the proxy is published', async () => (await published()).includes('203.0.113.9'))

    configure({ wrap: { proxy_trust: ['203.0.113.10'] } })
    stack.program('authd').signal('SIGHUP')
    await stack.waitForLog('authd', { event: 'settings_reloaded' })
    expect(await client.announce(loginFrom('2.1', '203.0.113.9'))).toMatchObject(committed)
    expect(await client.announce(loginFrom('2.2', '203.0.113.10'))).toMatchObject(refused)
    await eventually('the other proxy is published alone', async () => {
      const networks = await published()
      return networks.includes('203.0.113.10') && !networks.includes('203.0.113.9')
    })
    client.close()
  })

  it('answers committed when the grant is in the table, for many events in flight', async () => {
    await start({ '': { log_level: 'debug' }, grants: { exp_time: 600 } })
    const client = await announcer()
    const events = Array.from({ length: 500 }, (_, n) => loginFrom(`1.${n}`, publicAddress(n)))
    const answers = await Promise.all(events.map(event => client.announce(event)))
    const stored = await storedGrants(database.owner)
    for (const [index, answer] of answers.entries()) {
      const grant = stored.get(publicAddress(index))
      expect(answer).toMatchObject({ verdict: 'committed', id: `1.${index}` })
      if (answer.verdict === 'committed') expect(answer.until).toBe(Math.floor((grant?.until.getTime() ?? 0) / 1000))
    }
    await stack.waitForLog('authd', {
      event: 'grant_stored',
      id: '1.499',
      ip: publicAddress(499),
      source: 'socket',
      user: 'ann',
    })
    client.close()
  })

  it('refuses loopback with a reason', async () => {
    await start()
    const client = await announcer()
    expect(await client.announce(loginFrom('1.1', '127.0.0.1'))).toEqual({
      verdict: 'refused',
      id: '1.1',
      reason: 'loopback',
    })
    await stack.waitForLog('authd', { event: 'grant_refused', id: '1.1', reason: 'loopback' })
    expect(await storedGrants(database.owner)).toEqual(new Map())
    client.close()
  })

  it('refuses an invalid event, logs each kind once, and keeps the connection', async () => {
    await start()
    const client = await announcer()
    const sound = formatLoginEvent(loginFrom('1.1', '203.0.113.7'))
    const bad: readonly (readonly [line: string, answer: string])[] = [
      ['hello', 'refused id=- reason=syntax'],
      [sound.replace('v=1', 'v=2'), 'refused id=1.1 reason=version'],
      [sound.replace('v=1', 'v=3'), 'refused id=1.1 reason=version'],
      [`${sound} color=red`, 'refused id=1.1 reason=key'],
      [sound.replace('203.0.113.7', '203.0.113.007'), 'refused id=1.1 reason=value'],
      ['x'.repeat(100_000), 'refused id=- reason=syntax'],
    ]
    for (const [index, [line, answer]] of bad.entries()) {
      client.write(`${line}\n`)
      expect(await client.line(index + 1)).toBe(answer)
    }
    client.write(`${sound}\n`)
    expect(await client.line(bad.length + 1)).toMatch(/^ok id=1\.1 committed until=\d+$/)
    const complaints = stack.log('authd').filter(({ fields }) => fields['event'] === 'announcement_invalid')
    expect(complaints.map(({ fields }) => fields['reason'])).toEqual(['syntax', 'version', 'key', 'value'])
    client.close()
  })
})

describeWith([ROOT], 'accounts that may announce', () => {
  const connectAs = (uid: number): string =>
    spawnSync(
      process.execPath,
      [
        '-e',
        `const s = require('net').connect(${JSON.stringify(`${stack.directory}/run/authd.sock`)});
         s.on('connect', () => s.write(${JSON.stringify(`${formatLoginEvent(loginFrom('9.9', '203.0.113.9'))}\n`)}));
         s.on('data', d => { process.stdout.write(d); s.destroy() }).on('error', e => process.stdout.write(e.code)).on('close', () => process.stdout.write('|closed'))`,
      ],
      { uid, gid: uid, encoding: 'utf8', cwd: '/', timeout: 20_000 },
    ).stdout

  it('refuses every account but that of authd, unless the settings name the account', async () => {
    await start()
    expect(connectAs(61_250)).toMatch(/^EACCES/)
    expect(connectAs(0)).toMatch(/^ok id=9\.9 committed/)
    await stack.stopPrograms()
    await start({ authd: { socket_users: ['61250'] } })
    expect(connectAs(61_250)).toMatch(/^ok id=9\.9 committed/)
    expect(connectAs(61_251), 'another account is refused').toMatch(/^(EPIPE|ECONNRESET)?\|closed$/)
    await stack.waitForLog('authd', { event: 'peer_refused' })
  })
})

describe('syslog by TCP', () => {
  const login = (ip: string): string => `<22>${bsdStamp()} mx ipop3d[7]: Login user=ann host=[${ip}] nmsgs=1/1`
  const tcp = { syslog_listen: ['127.0.0.1:0'], check_daemon_ipop3d: true }

  it('takes 20,000 lines at full speed and loses none', async () => {
    await start({ authd: tcp })
    await sendSyslog(Array.from({ length: 20_000 }, (_, n) => login(publicAddress(n))))
    const row = v.object({ grants: int8 })
    const grants = async (): Promise<number | undefined> =>
      (await database.owner.query({ text: 'SELECT count(*) AS grants FROM grants', row })).rows[0]?.grants
    await eventually('20,000 grants', async () => (await grants()) === 20_000, 60_000)
  })

  it('accepts messages with an octet count, and closes a connection without a valid framing', async () => {
    await start({ authd: tcp })
    const socket = createConnection({ host: '127.0.0.1', port: stack.port('authd', 0, 'syslog') })
    const message = login('203.0.113.7')
    socket.write(`${message.length} ${message}oops `)
    await new Promise(resolve => socket.once('close', resolve))
    await eventually('the grant is stored', async () => (await storedGrants(database.owner)).has('203.0.113.7'))
    await stack.waitForLog('authd', { event: 'syslog_framing_invalid' })
  })

  it('listens only on loopback', async () => {
    configure({ authd: { syslog_listen: ['0.0.0.0:0'] } })
    const authd = await run(commandOf('authd', '--config', stack.config))
    expect(authd.ending?.code).toBe(100)
    expect(authd.lines.at(-1)).toContain('authd.syslog_listen: 0.0.0.0:0 can be reached from elsewhere')
  })
})

describe('faults at the start', () => {
  it.each([
    ['/nonexistent/fifo', 'mkfifo -m 600 /nonexistent/fifo'],
    ['/etc/passwd', 'is not a FIFO'],
    ['/etc', 'not a FIFO'],
  ])('syslog_fifo = %s: exit 100, %s', async (fifo, words) => {
    configure({ authd: { syslog_fifo: fifo } })
    const authd = await run(commandOf('authd', '--config', stack.config))
    expect(authd.ending?.code).toBe(100)
    expect(authd.lines.join('\n')).toContain(words)
  })
})

describe('life of the process', () => {
  const numbers = async (): Promise<string> =>
    (await fetch(`http://127.0.0.1:${stack.port('authd', 0, 'metrics')}/metrics`)).text()

  it('reads its settings again at SIGHUP, and logs its counts at SIGUSR1', async () => {
    const authd = await start({ authd: { syslog_listen: ['127.0.0.1:0'] } })
    const line = `${bsdStamp()} mx ipop3d[7]: Login user=ann host=[203.0.113.7] nmsgs=1/1`
    await sendSyslog([line])
    await eventually('the line is counted', () => {
      authd.signal('SIGUSR1')
      return stack.log('authd').some(({ fields }) => fields['ignored'] === 'ipop3d:1')
    })
    configure({ authd: { syslog_listen: ['127.0.0.1:0'], check_daemon_ipop3d: true } })
    authd.signal('SIGHUP')
    await stack.waitForLog('authd', { event: 'settings_reloaded' })
    await sendSyslog([line])
    await eventually('the grant is stored', async () => (await storedGrants(database.owner)).has('203.0.113.7'))
    // An invalid file changes nothing.
    writeFileSync(stack.config, 'configured = maybe')
    authd.signal('SIGHUP')
    await stack.waitForLog('authd', {
      event: 'reload_failed',
      trigger: 'signal',
      reason: /auth-relay.toml:1: invalid value/,
    })
    await sendSyslog([line.replace('203.0.113.7', '203.0.113.8')])
    await eventually('the other grant is stored', async () => (await storedGrants(database.owner)).has('203.0.113.8'))
    expect((await authd.stop()).code).toBe(0)
  })

  it('sweeps ended grants', async () => {
    await start({ grants: { exp_time: 1, alrm_time: 1 } })
    const client = await announcer()
    await client.announce(loginFrom('1.1', '203.0.113.7'))
    await stack.waitForLog('authd', { event: 'grants_swept', grants: '1' })
    expect(await storedGrants(database.owner)).toEqual(new Map())
    client.close()
  })

  it('exports its metrics to Prometheus on loopback', async () => {
    await start({ grants: { alrm_time: 1 }, authd: { metrics_listen: '127.0.0.1:0', syslog_listen: ['127.0.0.1:0'] } })
    await sendSyslog(['Mar  5 10:11:12 mx cron[7]: nothing', 'Mar  5 10:11:12 mx cron[7]: nothing', 'no syslog line'])
    await eventually('a sweep is counted', () => numbers().then(text => !text.includes('authd_sweeps_total 0')))
    const client = await announcer()
    await client.announce(loginFrom('1.1', '203.0.113.7'))
    await client.announce(loginFrom('1.2', '127.0.0.1'))
    const text = await numbers()
    expect(text).toContain('authd_events_total{source="socket",verdict="committed"} 1')
    expect(text).toContain('authd_events_total{source="socket",verdict="refused"} 1')
    expect(text).toContain('authd_lines_total{source="tcp"} 3')
    expect(text).toContain('authd_ignored_lines_total{tag="cron"} 2')
    expect(text).toContain('authd_ignored_lines_total{tag="-"} 1')
    expect(text).toContain('authd_queue_length 0')
    expect(text).toMatch(/^authd_sweeps_total [1-9]/m)
    expect(text).toContain('authd_grants_live 1')
    expect(text).toContain('authd_database_up 1')
    expect(text).toContain('authd_commit_seconds_count 2')
    expect((await fetch(`http://127.0.0.1:${stack.port('authd', 0, 'metrics')}/`)).status).toBe(404)
    client.close()
  })

  it('stores the uses that the gate reports', async () => {
    await start()
    const socket = createConnection({ path: `${stack.directory}/run/usage.sock` })
    socket.end('nonsense\nuse v=1 ip=203.0.113.7 at=1764000000 door=gate\n')
    const text = 'SELECT host(ip) AS ip, service, extract(epoch FROM at)::int AS at FROM usage_event'
    await eventually('the usage event is stored', async () => {
      const { rows } = await database.owner.query({
        text,
        row: v.object({ ip: v.string(), service: v.string(), at: v.number() }),
      })
      return rows.some(({ ip, service, at }) => ip === '203.0.113.7' && service === 'gate' && at === 1_764_000_000)
    })
  })
  it('adds up the decisions that the gate reports', async () => {
    await start({ authd: { metrics_listen: '127.0.0.1:0' } })
    const socket = createConnection({ path: `${stack.directory}/run/usage.sock` })
    // Decisions of one minute, as old as a gate's report can be.
    const at = Math.floor(Date.now() / 60_000) * 60
    const line = `tally v=1 at=${at} door=policy relayed=1 refused=20 undecided=3 never=0 recent=`
    socket.write(`${line}${Array.from({ length: 20 }, (_, n) => `2001:db8:1111:2222:3333:4444:5555:66${n + 10}`)}\n`)
    socket.end(`${line}192.0.2.1 more=1\n${line}\n`)
    await eventually('the counts are stored', async () => {
      const { rows } = await database.owner.query({
        text: `SELECT relayed, refused, undecided FROM gate_decisions WHERE service = 'policy' AND minute = to_timestamp(${at})`,
        row: v.object({ relayed: int8, refused: int8, undecided: int8 }),
      })
      return rows[0]?.relayed === 2 && rows[0].refused === 40 && rows[0].undecided === 6
    })
    const { rows } = await database.owner.query({
      text: "SELECT cardinality(addresses) AS n FROM gate_refusals WHERE service = 'policy'",
      row: v.object({ n: v.number() }),
    })
    expect(rows).toEqual([{ n: 20 }])
    const text = await (await fetch(`http://127.0.0.1:${stack.port('authd', 0, 'metrics')}/metrics`)).text()
    expect(text).toContain('authd_gate_decisions_total{verdict="refused"} 40')
  })
})
