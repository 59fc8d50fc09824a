import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { bsdStamp } from '../harness/authd/bsd-stamp.ts'
import { eventually } from '../harness/eventually.ts'
import { freePort } from '../harness/free-port.ts'
import { Pop3Conversation } from '../harness/pop3/pop3-conversation.ts'
import { type ProcessStatus, resourcesOf, statusOf } from '../harness/processes/process-status.ts'
import { run } from '../harness/processes/program.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { type ProgramName, TEST_IDS, TEST_PASSWORD } from '../harness/stack.ts'
import { Site } from './site.ts'
import { table } from './table.ts'

/** Limits of a client for its login and for its handshake, in seconds. */
const LOGIN_TIME = 4
const DRIP_MS = 100
/** Limit of connections of one address. */
const CAPS = { popup: 20, sslwrap: 30, wrap: 10 }
/** Number of free descriptors of a process whose clients then need more. */
const LEFT = 16
const CROWD = 48
const MANY = 10_000

let site: Site
let ports: Readonly<Record<'pop3s' | 'proxied' | 'policy' | 'socketmap' | 'query' | 'syslog' | 'metrics', number>>
beforeAll(async () => {
  ports = {
    pop3s: await freePort(),
    proxied: await freePort(),
    policy: await freePort(),
    socketmap: await freePort(),
    query: await freePort(),
    syslog: await freePort(),
    metrics: await freePort(),
  }
  const at = (port: number): string => `127.0.0.1:${port}`
  site = await Site.start(() => ({
    database: { embedded: true },
    popup: {
      proxy_listen: [at(ports.proxied)],
      proxy_trust: ['127.0.0.0/8'],
      login_time: LOGIN_TIME,
      // No proxy sends a clear-text header here, because its clients would share one limit before
      // their addresses are known.
      ssl_hack_trust: ['127.0.0.254'],
      max_per_address: CAPS.popup,
    },
    sslwrap: {
      listener: [{ listen: at(ports.pop3s), backend: at(ports.proxied), preamble: 'proxy-v2' }],
      handshake_time: LOGIN_TIME,
      max_per_address: CAPS.sslwrap,
    },
    authd: { syslog_listen: [at(ports.syslog)], metrics_listen: at(ports.metrics), check_daemon_ipop3d: true },
    wrap: {
      max_per_address: CAPS.wrap,
      policy_listen: [at(ports.policy)],
      socketmap_listen: [at(ports.socketmap)],
      query_listen: [at(ports.query)],
      smtpd_user: `${TEST_IDS.gate}`,
    },
  }))
})
beforeEach(() => site.stack.showLogsOnFailure())
afterAll(() => site?.stop())

const open = (to: number | string, localAddress?: string): Socket => {
  const socket =
    typeof to === 'string'
      ? connect(to)
      : connect({ port: to, host: '127.0.0.1', ...(localAddress === undefined ? {} : { localAddress }) })
  socket.on('error', () => {}) // the server is expected to refuse these clients
  socket.resume()
  return socket
}
const closed = (sockets: readonly Socket[]): number =>
  sockets.filter(socket => socket.destroyed || socket.readableEnded).length

/** The answer of a server to this text, up to the expected end. */
async function answer(port: number, query: string, end: RegExp): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(query)
  let received = ''
  for await (const piece of socket) {
    received += String(piece)
    if (end.test(received)) break
  }
  return received
}

/**
 * A login over TLS and one without, a query to each service, and a line of syslog all succeed in
 * time.
 */
async function everythingWorks(): Promise<void> {
  const ip = site.newcomer()
  await site.login(ip)
  const tls = Pop3Conversation.over(connect({ host: '127.0.0.1', port: ports.pop3s, localAddress: site.newcomer() }), {
    tls: true,
  })
  await tls.login('ann', TEST_PASSWORD)
  await tls.quit()
  expect(await site.mayRelay(ip)).toBe(true)
  expect(await answer(ports.query, `relay v=1 ip=${ip}\n`, /\n/)).toContain('yes')
  expect(await answer(ports.policy, `request=smtpd_access_policy\nclient_address=${ip}\n\n`, /\n\n/)).toContain(
    'action=OK',
  )
  expect(await answer(ports.metrics, 'GET /metrics HTTP/1.0\r\n\r\n', /\n/)).toContain('200 OK')
  const received = site.newcomer()
  const syslog = connect(ports.syslog, '127.0.0.1')
  syslog.end(`<22>${bsdStamp()} mx ipop3d[1]: Login user=ann host=[${received}] nmsgs=0/0\n`)
  await once(syslog.resume(), 'close')
  await eventually('the line of syslog counts', () => site.mayRelay(received), 20_000)
}

