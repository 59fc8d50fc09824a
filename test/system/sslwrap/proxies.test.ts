import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { formatProxyLocal, formatProxyV1, formatProxyV2 } from '../../../src/wire/preamble.ts'
import { bsdStamp } from '../../harness/authd/bsd-stamp.ts'
import { eventually } from '../../harness/eventually.ts'
import { type NetworkNamespace, TestNetwork } from '../../harness/hosts/network-namespace.ts'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { describeWith, NETWORK_NAMESPACES } from '../../harness/runner/describe-with.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS, TEST_PASSWORD } from '../../harness/stack.ts'

const SERVER = '192.0.2.1'
const STRANGER = 'somebody@elsewhere.example'
/**
 * Hosts of a POP3 proxy, of a TLS proxy that sends the SSL command, of an SMTP proxy, and of a
 * client.
 */
const POP3_PROXY = '192.0.2.5'
const TLS_PROXY = '192.0.2.6'
const SMTP_PROXY = '192.0.2.7'
const CLIENT = '192.0.2.10'

const end = (text: string, port: number) => ({ ip: parseIpAddress(text) ?? expect.unreachable(text), port })
const server = end(SERVER, 110)
/** A PROXY header of version 2 with a given command and family, and addresses of zeros. */
const v2 = (command: number, family: number, length: number): Buffer =>
  Buffer.concat([formatProxyLocal().subarray(0, 12), Buffer.of(command, family, 0, length), Buffer.alloc(length)])

const UNNAMED: readonly (readonly [string, string])[] = [
  ['version 1 UNKNOWN', 'PROXY UNKNOWN\r\n'],
  ['version 2 UNSPEC', v2(0x21, 0x00, 0).toString('latin1')],
  ['version 2 LOCAL', formatProxyLocal().toString('latin1')],
]

