import { once } from 'node:events'
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { waitedFor } from '../../../src/libc/child-process.ts'
import { holdListener } from '../../../src/process/listener.ts'
import { formatCdb } from '../../../src/wire/cdb.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { LOOPBACK, NetworkSet } from '../../../src/wire/ip-address.ts'
import { formatProxyLocal, formatProxyV1, formatProxyV2 } from '../../../src/wire/preamble.ts'
import { formatTcpRule } from '../../../src/wire/tcprules.ts'
import { type AskGrant, decide } from '../../../src/wrap/decision.ts'
import { ResidentGate, type ResidentGateOptions } from '../../../src/wrap/gate/resident-gate.ts'
import { TcpRulesFile } from '../../../src/wrap/gate/tcp-rules-file.ts'
import { ip } from '../../harness/addresses.ts'
import { eventually } from '../../harness/eventually.ts'
import { BOTH_ENGINES } from '../../harness/processes/engines.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
let files = 0
const script = (text: string): string => {
  const path = `${directory.path}/smtpd${files++}`
  writeFileSync(path, `#!/bin/sh\n${text}\n`)
  chmodSync(path, 0o755)
  return path
}

/** Prints its environment, then the client's input. */
const SHOW = script(
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's, not ours
  'echo "220 $0 $* relay=${RELAYCLIENT-unset} login=${AUTHRELAY_LOGIN-} until=${AUTHRELAY_UNTIL-} ip=$TCPREMOTEIP host=${TCPREMOTEHOST-} proto=$PROTO x=${X-}"; cat',
)
const granted: AskGrant = async () => ({ until: 1_764_000_000, login: 'ann' })
const noGrant: AskGrant = async () => undefined