describe('a client that sends one octet at a time', () => {
  const SLOW: readonly (readonly [name: string, port: () => number | string, text: string, isCut: boolean])[] = [
    ['popup.listen', () => site.pop3, 'USER ann', true],
    ['popup.proxy_listen', () => ports.proxied, 'PROXY TCP4 192.0.2.7 192.0.2.1 1 2', true],
    ['sslwrap', () => ports.pop3s, '\x16\x03\x01\x02\0\x01\0\x01\xfc', true],
    ['wrap.policy_listen', () => ports.policy, 'request=smtpd_access_policy', false],
    ['wrap.socketmap_listen', () => ports.socketmap, '99:relay ', false],
    ['wrap.query_listen', () => ports.query, 'relay v=1 ip=', false],
    ['authd.syslog_listen', () => ports.syslog, '<22>Mar  5 10:11:12 mx ipop3d', false],
    ['authd.metrics_listen', () => ports.metrics, 'GET /metr', false],
    ['authd.socket', () => `${site.stack.directory}/run/authd.sock`, 'login v=1 id=', false],
  ]

  test('delays no other client on any listener, and is closed where a login is required', {
    timeout: 60_000,
  }, async () => {
    const slow = SLOW.map(([name, port, text, isCut]) => {
      // More clients than authd.syslog_listen accepts at once, and fewer than the limit of one
      // address on other listeners.
      const many = name === 'authd.syslog_listen' ? 70 : 9
      return { name, text, isCut, sockets: Array.from({ length: many }, () => open(port(), undefined)) }
    })
    const started = performance.now()
    let octet = 0
    const drip = setInterval(() => {
      for (const { sockets, text } of slow)
        for (const socket of sockets)
          if (!socket.destroyed) socket.write(Buffer.from(text[octet % text.length] ?? ' ', 'latin1'))
      octet += 1
    }, DRIP_MS)
    try {
      await everythingWorks()
      for (const { name, sockets, isCut } of slow.filter(each => each.isCut))
        await eventually(
          `${name} closes ${sockets.length} connections`,
          () => closed(sockets) === sockets.length || !isCut,
          2 * LOGIN_TIME * 1000,
        )
      expect(performance.now() - started).toBeLessThan(4 * LOGIN_TIME * 1000)
    } finally {
      clearInterval(drip)
      for (const { sockets } of slow) for (const socket of sockets) socket.destroy()
    }
    await everythingWorks()
  })
})

describe('a flood from one address', () => {
  test.each([
    ['popup', () => site.pop3, CAPS.popup],
    ['sslwrap', () => ports.pop3s, CAPS.sslwrap],
    ['wrap', () => site.smtp, CAPS.wrap],
  ] as const)('%s: gets no more than its share', async (program, port, cap) => {
    const sockets = Array.from({ length: 300 }, () => open(port(), '127.99.0.1'))
    await eventually('all other connections are closed', () => closed(sockets) >= 300 - cap, 20_000)
    const peak = 300 - closed(sockets)
    const other = site.newcomer()
    expect(await site.login(other)).toBeLessThan(5000)
    await eventually('another address is served', () => site.mayRelay(other), 20_000)
    expect(peak).toBeLessThanOrEqual(cap)
    for (const socket of sockets) socket.destroy()
    await site.stack.waitForLog(
      program,
      program === 'wrap'
        ? { event: 'connection_refused', reason: 'max_per_address' }
        : { event: 'connection_refused', reason: 'max_per_address' },
    )
    await eventually(
      'the places of the address are free again',
      () =>
        site.login('127.99.0.1').then(
          () => true,
          () => false,
        ),
      20_000,
    )
  })
})

