import { createHash } from 'node:crypto'
import { readFileSync, renameSync, statSync } from 'node:fs'
import { connect as connectTls } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { formatProxyV2 } from '../../../src/wire/preamble.ts'
import { AuthdDouble } from '../../harness/authd/authd-double.ts'
import { eventually } from '../../harness/eventually.ts'
import { installText } from '../../harness/hosts/install-recipe.ts'
import { address } from '../../harness/hosts/network-namespace.ts'
import { childrenOf, dial, PASS, PopupClient, type PopupStack, startPopup } from '../../harness/pop3/popup-stack.ts'
import { resourcesOf } from '../../harness/processes/process-status.ts'
import { describeWith, ROOT } from '../../harness/runner/describe-with.ts'
import { TEST_IDS, TEST_PASSWORD } from '../../harness/stack.ts'

describe('popup', () => {
  let running: PopupStack
  const client = () => running.client()
  const proxied = () => running.proxied()

  beforeAll(async () => {
    running = await startPopup(stack => ({ apop_file: stack.secret('apop', 'ann:tanstaaf') }))
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())

  test('a whole session in one packet loses nothing', async () => {
    const session = client()
    session.write(`USER ann\r\n${PASS}\r\nSTAT\r\nRETR 1\r\nQUIT\r\n`)
    await session.expect(/^\+OK <[0-9a-f]+\.\d+\.\d+@mx\.example\.org>$/)
    await session.expect(/^\+OK $/)
    await session.expect(/^\+OK $/)
    await session.expect(/^\+OK 1 /)
    await session.expect(/^\+OK/)
    expect(await session.expectLinesToDot()).toEqual(['Subject: lunch', '', 'At noon?'])
    await session.expect(/^\+OK/)
    await session.expectEnd()
  })

  test('the same session octet by octet', async () => {
    const socket = dial(running.stack.port('popup'))
    socket.setNoDelay(true)
    const session = new PopupClient(socket)
    await session.expect(/^\+OK </)
    for (const character of `USER ann\r\n${PASS}\r\nNOOP\r\nQUIT\r\n`) socket.write(character)
    for (const pattern of [/^\+OK $/, /^\+OK $/, /^\+OK/, /^\+OK/]) await session.expect(pattern)
    await session.expectEnd()
  })

  test('wrong passwords and unknown logins get the same answer, and the session continues', async () => {
    const session = client()
    await session.expect(/^\+OK/)
    await session.ask('USER ann', /^\+OK $/)
    await session.ask('PASS wrong', /^-ERR \[AUTH\] authorization failed$/)
    await session.ask('USER nobody', /^\+OK $/)
    await session.ask('PASS wrong', /^-ERR \[AUTH\] authorization failed$/)
    await session.ask('USER ann', /^\+OK $/)
    await session.ask(PASS, /^\+OK/)
    await session.quit()
  })

  test('the third failure closes the connection', async () => {
    const session = client()
    await session.expect(/^\+OK/)
    for (let i = 0; i < 3; i++) {
      await session.ask('USER ann', /^\+OK $/)
      await session.ask('PASS wrong', /^-ERR \[AUTH\]/)
    }
    await session.expectEnd()
  })

  test('APOP, AUTH PLAIN and AUTH LOGIN', async () => {
    const apop = client()
    const greeting = await apop.expect(/^\+OK/)
    const timestamp = /<.*>/.exec(greeting.text)?.[0] ?? ''
    const digest = createHash('md5').update(`${timestamp}tanstaaf`).digest('hex')
    await apop.ask(`APOP ann ${digest}`, /^\+OK/)
    await apop.quit()
    const plain = client()
    await plain.expect(/^\+OK/)
    const message = Buffer.from(`\0bob\0${TEST_PASSWORD}`).toString('base64')
    await plain.ask(`AUTH PLAIN ${message}`, /^\+OK/)
    await plain.ask('STAT', /^\+OK 2 /)
    await plain.quit()
    const login = client()
    await login.expect(/^\+OK/)
    await login.ask('AUTH LOGIN', /^\+ VXNlcm5hbWU6$/)
    await login.ask(Buffer.from('ann').toString('base64'), /^\+ UGFzc3dvcmQ6$/)
    await login.ask(Buffer.from(TEST_PASSWORD).toString('base64'), /^\+OK/)
    await login.quit()
    const methods = running.authd.events.slice(-3).map(({ method }) => method)
    expect(methods).toEqual(['apop', 'sasl', 'sasl'])
  })

  test('an APOP digest over another timestamp is a wrong password', async () => {
    const session = client()
    await session.expect(/^\+OK/)
    const digest = createHash('md5').update('<1.1.1@elsewhere>tanstaaf').digest('hex')
    await session.ask(`APOP ann ${digest}`, /^-ERR \[AUTH\]/)
  })

  describe('the SSL command', () => {
    const SECRET = 'preamble of this test'

    test.each([
      ['192.0.2.77', '192.0.2.77'],
      ['[2001:db8::7]', '2001:db8::7'],
      ['[::ffff:192.0.2.8]', '192.0.2.8'],
    ])('sets %s as the client', async (host, ip) => {
      const session = client()
      await session.expect(/^\+OK </)
      await session.ask(`ssl ${host}:${SECRET}`, /^\+OK $/)
      await session.ask('USER ann', /^\+OK $/)
      await session.ask(PASS, /^\+OK/)
      const event = await eventually('the login event arrives', () =>
        running.authd.events.findLast(found => found.ip === ip),
      )
      expect(event).toMatchObject({ user: 'ann', tls: true, method: 'pass', daemon: 'popup' })
      await session.quit()
    })

    test('with a wrong password is refused after a second, while others continue', async () => {
      const session = client()
      await session.expect(/^\+OK </)
      const sentAt = session.say('SSL 192.0.2.9:wrong')
      const other = client()
      await other.login('ann')
      await other.quit()
      const answer = await session.expect(/^-ERR authorization failed$/)
      expect(answer.at - sentAt).toBeGreaterThan(950)
      await session.expectEnd()
      await running.stack.waitForLog('popup', { event: 'preamble_refused', reason: 'badpass' })
    })

    test.each(['pop.example.org', '2001:db8::1', '192.0.2.300', '0192.0.2.1', ''])(
      'of host %j is malformed',
      async host => {
        const session = client()
        await session.expect(/^\+OK </)
        await session.ask(`SSL ${host}:${SECRET}`, /^-ERR syntax error$/)
        await session.expectEnd()
      },
    )

    test('is an unknown command when it is not the first, and changes nothing', async () => {
      const session = client()
      await session.expect(/^\+OK </)
      await session.ask('NOOP', /^\+OK $/)
      await session.ask(`SSL 192.0.2.66:${SECRET}`, /^-ERR authorization first$/)
      await session.ask('USER bob', /^\+OK $/)
      await session.ask(PASS, /^\+OK/)
      expect(await running.authd.event('bob')).toMatchObject({ ip: '127.0.0.1', tls: false })
    })

    test('is refused the second time', async () => {
      const session = client()
      await session.expect(/^\+OK </)
      await session.ask(`SSL 192.0.2.10:${SECRET}`, /^\+OK $/)
      await session.ask(`SSL 192.0.2.66:${SECRET}`, /^-ERR authorization first$/)
    })
  })

  test('a PROXY header of version 1 or 2 names the client', async () => {
    const one = proxied()
    one.write(`PROXY TCP4 192.0.2.21 192.0.2.1 40000 110\r\nUSER ann\r\n${PASS}\r\n`)
    for (const pattern of [/^\+OK </, /^\+OK $/, /^\+OK/]) await one.expect(pattern)
    expect(await running.authd.event('ann')).toMatchObject({ ip: '192.0.2.21', tls: false })
    const two = proxied()
    const header = formatProxyV2(
      { ip: address('2001:db8::21'), port: 40_000 },
      { ip: address('2001:db8::1'), port: 995 },
      { uniqueId: 'abc.12', tls: { verified: false } },
    )
    two.write(header.toString('latin1'))
    await two.expect(/^\+OK <abc\.12\.\d+@mx\.example\.org>$/)
    await two.ask('USER bob', /^\+OK $/)
    await two.ask(PASS, /^\+OK/)
    expect(await running.authd.event('bob')).toMatchObject({ ip: '2001:db8::21', tls: true, id: 'abc.12' })
  })

  test.each([
    ['a plain client', 'USER ann\r\n'],
    ['a header without addresses', 'PROXY UNKNOWN\r\n'],
    ['a header that ends without CR', 'PROXY TCP4 192.0.2.21 192.0.2.1 40000 110\n'],
  ])('%s on a PROXY address is not served', async (_, text) => {
    const session = proxied()
    session.write(text)
    await session.expectEnd()
  })

  test('lines that are too long or contain NUL are refused', async () => {
    const session = client()
    await session.expect(/^\+OK/)
    await session.ask('USER a\0b', /^-ERR syntax error$/)
    await session.ask(`USER ${'x'.repeat(600)}`, /^-ERR line too long$/)
    await session.ask('USER ann', /^\+OK $/)
    await session.ask(PASS, /^\+OK/)
  })

  test('commands that a client sends before it half-closes are still answered', async () => {
    const socket = dial(running.stack.port('popup'))
    const session = new PopupClient(socket)
    socket.end(`USER ann\r\n${PASS}\r\nSTAT\r\nQUIT\r\n`)
    for (const pattern of [/^\+OK </, /^\+OK $/, /^\+OK/, /^\+OK 1 /, /^\+OK/]) await session.expect(pattern)
    await session.expectEnd()
  })

  test('no password reaches the log', async () => {
    const session = client()
    await session.expect(/^\+OK/)
    await session.ask('USER ann', /^\+OK/)
    await session.ask('PASS swordfish', /^-ERR/)
    await session.ask('AUTH PLAIN !!!swordfish', /^-ERR/)
    await session.ask('swordfish', /^-ERR/)
    await running.stack.waitForLog('popup', { event: 'login_failed', user: 'ann' })
    expect(running.stack.transcript()).not.toMatch(/swordfish|sesame|preamble of this test|tanstaaf/)
  })
})

test('a host with only POP3 and the setting of INSTALL: a login succeeds without authd, and is not announced', async () => {
  const setting = installText('By hand: start', /^\*\*POP3 alone\*\*[^`]*`([^`]+)`/m)
  expect(setting).toBe('authd.socket = ""')
  const running = await startPopup({}, { authd: { socket: '' } })
  running.stack.showLogsOnFailure()
  onTestFinished(() => running.stop())
  const session = running.client()
  await session.login('ann')
  await session.ask('STAT', /^\+OK 1 /)
  await session.quit()
  const { fields } = await running.stack.waitForLog('popup', { event: 'login_accepted', user: 'ann' })
  expect(fields['grant']).toBeUndefined()
  expect(running.authd.events).toEqual([])
  expect(running.stack.log('popup').filter(({ fields: { level } }) => level === 'warn' || level === 'error')).toEqual(
    [],
  )
})

describe('popup and the grant', () => {
  let running: PopupStack
  beforeAll(async () => {
    running = await startPopup(
      { grant_wait: 400, proxy_trust: ['127.0.0.0/8', '198.51.100.5'] },
      { grants: { never_grant: ['192.0.2.0/24'] } },
    )
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())
  const loggingIn = async (): Promise<PopupClient> => {
    const session = running.client()
    await session.expect(/^\+OK/)
    await session.ask('USER ann', /^\+OK/)
    return session
  }

  test('+OK waits until the grant is committed', async () => {
    const { authd } = running
    authd.answer = () => undefined
    authd.events.length = 0
    const session = await loggingIn()
    session.say(PASS)
    const { id } = await authd.event('ann')
    const committed = performance.now()
    authd.say({ verdict: 'committed', id, until: 2_000_000_000 })
    const answer = await session.expect(/^\+OK/)
    expect(answer.at).toBeGreaterThan(committed)
    await running.stack.waitForLog('popup', { event: 'login_accepted', id, grant: 'committed', until: '2000000000' })
    session.close()
  })

  test('+OK waits no longer than grant_wait', async () => {
    const { authd } = running
    authd.answer = () => undefined
    authd.events.length = 0
    const session = await loggingIn()
    const sentAt = session.say(PASS)
    const answer = await session.expect(/^\+OK/)
    expect(answer.at - sentAt).toBeGreaterThan(390)
    const { id } = await authd.event('ann')
    await running.stack.waitForLog('popup', { event: 'login_accepted', id, grant: 'queued' })
    session.close()
  })

  test('a refused grant does not refuse the login', async () => {
    running.authd.answer = ({ id }) => ({ verdict: 'refused', id, reason: 'loopback' })
    const session = await loggingIn()
    await session.ask(PASS, /^\+OK/)
    await running.stack.waitForLog('popup', { event: 'login_accepted', grant: 'refused', reason: 'loopback' })
    session.close()
  })

  test.each([
    ['a listed proxy that names itself', '198.51.100.5', 'proxy'],
    ['a network in never_grant', '192.0.2.7', 'never'],
  ])('%s: the session continues, and the login is not announced', async (_, address, reason) => {
    running.authd.events.length = 0
    const session = running.proxied()
    session.say(`PROXY TCP4 ${address} 198.51.100.1 4000 110`)
    await session.expect(/^\+OK/)
    await session.ask('USER ann', /^\+OK/)
    await session.ask(PASS, /^\+OK/)
    await session.ask('STAT', /^\+OK 1 /)
    await running.stack.waitForLog('popup', { event: 'login_accepted', ip: address, grant: 'refused', reason })
    // Later events arrive later, but the event of the refused login never arrives.
    const other = running.client()
    await other.login('bob')
    await running.authd.event('bob')
    expect(running.authd.events.map(({ ip }) => ip)).toEqual(['127.0.0.1'])
    session.close()
    other.close()
  })

  test('events without an answer are sent again when authd is back', async () => {
    running.authd.answer = () => undefined
    const session = await loggingIn()
    await session.ask(PASS, /^\+OK/)
    const { id } = await running.authd.event('ann')
    await running.authd.stop()
    running.authd = await AuthdDouble.listen(`${running.stack.directory}/run/authd.sock`)
    await eventually('the login event is sent again', () => running.authd.events.find(event => event.id === id))
    session.close()
  })
})

describe('popup with STLS and require_tls', () => {
  let running: PopupStack
  beforeAll(async () => {
    const { cert, key } = makeSelfSigned({ names: ['mx.example.org'], now: Date.now() })
    running = await startPopup(stack => {
      stack.account('device')
      return {
        stls: true,
        stls_cert: stack.secret('stls.crt', cert),
        stls_key: stack.secret('stls.key', key),
        require_tls: true,
        cleartext_logins: ['device'],
      }
    })
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())

  test('STLS starts a new session, and clear text behind it is dropped', async () => {
    const raw = dial(running.stack.port('popup'))
    const clear = new PopupClient(raw)
    await clear.expect(/^\+OK </)
    clear.say('CAPA')
    await clear.expect(/^\+OK/)
    expect(await clear.expectLinesToDot()).toContain('STLS')
    clear.write('STLS\r\nUSER intruder\r\n')
    await clear.expect(/^\+OK $/)
    raw.removeAllListeners('data')
    const secure = new PopupClient(connectTls({ socket: raw, rejectUnauthorized: false }))
    await secure.ask(PASS, /^-ERR USER first$/)
    secure.say('CAPA')
    await secure.expect(/^\+OK/)
    const capabilities = await secure.expectLinesToDot()
    expect(capabilities).not.toContain('STLS')
    expect(capabilities).toContain('USER')
    await secure.ask('STLS', /^-ERR/)
    await secure.ask('USER ann', /^\+OK $/)
    await secure.ask(PASS, /^\+OK/)
    await secure.ask('STAT', /^\+OK 1 /)
    expect(await running.authd.event('ann')).toMatchObject({ tls: true })
    await secure.quit()
  })

  test('without TLS only the listed login succeeds', async () => {
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask('USER ann', /^-ERR \[AUTH\] TLS required$/)
    await session.ask(
      `AUTH PLAIN ${Buffer.from(`\0ann\0${TEST_PASSWORD}`).toString('base64')}`,
      /^-ERR \[AUTH\] TLS required$/,
    )
    await session.ask('USER device', /^\+OK $/)
    await session.ask(PASS, /^\+OK/)
    await session.quit()
  })
})

describe('sessions after login', () => {
  test.each([
    ['a login', { max_per_login: 2 }, 'max_per_login'],
    ['an owner', { max_per_owner: 2 }, 'max_per_owner'],
  ])('of %s are limited; the end of a session frees its place', async (_, limit, reason) => {
    const running = await startPopup(limit)
    try {
      const open = [running.client(), running.client()]
      for (const session of open) await session.login('ann')
      const third = running.client()
      await third.expect(/^\+OK </)
      await third.ask('USER ann', /^\+OK/)
      await third.ask(PASS, /^-ERR \[IN-USE\]/)
      await third.ask('USER ann', /^\+OK/)
      await third.ask(PASS, /^-ERR \[IN-USE\]/)
      // Other logins and owners have separate limits, and the grant is stored nevertheless.
      await running.client().login('bob')
      expect(await running.authd.event('ann')).toMatchObject({ user: 'ann' })
      await open[0]?.quit()
      await eventually('the place is free', async () => {
        const next = running.client()
        try {
          await next.login('ann')
          return true
        } catch {
          return false
        } finally {
          next.close()
        }
      })
      const warned = () => running.stack.log('popup').filter(({ fields }) => fields['event'] === 'login_refused')
      expect(warned().map(({ fields }) => fields['reason'])).toEqual([reason])
    } finally {
      running.closeClients()
      await running.stop()
    }
  })
})

describe('connection limits', () => {
  let running: PopupStack
  beforeAll(async () => {
    running = await startPopup({
      max_per_address: 2,
      login_time: 3,
      ssl_hack_trust: ['127.0.0.1'],
    })
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())
  const from = (ip: string): PopupClient => running.client(ip)

  test('the third connection of an address is refused with the reason, and other addresses are served', async () => {
    const open = [from('127.0.0.2'), from('127.0.0.2')]
    for (const session of open) await session.expect(/^\+OK </)
    const third = from('127.0.0.2')
    await third.expect(/^-ERR \[SYS\/TEMP\] too many connections/)
    await third.expectEnd()
    const other = from('127.0.0.3')
    await other.expect(/^\+OK </)
    for (const session of [...open, other]) session.close()
  })

  test('if every place is taken, the oldest connection without a login is closed', async () => {
    const full = await startPopup({ max_connections: 3 })
    try {
      const loggedIn = full.client()
      await loggedIn.login('ann')
      const idle = full.client()
      await idle.expect(/^\+OK </)
      const younger = full.client()
      await younger.expect(/^\+OK </)
      const newcomer = full.client()
      await newcomer.login('bob')
      await idle.expectEnd()
      await full.stack.waitForLog('popup', { event: 'connection_refused', reason: 'max_connections', ip: '127.0.0.1' })
      await loggedIn.ask('NOOP', /^\+OK/)
      await younger.ask('USER ann', /^\+OK/)
      await younger.ask(PASS, /^\+OK/)
      const tooMany = full.client()
      await tooMany.expect(/^-ERR \[SYS\/TEMP\] too many connections/)
      await tooMany.expectEnd()
      // The worker has the connection. The place stays taken until the worker reports the end.
      await loggedIn.quit()
      await eventually('the place of the client is free', async () =>
        (await full.client().next(5_000))?.text.startsWith('+OK <'),
      )
    } finally {
      await full.stop()
    }
  })

  test('clients that send line ends and never read do not make the login process larger', async () => {
    const flooded = await startPopup({ max_per_address: 0 }, { '': { syslog: false, log_level: 'warn' } })
    try {
      const [login] = childrenOf(flooded.stack.program('popup').pid, '--login')
      if (login === undefined) throw new Error('no login process')
      const memory = (): number => resourcesOf(login).memory
      const first = flooded.client()
      await first.login('ann')
      await first.quit()
      const before = memory()
      let most = 0
      for (let round = 0; round < 4; round += 1) {
        const clients = Array.from({ length: 250 }, () => {
          const socket = dial(flooded.stack.port('popup')).pause()
          socket.on('error', () => {}) // the connection is closed with unread input
          socket.write('\n'.repeat(65_000))
          return socket
        })
        await eventually('each client is connected', () => {
          most = Math.max(most, memory())
          return clients.every(({ connecting }) => !connecting)
        })
        const session = flooded.client()
        await session.login('ann')
        await session.quit()
        most = Math.max(most, memory())
        for (const socket of clients) socket.destroy()
      }
      expect((most - before) / 1_048_576).toBeLessThan(100)
      await eventually('the memory is free', () => memory() - before < 64 * 1_048_576)
    } finally {
      await flooded.stop()
    }
  })

  test('a client that does not log in is closed without a reply', async () => {
    const session = from('127.0.0.4')
    await session.expect(/^\+OK </)
    await session.expectEnd(5_000)
  })

  test('the SSL command of a peer that is not listed is an unknown command', async () => {
    const session = from('127.0.0.8')
    await session.expect(/^\+OK </)
    await session.ask('SSL 192.0.2.1:preamble of this test', /^-ERR authorization first$/)
    session.close()
  })
})

test('failures delay the next attempts of the address and of the login, and no other attempts', async () => {
  const running = await startPopup({ fail_delays: ['1.5', '600'], max_failures: 10 })
  try {
    running.stack.showLogsOnFailure()
    const session = running.client('127.0.0.5')
    await session.expect(/^\+OK </)
    const fail = async (password: string): Promise<number> => {
      await session.ask('USER ann', /^\+OK/)
      const sentAt = session.say(`PASS ${password}`)
      return (await session.expect(/^-ERR \[AUTH\]/)).at - sentAt
    }
    await fail('one')
    expect(await fail('two')).toBeGreaterThan(1490)
    await session.ask('USER ann', /^\+OK/)
    session.say('PASS three')
    await running.client('127.0.0.6').login('bob')
    await expect(session.next(0)).rejects.toThrow('no line')
  } finally {
    running.closeClients()
    await running.stop()
  }
})

describe('LOGIN-DELAY', () => {
  let running: PopupStack
  beforeAll(async () => {
    running = await startPopup({ login_delay: 600, fail_delays: [], max_per_address: 0 })
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())
  /** The reply to the password of a new session. */
  const replyFor = async (login: string): Promise<string> => {
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask(`USER ${login}`, /^\+OK/)
    session.say(PASS)
    return (await session.expect(/^(\+OK|-ERR)/)).text
  }

  test('is announced', async () => {
    const session = running.client()
    await session.expect(/^\+OK </)
    session.say('CAPA')
    await session.expect(/^\+OK/)
    expect(await session.expectLinesToDot()).toContain('LOGIN-DELAY 600')
  })

  test('a login whose maildrop cannot be opened does not count; a session counts', async () => {
    const { maildir } = running.ann
    renameSync(maildir, `${maildir}.away`)
    expect(await replyFor('ann')).toBe('-ERR this user has no $HOME/Maildir')
    renameSync(`${maildir}.away`, maildir)
    await eventually('the next login opens the maildrop', async () => (await replyFor('ann')) === '+OK ')
    expect(await replyFor('ann')).toMatch(/^-ERR \[LOGIN-DELAY\]/)
  })

  test('of simultaneous right logins one opens the maildrop', async () => {
    const replies = await Promise.all(Array.from({ length: 8 }, () => replyFor('bob')))
    expect(replies.filter(reply => reply.startsWith('+OK'))).toHaveLength(1)
    expect(replies.filter(reply => reply.startsWith('-ERR [LOGIN-DELAY]'))).toHaveLength(7)
  })
})

describe('processes', () => {
  let running: PopupStack
  beforeEach(async () => {
    running = await startPopup({ drain_time: 20 }, { pop3d: { worker_idle: 1 } })
    running.stack.showLogsOnFailure()
  })
  afterEach(() => running.stop())
  const login = async (user: string): Promise<PopupClient> => {
    const session = running.client()
    await session.login(user)
    return session
  }
  const workers = (): number[] => childrenOf(running.stack.program('popup').pid, '--worker')
  const ownerOf = (pid: number): number => statSync(`/proc/${pid}`).uid
  const [SCHED_OTHER, SCHED_BATCH] = [0, 3]
  /** Field 41 of /proc/PID/stat. */
  const policyOf = (pid: number): number =>
    Number(
      readFileSync(`/proc/${pid}/stat`, 'latin1')
        .replace(/^.*\) /s, '')
        .split(' ')[38],
    )

  describeWith([ROOT], 'as root', () => {
    test('the crash of one worker ends no session of another owner, and the next login starts a new worker', async () => {
      const ann = await login('ann')
      const bob = await login('bob')
      const ofAnn = workers().find(pid => ownerOf(pid) === running.ann.uid)
      expect(workers()).toHaveLength(2)
      process.kill(ofAnn ?? 0, 'SIGKILL')
      await ann.expectEnd()
      await bob.ask('STAT', /^\+OK 2 /)
      // A ticket that was signed before the monitor noticed the crash is invalid, so the login is a
      // temporary failure.
      await running.stack.program('popup').waitForLine(/event=worker_ended/)
      const again = await login('ann')
      await again.ask('STAT', /^\+OK 1 /)
      await again.quit()
      await bob.quit()
    })

    test('the login process has no rights, the worker has its owner’s, and none is root', async () => {
      const session = await login('ann')
      const monitor = running.stack.program('popup').pid
      const [loginPid = 0] = childrenOf(monitor, '--login')
      const [worker = 0] = workers()
      const status = readFileSync(`/proc/${loginPid}/status`, 'utf8')
      expect(/^Uid:\t(.*)$/m.exec(status)?.[1]).toBe(Array(4).fill(TEST_IDS.login).join('\t'))
      expect(/^Groups:\t(.*)$/m.exec(status)?.[1]?.trim()).toBe('')
      expect(/^NoNewPrivs:\t(.*)$/m.exec(status)?.[1]).toBe('1')
      expect(/^CapEff:\t(.*)$/m.exec(status)?.[1]).toBe('0000000000000000')
      const ofWorker = readFileSync(`/proc/${worker}/status`, 'utf8')
      expect(/^Uid:\t(.*)$/m.exec(ofWorker)?.[1]).toBe(Array(4).fill(running.ann.uid).join('\t'))
      // Programs that the monitor starts for others have the default scheduling (decision 10).
      expect([monitor, loginPid, worker].map(policyOf)).toEqual([SCHED_OTHER, SCHED_BATCH, SCHED_BATCH])
      // Only the owner can read the messages; only the login process can use the worker's socket.
      expect(statSync(running.ann.maildir).mode & 0o077).toBe(0)
      const socket = statSync(`${running.stack.directory}/run/pop3d/${running.ann.uid}-${running.ann.uid}.sock`)
      expect([socket.uid, socket.mode & 0o777]).toEqual([TEST_IDS.login, 0o600])
      await session.quit()
    })

    test('an account of uid 0 or gid 0 has no session', async () => {
      const hash = readFileSync(`${running.stack.directory}/passwd`, 'utf8').split(':')[1]
      const home = running.ann.maildir.replace(/\/Maildir$/, '')
      running.stack.secret(
        'passwd',
        `root:${hash}:0:0:${home}:Maildir\nwheel:${hash}:${running.ann.uid}:0:${home}:Maildir`,
      )
      for (const user of ['root', 'wheel']) {
        const session = running.client()
        await session.expect(/^\+OK/)
        await session.ask(`USER ${user}`, /^\+OK/)
        await session.ask(PASS, /^-ERR \[AUTH\]/)
        session.close()
      }
      expect(workers()).toEqual([])
    })
  })

  test('a worker without sessions ends, and the next login gets another worker', async () => {
    await (await login('ann')).quit()
    await running.stack.waitForLog('popup', { event: 'worker_stopped' })
    // Tickets may still be valid, so that a worker may have been started again for them. It ends
    // too.
    const session = await login('ann')
    await session.ask('STAT', /^\+OK 1 /)
    await session.quit()
  })

  test('a login process that dies is replaced', async () => {
    const monitor = running.stack.program('popup').pid
    const [first = 0] = childrenOf(monitor, '--login')
    process.kill(first, 'SIGKILL')
    await eventually('another login process runs', () => childrenOf(monitor, '--login').some(pid => pid !== first))
    await (await login('ann')).quit()
  })

  test('SIGTERM lets sessions finish and accepts no new ones', async () => {
    const session = await login('ann')
    const waiting = running.client()
    await waiting.expect(/^\+OK/)
    const popup = running.stack.program('popup')
    const port = running.stack.port('popup')
    popup.signal('SIGTERM')
    await waiting.expectEnd()
    await eventually('connections are refused', async () => {
      const refused = await new Promise<boolean>(resolve => {
        const probe = dial(port)
        probe.once('error', () => resolve(true))
        probe.once('connect', () => {
          probe.destroy()
          resolve(false)
        })
      })
      return refused || undefined
    })
    await session.ask('STAT', /^\+OK 1 /)
    await session.quit()
    expect(await popup.ended).toEqual({ code: 0, signal: null })
  })

  test('SIGHUP applies new settings and keeps sessions; a changed passwd file applies without it', async () => {
    const session = await login('ann')
    running.stack.configure({ popup: { listen: ['127.0.0.1:0'], hostname: 'new.example.org' } })
    running.stack.program('popup').signal('SIGHUP')
    await running.stack.waitForLog('popup', { event: 'settings_reloaded' })
    await eventually('the greeting has the new name', async () => {
      const probe = running.client()
      const { text } = await probe.expect(/^\+OK/)
      probe.close()
      return text.includes('@new.example.org>') || undefined
    })
    await session.ask('STAT', /^\+OK 1 /)
    running.stack.account('carl')
    await (await login('carl')).quit()
    await session.quit()
  })
})
