import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { afterAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../src/sockets/engine.ts'
import { makeSelfSigned } from '../../src/tunnel/self-signed.ts'
import { rotateTicketKeys } from '../../src/tunnel/ticket-keys.ts'
import { NetworkSet, parseNetwork } from '../../src/wire/ip-address.ts'
import { LoginServerForTests } from '../harness/pop3/login-server.ts'
import { WorkersForTests } from '../harness/pop3/pop3d.ts'
import { failureOf, PREAMBLE_PASSWORD } from '../harness/pop3/session-logins.ts'
import { type Connect, readTranscripts, runTranscript, type Step, type Transcript } from '../harness/pop3/transcript.ts'
import { BOTH_ENGINES } from '../harness/processes/engines.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

/**
 * Whole sessions as a client sees them: popup's login process before the login, a real pop3d worker
 * after it. The same transcripts run in memory in test/unit/pop3/session.test.ts.
 */
const root = temporaryDirectory()
afterAll(() => root.remove())

const CERTIFICATE = makeSelfSigned({ names: ['mx.example.org'], now: Date.now() })

const LOGIN: readonly Step[] = [
  { type: 'server', octets: '+OK <timestamp>\r\n' },
  { type: 'client', octets: 'USER ann\r\n' },
  { type: 'server', octets: '+OK \r\n' },
  { type: 'client', octets: 'PASS secret\r\n' },
]
const folder = (name: string): readonly Transcript[] => readTranscripts(`${import.meta.dirname}/../transcripts/${name}`)

const sessions = folder('session')
const maildrops = folder('pop3d').map(transcript => ({ ...transcript, steps: [...LOGIN, ...transcript.steps] }))

/** Transcripts of clients that begin in clear text, or with TLS. */
const startingWith = (over: 'clear' | 'tls', transcripts: readonly Transcript[]): readonly Transcript[] =>
  transcripts.filter(({ settings }) => settings.over === undefined || settings.over === over)

type Listening = { readonly login: LoginServerForTests; readonly clear: number; readonly tls: number }

/**
 * One login process for each compat, and workers for each combination of settings; one session at a
 * time.
 */
class Site {
  readonly #engine: Engine
  readonly #workers: WorkersForTests
  readonly #listening = new Map<string, Listening>()

  /** `sasl`: the mechanisms that workers announce. */
  constructor(engine: Engine, sasl: readonly string[]) {
    this.#engine = engine
    this.#workers = new WorkersForTests(root.path, {
      engine: engine.name,
      capabilities: { user: true, sasl: [...sasl], loginDelay: 0, implementation: 'auth-relay' },
    })
  }

  connect(over: 'clear' | 'tls'): Connect {
    return async (maildir, settings) => {
      const worker = await this.#workers.workerFor(settings)
      const { login, clear, tls } = this.#listening.get(settings.compat) ?? (await this.#listen(settings.compat))
      login.decide = ({ n, login: name, secret }) => {
        const failure = failureOf(name, secret)
        if (failure !== undefined) return { type: 'failed', n, failure }
        return { type: 'open', n, socket: worker.socket, ticket: worker.ticket({ maildir }) }
      }
      const options = { host: '127.0.0.1', allowHalfOpen: true }
      const socket =
        over === 'clear'
          ? connectTcp({ ...options, port: clear })
          : connectTls({ ...options, port: tls, rejectUnauthorized: false })
      socket.setNoDelay(true)
      return { socket, closed: once(socket, 'close').then(() => {}) }
    }
  }

  async stop(): Promise<void> {
    for (const { login } of this.#listening.values()) login.stop()
    await this.#workers.stop()
  }

  async #listen(compat: 'none' | 'qmail'): Promise<Listening> {
    const loopback = parseNetwork('127.0.0.0/8')
    if (loopback === undefined) throw new TypeError('a network')
    const login = new LoginServerForTests(
      {
        compat,
        preamble: { password: PREAMBLE_PASSWORD, trust: new NetworkSet([loopback]), reply: 'ok' },
        offersStls: true,
        stls: { ...CERTIFICATE, path: 'tls.crt', ticketKeys: [...rotateTicketKeys()] },
      },
      this.#engine,
    )
    const listening = { login, clear: await login.listen(), tls: await login.listen({ tls: true }) }
    this.#listening.set(compat, listening)
    return listening
  }
}

test('there are transcripts of both kinds', () => {
  expect(startingWith('clear', sessions).length).toBeGreaterThan(30)
  expect(startingWith('tls', sessions).length).toBeGreaterThan(30)
  expect(maildrops.length).toBeGreaterThan(50)
})

describe.each(BOTH_ENGINES)('over engine $name', ({ engine }) => {
  const [site, siteWithoutSasl] = [new Site(engine, ['PLAIN', 'LOGIN']), new Site(engine, [])]
  afterAll(() => Promise.all([site.stop(), siteWithoutSasl.stop()]))

  describe.each(['clear', 'tls'] as const)('%s', over => {
    describe.each(startingWith(over, sessions))('$name', transcript => {
      test('in one piece', () => runTranscript(transcript, root.path, site.connect(over), 'whole'))

      test('octet by octet', () => runTranscript(transcript, root.path, site.connect(over), 'everywhere'))
    })
  })

  describe.each(maildrops)('after a login over TLS: $name', transcript => {
    test('in one piece', () => runTranscript(transcript, root.path, siteWithoutSasl.connect('tls'), 'whole'))
  })
})