describe.each(BOTH_ENGINES)('over $name', ({ engine }) => {
  const open: { gate: ResidentGate; sockets: Set<Socket> }[] = []
  afterEach(async () => {
    for (const { gate, sockets } of open.splice(0)) {
      for (const socket of sockets) socket.destroy()
      await gate.drain(2000)
    }
  })

  async function start(
    options: Partial<ResidentGateOptions> & { ask?: AskGrant; timeoutMs?: number; host?: string } = {},
  ) {
    const lines: string[] = []
    const relayed: string[] = []
    const { ask = noGrant, timeoutMs = 1000, host = '127.0.0.1', ...rest } = options
    const gate = new ResidentGate({
      engine,
      file: SHOW,
      argv: ['smtpd', 'arg'],
      environment: { PATH: '/usr/bin:/bin' },
      relayclientValue: '',
      decide: address => decide(address, { ask, refusal: () => undefined, timeoutMs }),
      onDecision: (address, { relay }) => void (relay && address !== undefined && relayed.push(address)),
      log: createLog('wrap', { write: line => lines.push(line) }),
      proxyTrust: new NetworkSet([]),
      maxConnections: 0,
      maxPerAddress: 0,
      customers: new CustomerNetworks(),
      ...rest,
    })
    const held = await holdListener({ kind: 'tcp', host, port: 0 }, 'wrap.listen')
    gate.listen(held)
    const { address } = held
    if (address.kind !== 'tcp') throw new Error('no port')
    const sockets = new Set<Socket>()
    open.push({ gate, sockets })
    const client = () => {
      const socket = connect(address.port, host)
      sockets.add(socket)
      socket.on('error', () => {})
      return socket
    }
    return {
      gate,
      lines,
      relayed,
      client,
      /** Sends, closes its half, and returns all received octets. */
      async talk(...pieces: (string | Uint8Array)[]): Promise<string> {
        const socket = client()
        for (const piece of pieces) socket.write(piece)
        socket.end()
        let received = ''
        for await (const piece of socket) received += String(piece)
        return received
      },
    }
  }

  describe('a connection', () => {
    test('whose front cannot be opened gets 421 and is closed', async () => {
      const front: ResidentGateOptions['front'] = () => {
        throw new Error('no room for another watch')
      }
      const { gate, talk, lines } = await start({ ask: granted, front })
      expect(await talk()).toBe('421 unable to run smtpd (#4.3.0)\r\n')
      await eventually('a place is free', () => gate.connections === 0)
      expect(lines.filter(line => line.includes('event=connection_failed'))).toHaveLength(1)
      expect(lines.join()).toMatch(/no room for another watch/)
    })

    test('of a client with a grant: RELAYCLIENT is set and empty, and the login is named', async () => {
      const { talk, lines, relayed } = await start({ ask: granted })
      expect(await talk('EHLO\r\n', 'MAIL\r\n')).toBe(
        `220 ${SHOW} arg relay= login=ann until=1764000000 ip=127.0.0.1 host= proto=TCP x=\nEHLO\r\nMAIL\r\n`,
      )
      expect(relayed).toEqual(['127.0.0.1'])
      await eventually('logged', () => lines.length === 2)
      expect(lines[0]).toMatch(
        /^wrap: level=info event=relay_allowed ip=127\.0\.0\.1 port=\d+ pid=\d+ connections=1\/0 user=ann until=1764000000\n$/,
      )
      expect(lines[1]).toMatch(/^wrap: level=info event=smtpd_ended pid=\d+ status=0\n$/)
    })

    test('of a client without a grant: no RELAYCLIENT, and mail for local domains is accepted', async () => {
      const { talk, lines, relayed } = await start()
      expect(await talk()).toContain(' relay=unset login= until= ')
      expect(relayed).toEqual([])
      expect(lines[0]).toContain('event=relay_refused ip=127.0.0.1')
    })

    test('over IPv6', async () => {
      const { talk } = await start({ ask: granted, host: '::1' })
      expect(await talk()).toContain('relay= login=ann until=1764000000 ip=::1 host= proto=TCP6')
    })

    test('RELAYCLIENT has the value of the settings; a RELAYCLIENT of the environment stays and causes no query', async () => {
      expect(await (await start({ ask: granted, relayclientValue: '@fixme' })).talk()).toContain(' relay=@fixme ')
      let asked = 0
      const preset = await start({
        environment: { PATH: '/usr/bin:/bin', RELAYCLIENT: '@site' },
        ask: async () => {
          asked += 1
          return undefined
        },
      })
      expect(await preset.talk()).toContain(' relay=@site login= ')
      expect(asked).toBe(0)
      expect(preset.lines[0]).toMatch(
        /^wrap: level=info event=relay_allowed ip=127\.0\.0\.1 port=\d+ pid=\d+ connections=1\/0 reason=preset\n$/,
      )
    })

    test('of a client whose relay is preset gets no front, and is not counted', async () => {
      const counted: unknown[] = []
      const { talk, lines } = await start({
        environment: { PATH: '/usr/bin:/bin', RELAYCLIENT: '' },
        ask: granted,
        onDecision: (...decided) => counted.push(decided),
        front: () => {
          throw new Error('opened')
        },
      })
      expect(await talk()).toContain(' relay= login= ')
      expect(lines[0]).toContain('event=relay_allowed ')
      expect(lines[0]).not.toContain('front=')
      expect(counted).toEqual([])
    })

    test('octets that the client sent before the banner reach the smtpd unchanged', async () => {
      const { talk } = await start()
      const octets = 'x'.repeat(100_000)
      expect((await talk(octets)).endsWith(`\n${octets}`)).toBe(true)
    })
  })

  describe('fails closed', () => {
    test.each<[string, AskGrant]>([
      ['an error', () => Promise.reject(new Error('database is down'))],
      [
        'an error thrown at once',
        () => {
          throw new Error('broken')
        },
      ],
      ['no answer', () => new Promise(() => {})],
    ])('%s: the smtpd runs after the deadline at the latest, without RELAYCLIENT', async (_what, ask) => {
      const { talk, lines, relayed } = await start({ ask, timeoutMs: 100 })
      expect(await talk()).toContain(' relay=unset ')
      expect(relayed).toEqual([])
      expect(lines.filter(line => line.includes('event=decision_failed'))).toHaveLength(1)
    })

    test('an smtpd that cannot be run: 421, and the place is free again', async () => {
      const { talk, gate, lines } = await start({ file: `${directory.path}/none` })
      expect(await talk()).toBe('421 unable to run smtpd (#4.3.0)\r\n')
      expect(lines[0]).toContain('ENOENT')
      await eventually('released', () => gate.connections === 0)
    })
  })

  describe('limits', () => {
    test('in total, and for one address: a banner, then closed; the place is freed', async () => {
      const { client, talk, gate, lines } = await start({ maxConnections: 2, maxPerAddress: 1 })
      const first = client()
      await once(first, 'data')
      expect(await talk()).toBe('421 too many connections from your address (#4.7.0)\r\n')
      first.destroy()
      await eventually('released', () => gate.connections === 0)
      expect(await talk()).toContain('220 ')
      expect(
        lines.some(line => line.includes('event=connection_refused') && line.includes('reason=max_per_address')),
      ).toBe(true)
    })

    test('in total: the next client is answered 421', async () => {
      const { client, talk } = await start({ maxConnections: 1 })
      await once(client(), 'data')
      expect(await talk()).toBe('421 too many connections, try again later (#4.3.2)\r\n')
    })
  })

  describe('rules of tcprules', () => {
    const rulesFile = (rules: Record<string, Parameters<typeof formatTcpRule>[0]>): TcpRulesFile => {
      const path = `${directory.path}/rules${files++}.cdb`
      writeFileSync(path, formatCdb(Object.entries(rules).map(([key, rule]) => ({ key, value: formatTcpRule(rule) }))))
      return new TcpRulesFile(path)
    }

    test('set variables, refuse, and open the relay permanently', async () => {
      const set = rulesFile({
        '127.0.0.': { allow: true, environment: { X: 'from rule' } },
        '': { allow: false, environment: {} },
      })
      expect(await (await start({ rules: set })).talk()).toContain('x=from rule')
      const deny = await start({ rules: rulesFile({ '127.': { allow: false, environment: {} } }) })
      expect(await deny.talk()).toBe('')
      expect(deny.lines[0]).toContain('event=client_denied ip=127.0.0.1')
      const relay = await start({
        rules: rulesFile({ '127.0.0.1': { allow: true, environment: { RELAYCLIENT: '@rule' } } }),
        ask: granted,
      })
      expect(await relay.talk()).toContain('relay=@rule login= ')
      expect(relay.lines[0]).toMatch(/ event=relay_allowed .* reason=preset\n$/)
    })

    test('a missing or damaged file admits no client, as with tcpserver', async () => {
      const { talk } = await start({ rules: new TcpRulesFile('/nonexistent') })
      expect(await talk()).toMatch(/^421 /)
    })

    test('a new file applies from the next connection on', async () => {
      const path = `${directory.path}/changing.cdb`
      const write = (value: string) =>
        writeFileSync(path, formatCdb([{ key: '', value: formatTcpRule({ allow: true, environment: { X: value } }) }]))
      write('one')
      const { talk } = await start({ rules: new TcpRulesFile(path) })
      expect(await talk()).toContain('x=one')
      write('second')
      expect(await talk()).toContain('x=second')
    })
  })

  describe('PROXY protocol from a listed peer', () => {
    const source = { ip: ip('192.0.2.7'), port: 4000 }
    const destination = { ip: ip('192.0.2.1'), port: 25 }
    const ask: AskGrant = async address => (address === '192.0.2.7' ? { until: 1, login: 'ann' } : undefined)

    test.each([
      ['version 1', formatProxyV1(source, destination)],
      ['version 2', formatProxyV2(source, destination)],
    ])('%s: the announced client counts, and not an octet more is read', async (_version, header) => {
      const { talk } = await start({ proxyTrust: LOOPBACK, ask })
      expect(await talk(header, 'EHLO early\r\n')).toMatch(
        /relay= login=ann until=1 ip=192\.0\.2\.7 .*\nEHLO early\r\n$/,
      )
    })

    test('divided into single octets', async () => {
      const { client } = await start({ proxyTrust: LOOPBACK, ask })
      const socket = client()
      socket.setNoDelay(true)
      for (const octet of Buffer.from(formatProxyV2(source, destination))) {
        socket.write(Uint8Array.of(octet))
        await new Promise(resolve => setImmediate(resolve))
      }
      const [greeting] = await once(socket, 'data')
      expect(String(greeting)).toContain('ip=192.0.2.7')
    })

    test('a listed peer without a header is refused, and the header of another peer does not count', async () => {
      const strict = await start({ proxyTrust: LOOPBACK, ask })
      expect(await strict.talk('EHLO forged\r\n')).toMatch(/^421 /)
      const open = await start({ ask })
      expect(await open.talk(formatProxyV1(source, destination))).toMatch(/relay=unset .*ip=127\.0\.0\.1/)
    })

    describe('that names no client: the relay is closed', () => {
      const v2 = (command: number, family: number, length: number): Buffer =>
        Buffer.concat([
          formatProxyV2(source, destination).subarray(0, 12),
          Buffer.of(command, family, 0, length),
          Buffer.alloc(length),
        ])
      const headers: readonly (readonly [string, string | Buffer])[] = [
        ['version 1 UNKNOWN', 'PROXY UNKNOWN\r\n'],
        ['version 1 UNKNOWN with addresses', 'PROXY UNKNOWN 192.0.2.7 192.0.2.1 4000 25\r\n'],
        ['version 2 LOCAL', formatProxyLocal()],
        ['version 2 LOCAL with addresses', v2(0x20, 0x11, 12)],
        ['version 2 UNSPEC', v2(0x21, 0x00, 0)],
        ['version 2 of a Unix socket', v2(0x21, 0x31, 216)],
      ]
      const rules = (): TcpRulesFile => {
        const path = `${directory.path}/proxy-rules.cdb`
        const rule = formatTcpRule({ allow: true, environment: { RELAYCLIENT: '', X: 'rule' } })
        writeFileSync(path, formatCdb([{ key: '127.', value: rule }]))
        return new TcpRulesFile(path)
      }

      test.each(headers)('%s', async (_, header) => {
        const asked: string[] = []
        const { talk, lines } = await start({
          proxyTrust: LOOPBACK,
          ask: async address => {
            asked.push(address)
            return { until: 1, login: 'ann' }
          },
        })
        expect(await talk(header, 'EHLO early\r\n')).toMatch(
          /relay=unset login= until= ip=127\.0\.0\.1 .*\nEHLO early\r\n$/,
        )
        expect(asked).toEqual([])
        expect(lines.join('')).toContain('event=relay_refused')
        expect(lines.join('')).toContain('reason=unnamed_client')
      })

      test.each(headers)('%s, also where a rule opens the relay for the address of the proxy', async (_, header) => {
        const { talk } = await start({ proxyTrust: LOOPBACK, rules: rules() })
        expect(await talk(header)).toMatch(/relay=unset .*x=rule/)
      })

      test.each(headers)('%s, also where the gate opens the relay for every named client', async (_, header) => {
        const { talk } = await start({ proxyTrust: LOOPBACK, environment: { PATH: '/usr/bin:/bin', RELAYCLIENT: '' } })
        expect(await talk(header)).toMatch(/relay=unset /)
        expect(await talk(formatProxyV1(source, destination))).toMatch(/relay= /)
      })

      test('and it is counted without an address', async () => {
        const decided: (string | undefined)[] = []
        const { talk } = await start({ proxyTrust: LOOPBACK, onDecision: address => void decided.push(address) })
        await talk('PROXY UNKNOWN\r\n')
        expect(decided).toEqual([undefined])
      })
    })

    test('limits count the client behind the proxy', async () => {
      const { client, talk } = await start({ proxyTrust: LOOPBACK, ask, maxPerAddress: 1 })
      const first = client()
      first.write(formatProxyV1(source, destination))
      await once(first, 'data')
      expect(await talk(formatProxyV1(source, destination))).toMatch(/^421 too many connections from your/)
      expect(await talk(formatProxyV1({ ip: ip('192.0.2.8'), port: 1 }, destination))).toContain('220 ')
    })
  })

  describe('children', () => {
    test('that end at once, are killed, or close early, free their place', async () => {
      for (const text of ['exit 1', 'kill -9 $$', 'exec 0<&- 1>&-; sleep 0.05']) {
        const { talk, gate } = await start({ file: script(text) })
        // Input that the child leaves unread turns the end into a reset, which the client must
        // handle.
        await talk('EHLO\r\n').catch(() => undefined)
        await eventually('the place is free', () => gate.connections === 0)
      }
    })

    test('have no descriptor of the gate, default signals, and their own soft limit', async () => {
      const { talk } = await start({
        file: script(
          'ls /proc/self/fd | tr "\\n" " "; ulimit -Sn; grep -E "SigIgn|SigBlk" /proc/self/status; grep flags /proc/self/fdinfo/0',
        ),
      })
      const received = await talk()
      expect(received).toMatch(/\d+\n/)
      expect(received).toMatch(/SigBlk:\s*0+\nSigIgn:\s*0+\n/)
      // A blocking socket of the client: O_RDWR without O_NONBLOCK.
      expect(Number.parseInt(/flags:\s*(\d+)/.exec(received)?.[1] ?? '', 8) & 0o4000).toBe(0)
    })

    test('hundreds of connections leave no zombie and no descriptor', async () => {
      const { talk, gate } = await start()
      await talk()
      const before = readdirSync('/proc/self/fd').length
      for (let round = 0; round < 15; round++) await Promise.all(Array.from({ length: 20 }, () => talk()))
      await eventually('every smtpd has ended', () => gate.connections === 0 && waitedFor() === 0)
      await eventually('the descriptors are closed', () => readdirSync('/proc/self/fd').length <= before)
      const zombies = readdirSync('/proc').filter(pid => {
        try {
          return new RegExp(`^\\d+ \\(.*\\) Z ${process.pid} `).test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
        } catch {
          return false // not a process, or already ended
        }
      })
      expect(zombies).toEqual([])
    })
  })

  test('drain: no new connection, and the running one continues to its end', async () => {
    const { client, gate } = await start()
    const socket = client()
    await once(socket, 'data')
    const drained = gate.drain(10_000)
    const [refused] = await once(client(), 'error')
    expect(refused).toMatchObject({ code: 'ECONNREFUSED' })
    socket.write('still here\r\n')
    const [echo] = await once(socket, 'data')
    expect(String(echo)).toBe('still here\r\n')
    socket.end()
    await drained
    expect(gate.connections).toBe(0)
  })
})
