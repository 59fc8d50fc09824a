import { mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { PrivateSyslog } from '../harness/authd/private-syslog.ts'
import { eventually } from '../harness/eventually.ts'
import { type NetworkNamespace, TestNetwork } from '../harness/hosts/network-namespace.ts'
import { Pop3Conversation } from '../harness/pop3/pop3-conversation.ts'
import { run } from '../harness/processes/program.ts'
import { command, describeWith, NETWORK_NAMESPACES } from '../harness/runner/describe-with.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS, TEST_PASSWORD } from '../harness/stack.ts'

const NEEDS = [
  NETWORK_NAMESPACES,
  command('curl'),
  command('fetchmail'),
  command('swaks'),
  command('rsyslogd', 'rsyslog'),
  command('logger', 'bsdutils'),
]
const STRANGER = 'somebody@elsewhere.example'
const SERVER = '192.0.2.1'
const SERVER_V6 = '2001:db8::1'
const MESSAGE = 'From: bob@example.org\nTo: ann@example.org\nSubject: lunch\n\nAt noon?\n'

/** Rounds of login and RCPT from fresh addresses. */
const ROUNDS = 20

describeWith(NEEDS, 'the whole stack, real clients, three hosts', () => {
  let network: TestNetwork
  let a: NetworkNamespace
  let b: NetworkNamespace
  let stack: Stack
  let syslog: PrivateSyslog

  const settings = (expTime: number) => ({
    '': { syslog: true, log_level: 'debug' },
    database: { embedded: true },
    grants: { exp_time: expTime, alrm_time: 1 },
    popup: { listen: ['*:110'] },
    sslwrap: { listener: [{ listen: '*:995', backend: '127.0.0.1:110', preamble: 'ssl' }] },
    authd: {
      user: `${TEST_IDS.authd}`,
      syslog_fifo: syslog.fifo,
      check_daemon_ipop3d: true,
      check_daemon_vchkpw: true,
      check_daemon_hacked_qmailpop3d: true,
    },
    wrap: { listen: ['*:25'] },
  })
  const up = async (expTime: number): Promise<void> => {
    stack.configure(settings(expTime))
    await stack.start('auth-relay', {
      args: ['up', '--config', stack.config],
      prefix: network.server.prefix,
      env: { PATH: `${syslog.binaries}:${process.env['PATH']}` },
    })
  }

  beforeAll(async () => {
    network = new TestNetwork(SERVER, SERVER_V6)
    a = network.client('192.0.2.10', '2001:db8::10')
    b = network.client('192.0.2.20', '2001:db8::20')
    stack = new Stack()
    stack.account('ann', [MESSAGE])
    mkdirSync(`${stack.directory}/syslog`)
    syslog = await PrivateSyslog.start(`${stack.directory}/syslog`)
    await up(600)
  })
  beforeEach(() => stack.showLogsOnFailure())
  afterAll(async () => {
    await stack.stopPrograms()
    const left = await run(['ip', 'netns', 'pids', network.server.name])
    await syslog.stop()
    await stack.stop()
    network.remove()
    expect(left.lines).toEqual([]) // no process that was started is left running
  })

  /** The gate's smtpd's reply to a recipient of another domain, for a client on `host`. */
  const askFrom = async (host: NetworkNamespace, from?: string, to = STRANGER): Promise<number> => {
    const server = from?.includes(':') === true ? SERVER_V6 : SERVER
    const client = SmtpConversation.over(
      host.connect({ host: server, port: 25, from }),
      `smtp from ${from ?? host.name}`,
    )
    const { code } = await client.askFor(to)
    await client.quit()
    return code
  }
  /** The same with swaks; returns the reply line to RCPT. */
  const swaksFrom = async (host: NetworkNamespace, server = SERVER): Promise<string> => {
    const args = ['--server', server, '--from', 'ann@example.org', '--to', STRANGER, '--quit-after', 'RCPT']
    const { lines } = await run(['swaks', ...args], { prefix: host.prefix })
    const rcpt = lines.findIndex(line => line.includes('RCPT TO'))
    return lines[rcpt + 1] ?? `output of swaks: ${lines.join('\n')}`
  }
  const curlFrom = async (host: NetworkNamespace, server: string): Promise<readonly string[]> => {
    const args = ['-sS', '--insecure', '--max-time', '20', '--user', `ann:${TEST_PASSWORD}`, `pop3s://${server}/1`]
    const { lines } = await run(['curl', ...args], { prefix: host.prefix })
    return lines
  }

  test('before any login: the own domain is accepted, another domain is refused', async () => {
    expect(await swaksFrom(b)).toMatch(/^<\*\* 55[03] /)
    expect(await askFrom(a)).toBe(553)
    expect(await askFrom(a, '2001:db8::10')).toBe(553)
    expect(await askFrom(a, undefined, 'ann@example.org')).toBe(250)
  })

  test('A opens its mailbox with curl over TLS: A may relay at once, and B and the server itself may not', async () => {
    expect(await curlFrom(a, SERVER)).toContain('Subject: lunch')
    expect(await swaksFrom(a)).toMatch(/^<- {2}250 /)
    expect(await swaksFrom(b)).toMatch(/^<\*\* 553 /)
    expect(await swaksFrom(network.server, '127.0.0.1')).toMatch(/^<\*\* 553 /)
    expect(await askFrom(network.server)).toBe(553)
  })

  test('one session id from sslwrap through popup and pop3d to authd', async () => {
    const { fields } = await stack.waitForLog('popup', {
      event: 'login_accepted',
      ip: '192.0.2.10',
      tls: '1',
      grant: 'committed',
    })
    const id = fields['id'] ?? expect.unreachable()
    for (const program of ['sslwrap', 'popup', 'pop3d', 'authd'] as const) await stack.waitForLog(program, { id })
  })

  test('the login is in syslog, in the line that existing log readers expect', async () => {
    await syslog.waitForLine(
      / qmail-pop3d\[\d+\]: authrelay v=1 ev=login ip=192\.0\.2\.10 tls=1 method=(pass|sasl) user=ann$/,
    )
  })

  test('the same over IPv6', async () => {
    expect(await askFrom(a, '2001:db8::10')).toBe(553)
    expect(await curlFrom(a, `[${SERVER_V6}]`)).toContain('Subject: lunch')
    expect(await askFrom(a, '2001:db8::10')).toBe(250)
    expect(await askFrom(b, '2001:db8::20')).toBe(553)
  })

  test('a login from the server itself opens nothing', async () => {
    expect(await curlFrom(network.server, '127.0.0.1')).toContain('Subject: lunch')
    expect(await curlFrom(network.server, SERVER)).toContain('Subject: lunch')
    expect(await swaksFrom(network.server, '127.0.0.1')).toMatch(/^<\*\* 553 /)
    expect(await askFrom(network.server)).toBe(553)
  })

  test('a wrong password opens nothing', async () => {
    a.addAddress('192.0.2.11')
    const client = Pop3Conversation.over(a.connect({ host: SERVER, port: 110, from: '192.0.2.11' }))
    await client.expect(/^\+OK /)
    await client.ask('USER ann', /^\+OK/)
    await client.ask('PASS guessed', /^-ERR/)
    client.close()
    expect(await askFrom(a, '192.0.2.11')).toBe(553)
  })

  test('fetchmail on 110 opens the relay for its host alone', async () => {
    const host = network.client('192.0.2.30')
    expect(await swaksFrom(host)).toMatch(/^<\*\* 553 /)
    const settingsFile = `${stack.directory}/fetchmailrc`
    const rule = `poll ${SERVER} service 110 protocol POP3 user "ann" password "${TEST_PASSWORD}" sslproto "" keep mda "cat >/dev/null"\n`
    writeFileSync(settingsFile, rule, { mode: 0o600 })
    const args = ['-f', settingsFile, '-v', '--nosyslog', '--pidfile', `${stack.directory}/fetchmail.pid`]
    const { lines, ending } = await run(['fetchmail', ...args, '-i', `${stack.directory}/fetchids`], {
      prefix: host.prefix,
      env: { HOME: stack.directory, USER: 'root', LANG: 'C' },
    })
    expect([ending?.code, lines.join('\n')]).toEqual([0, expect.stringContaining('1 message')])
    expect(await swaksFrom(host)).toMatch(/^<- {2}250 /)
    expect(await swaksFrom(b)).toMatch(/^<\*\* 553 /)
  })

  test(`when the client reads +OK its address may relay: ${ROUNDS} new addresses, RCPT directly after +OK`, async () => {
    const delays: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const isV6 = round % 2 === 1
      const from = isV6 ? `2001:db8::1:${round + 1}` : `192.0.2.${100 + round}`
      const server = isV6 ? SERVER_V6 : SERVER
      a.addAddress(from)
      const tls = round % 4 < 2
      const socket = a.connect({ host: server, port: tls ? 995 : 110, from })
      const pop3 = Pop3Conversation.over(socket, { tls, name: `pop3${tls ? 's' : ''} from ${from}` })
      const ok = await pop3.login('ann', TEST_PASSWORD)
      const smtp = SmtpConversation.over(a.connect({ host: server, port: 25, from }), `smtp from ${from}`)
      const { code, text, sentAt: askedAt } = await smtp.askFor(STRANGER)
      expect([from, code, text]).toEqual([from, 250, text])
      delays.push(askedAt - ok.at)
      await smtp.quit()
      await pop3.quit()
    }
    delays.sort((x, y) => x - y)
    const figures = [delays[0], delays[ROUNDS / 2], delays[ROUNDS - 1]].map(ms => `${ms?.toFixed(1)} ms`)
    console.info(`RCPT after +OK: fastest ${figures[0]}, median ${figures[1]}, slowest ${figures[2]}; all accepted`)
  })

  describe('lines of other POP3 daemons that rsyslogd writes into the FIFO', () => {
    test.each([
      [
        'ipop3d',
        41,
        'ipop3d',
        (ip: string) => `Login user=ann host=h.example.net [${ip}] nmsgs=1/1`,
        (ip: string) => `Login failed user=ann auth=ann host=h.example.net [${ip}]`,
      ],
      [
        'vchkpw',
        43,
        'vpopmail',
        (ip: string) => `vchkpw-pop3: (PLAIN) login success ann@example.org:${ip}`,
        (ip: string) => `vchkpw-pop3: password fail ann@example.org:${ip}`,
      ],
      [
        'the patched qmail-pop3d',
        45,
        'qmail-pop3d',
        (ip: string) => `authrelay v=1 ev=login ip=${ip} tls=0 method=pass user=ann`,
        (ip: string) => `authrelay v=1 ev=fail ip=${ip} tls=0 method=pass reason=badauth user=ann`,
      ],
    ])('%s', async (_name, first, tag, success, failure) => {
      const [good, bad] = [`192.0.2.${first}`, `192.0.2.${first + 1}`]
      a.addAddress(good)
      a.addAddress(bad)
      expect(await askFrom(a, good)).toBe(553)
      await syslog.log(tag, failure(bad))
      await syslog.log(tag, success(good))
      await eventually(`${good} may relay`, async () => (await askFrom(a, good)) === 250)
      // The FIFO keeps the order, so the failure was read before the success.
      expect(await askFrom(a, bad)).toBe(553)
      expect(await askFrom(b)).toBe(553)
    })

    test('IPv6 in each spelling', async () => {
      a.addAddress('2001:db8::41')
      a.addAddress('2001:db8::43')
      await syslog.log('ipop3d', 'APOP user=ann host=[2001:DB8:0:0::41] nmsgs=0/1')
      await syslog.log('vpopmail', 'vchkpw-pop3s: (APOP) login success ann@example.org:2001_db8__43', 'mail.notice')
      for (const ip of ['2001:db8::41', '2001:db8::43']) {
        await eventually(`${ip} may relay`, async () => (await askFrom(a, ip)) === 250)
      }
    })
  })

  test('after exp_time the relay is closed again; a new login opens it and moves the end', async () => {
    await stack.stopPrograms()
    await up(2)
    const ip = '192.0.2.12'
    a.addAddress(ip)
    const login = async (): Promise<number> => {
      const before = stack.log('popup').length
      const client = Pop3Conversation.over(a.connect({ host: SERVER, port: 110, from: ip }))
      await client.login('ann', TEST_PASSWORD)
      await client.quit()
      const line = await eventually('popup logs the login', () =>
        stack
          .log('popup')
          .slice(before)
          .find(({ fields }) => fields['event'] === 'login_accepted' && fields['ip'] === ip),
      )
      return Number(line.fields['until'])
    }
    const until = await login()
    await eventually('the grant has expired', async () => (await askFrom(a, ip)) === 553)
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(until - 1) // `until` is a whole second
    const again = await login()
    expect(again).toBeGreaterThan(until)
    expect(await askFrom(a, ip)).toBe(250)
    const extended = await eventually('a later login ends later', async () => {
      const later = await login()
      return later > again && later
    })
    expect(extended).toBeGreaterThan(again)
  })
})