describe('no descriptor is left', () => {
  const processOf = (words: string): ProcessStatus => {
    const [found] = site.processes(words)
    if (found === undefined) throw new Error(`no process ${words}`)
    return found
  }
  /**
   * Runs under the account of the process, because another account needs a capability to set its
   * limit, and root of a container lacks that capability.
   */
  const limit = async ({ pid, uids }: ProcessStatus, soft: number): Promise<void> => {
    const ids = ['setpriv', '--reuid', `${uids[0]}`, '--regid', `${uids[0]}`, '--clear-groups', '--']
    const { ending, lines } = await run([...ids, 'prlimit', '--pid', `${pid}`, `--nofile=${soft}:`])
    expect([ending?.code, lines]).toEqual([0, []])
  }
  const LISTENERS: readonly (readonly [
    name: string,
    program: ProgramName,
    words: string,
    to: () => number | string,
  ])[] = [
    ['popup.listen', 'popup', 'dist/popup.js --login', () => site.pop3],
    ['popup.proxy_listen', 'popup', 'dist/popup.js --login', () => ports.proxied],
    ['sslwrap', 'sslwrap', 'dist/sslwrap.js --worker', () => ports.pop3s],
    ['pop3d worker', 'pop3d', 'dist/pop3d.js --worker', () => `${site.stack.directory}/run/pop3d/61221-61221.sock`],
    ['wrap.query_listen', 'wrap', 'dist/wrap.js', () => ports.query],
    ['wrap.policy_listen', 'wrap', 'dist/wrap.js', () => ports.policy],
    ['wrap.socketmap_listen', 'wrap', 'dist/wrap.js', () => ports.socketmap],
    ['authd.socket', 'authd', 'dist/authd.js', () => `${site.stack.directory}/run/authd.sock`],
    ['authd.usage_socket', 'authd', 'dist/authd.js', () => `${site.stack.directory}/run/usage.sock`],
    ['authd.syslog_listen', 'authd', 'dist/authd.js', () => ports.syslog],
  ]

  test.each(LISTENERS)(
    '%s: writes a log line, and serves again with free descriptors',
    async (name, program, words, to) => {
      await everythingWorks() // a pop3d worker runs
      const target = processOf(words)
      const { pid } = target
      const soft = resourcesOf(pid).descriptors + LEFT
      const lines = (state: string): number =>
        site.stack.log(program).filter(({ fields }) => fields['event'] === `descriptors_${state}`).length
      const [exhausted, freed] = [lines('exhausted'), lines('freed')]
      await limit(target, soft)
      const sockets: Socket[] = []
      try {
        await eventually(
          `${name} logs that no descriptor is free`,
          () => {
            for (let n = 0; n < CROWD; n++)
              if (sockets[n]?.destroyed ?? true)
                sockets[n] = open(to(), typeof to() === 'string' ? undefined : site.newcomer())
            return lines('exhausted') > exhausted
          },
          20_000,
        )
      } finally {
        for (const socket of sockets) socket.destroy()
        await limit(target, MANY)
      }
      await eventually(`${name} logs that descriptors are free again`, () => lines('freed') > freed, 20_000)
      expect(statusOf(pid), 'the same process').toBeDefined()
      await everythingWorks()
    },
  )

  test('wrap.listen: a client is answered 421 or closed, and mail for local domains continues afterwards', async () => {
    const target = processOf('dist/wrap.js')
    const { pid } = target
    // The limit is below the number of open descriptors, so that the process gets none for the next
    // client.
    await limit(target, 12)
    const refused = open(site.smtp)
    const received: string[] = []
    refused.on('data', (chunk: Buffer) => received.push(chunk.toString()))
    await Promise.race([once(refused, 'close'), pause(2000)])
    expect(received.join('')).toMatch(/^(421 .*)?$/s)
    await limit(target, MANY)
    const client = SmtpConversation.over(connect(site.smtp, '127.0.0.1'))
    expect((await client.askFor('ann@example.org')).code).toBe(250)
    client.close()
    expect(statusOf(pid)).toBeDefined()
  })
})

afterAll(() => {
  if (site === undefined) return
  const { memory, descriptors, processes } = resourcesOf(site.stack.program('auth-relay').pid)
  console.log(table('after all of it', [{ processes, memory: `${(memory / 1_048_576).toFixed(0)} MB`, descriptors }]))
})