describeWith([NETWORK_NAMESPACES], 'proxies on other hosts', () => {
  let network: TestNetwork
  let hosts: Readonly<Record<string, NetworkNamespace>>
  let stack: Stack

  beforeAll(async () => {
    network = new TestNetwork(SERVER)
    hosts = Object.fromEntries([POP3_PROXY, TLS_PROXY, SMTP_PROXY, CLIENT].map(text => [text, network.client(text)]))
    stack = new Stack()
    stack.account('ann')
    stack.configure({
      '': { log_level: 'debug' },
      database: { embedded: true },
      popup: {
        listen: ['*:110'],
        proxy_listen: ['*:1100'],
        proxy_trust: [POP3_PROXY],
        ssl_hack_trust: ['127.0.0.0/8', TLS_PROXY],
      },
      sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:110', preamble: 'ssl' }] },
      authd: { user: `${TEST_IDS.authd}`, syslog_listen: ['127.0.0.1:1514'], check_daemon_ipop3d: true },
      wrap: { listen: ['*:25'], proxy_trust: [SMTP_PROXY] },
    })
    await stack.start('auth-relay', { args: ['up', '--config', stack.config], prefix: network.server.prefix })
  })
  beforeEach(() => stack.showLogsOnFailure())
  afterAll(async () => {
    await stack.stop()
    network.remove()
  })

  const hostOf = (text: string): NetworkNamespace => hosts[text] ?? expect.unreachable(text)
  const pop3From = (from: string, port: number): Pop3Conversation =>
    Pop3Conversation.over(hostOf(from).connect({ host: SERVER, port }), { name: `pop3 from ${from}` })
  /** The smtpd's reply to a recipient of another domain; `header` comes first. */
  const askFrom = async (from: string, header = ''): Promise<number> => {
    const client = SmtpConversation.over(hostOf(from).connect({ host: SERVER, port: 25 }), `smtp from ${from}`)
    if (header !== '') client.write(header)
    const { code } = await client.askFor(STRANGER)
    await client.quit()
    return code
  }
  const behindSmtpProxy = (text: string): Promise<number> =>
    askFrom(SMTP_PROXY, formatProxyV1(end(text, 4000), end(SERVER, 25)))
  const verb = async (...args: readonly string[]): Promise<{ status: number | undefined; text: string }> => {
    const { ending, lines } = await stack.run('auth-relay', [...args, '--config', stack.config], {
      prefix: network.server.prefix,
    })
    return { status: ending?.code ?? undefined, text: lines.join('\n') }
  }
  const expectUngranted = async (address: string, setting: string): Promise<void> => {
    expect(await behindSmtpProxy(address)).toBe(553)
    expect(await verb('explain', address)).toMatchObject({
      status: 1,
      text: expect.stringMatching(new RegExp(`${address} is never granted: listed in ${setting.replace('.', '\\.')}`)),
    })
  }

  test('a client behind each proxy gets a grant for its own address', async () => {
    const viaProxy = pop3From(POP3_PROXY, 1100)
    viaProxy.write(formatProxyV1(end(CLIENT, 4000), server))
    await viaProxy.login('ann', TEST_PASSWORD)
    await viaProxy.quit()
    expect(await askFrom(CLIENT)).toBe(250)
    expect(await behindSmtpProxy(CLIENT)).toBe(250)

    const viaTls = pop3From(TLS_PROXY, 110)
    await viaTls.expect(/^\+OK /)
    await viaTls.ask('SSL 192.0.2.11:preamble of this test', /^\+OK/)
    await viaTls.ask('USER ann', /^\+OK/)
    await viaTls.ask(`PASS ${TEST_PASSWORD}`, /^\+OK/)
    await viaTls.quit()
    expect(await behindSmtpProxy('192.0.2.11')).toBe(250)
  })

  describe('a login from the proxy itself has an ordinary session, and opens nothing', () => {
    test.each<[string, string, number, string, string]>([
      ['PROXY version 2 LOCAL', POP3_PROXY, 1100, formatProxyLocal().toString('latin1'), 'popup.proxy_trust'],
      [
        'a header of version 1 that names it',
        POP3_PROXY,
        1100,
        formatProxyV1(end(POP3_PROXY, 4000), server),
        'popup.proxy_trust',
      ],
      [
        'a header of version 2 that names it',
        POP3_PROXY,
        1100,
        formatProxyV2(end(POP3_PROXY, 4000), server).toString('latin1'),
        'popup.proxy_trust',
      ],
      ['no header', POP3_PROXY, 110, '', 'popup.proxy_trust'],
      ['no preamble', TLS_PROXY, 110, '', 'popup.ssl_hack_trust'],
      ['the SMTP proxy', SMTP_PROXY, 110, '', 'wrap.proxy_trust'],
    ])('%s', async (_, address, port, header, setting) => {
      const before = stack.log('popup').length
      const session = pop3From(address, port)
      if (header !== '') session.write(header)
      await session.login('ann', TEST_PASSWORD)
      await session.ask('STAT', /^\+OK 0 0/)
      await session.quit()
      const { fields } = await eventually('popup logs the login', () =>
        stack
          .log('popup')
          .slice(before)
          .find(line => line.fields['event'] === 'login_accepted'),
      )
      expect(fields).toMatchObject({ ip: address, grant: 'refused', reason: 'proxy' })
      await expectUngranted(address, setting)
      if (address !== SMTP_PROXY) expect(await askFrom(address)).toBe(553)
    })

    test.each(UNNAMED.slice(0, 2))('%s: popup does not serve a client without a known address', async (_, header) => {
      const session = pop3From(POP3_PROXY, 1100)
      session.write(header)
      await session.expectEnd()
    })
  })

  test("a log line and an import with a proxy's address grant nothing", async () => {
    const syslog = network.server.connect({ host: '127.0.0.1', port: 1514 })
    const line = (address: string, user: string): string =>
      `<22>${bsdStamp()} mx ipop3d[7]: Login user=${user} host=h.example.net [${address}] nmsgs=1/1\n`
    syslog.write(line(POP3_PROXY, 'proxied'))
    syslog.end(line('192.0.2.12', 'direct'))
    await stack.waitForLog('authd', { event: 'grant_refused', ip: POP3_PROXY, reason: 'proxy' })
    await eventually('the other line opens the relay', async () => (await behindSmtpProxy('192.0.2.12')) === 250)
    await expectUngranted(POP3_PROXY, 'popup.proxy_trust')

    const file = `${stack.directory}/old-grants.csv`
    const now = Math.floor(Date.now() / 1000)
    writeFileSync(file, `${TLS_PROXY},${now}\n::ffff:${TLS_PROXY},${now}\n192.0.2.13,${now}\n`)
    expect((await verb('import', 'csv', file)).text).toContain('Granted: 1. Refused: 2.')
    expect(await behindSmtpProxy('192.0.2.13')).toBe(250)
    await expectUngranted(TLS_PROXY, 'popup.ssl_hack_trust')
  })

  test('a proxy cannot be allowed, and is left out of an allowed network', async () => {
    expect(await verb('allow', POP3_PROXY)).toMatchObject({
      status: 1,
      text: expect.stringContaining('it contains the address of a proxy'),
    })
    const { status, text } = await verb('allow', '192.0.2.0/28', '--for', '1h')
    expect(status).toBe(0)
    expect(text).toContain('Never granted in it: ')
    for (const proxy of [POP3_PROXY, TLS_PROXY, SMTP_PROXY, SERVER]) expect(text).toContain(proxy)
    try {
      expect(await behindSmtpProxy('192.0.2.14')).toBe(250)
      await expectUngranted(POP3_PROXY, 'popup.proxy_trust')
      await expectUngranted(TLS_PROXY, 'popup.ssl_hack_trust')
      await expectUngranted(SMTP_PROXY, 'wrap.proxy_trust')
    } finally {
      await verb('allow', '192.0.2.0/28', '--end')
    }
  })

  test.each(UNNAMED)('%s: the gate serves the connection with the relay closed', async (_, header) => {
    const before = stack.log('wrap').length
    expect(await askFrom(SMTP_PROXY, header)).toBe(553)
    const line = await eventually('the gate logs the decision', () =>
      stack
        .log('wrap')
        .slice(before)
        .find(({ fields }) => fields['event'] === 'relay_refused'),
    )
    expect(line.fields).toMatchObject({ ip: SMTP_PROXY, reason: 'unnamed_client' })
  })
})
