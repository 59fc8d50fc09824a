import { chownSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../harness/free-port.ts'
import { resourcesOf } from '../harness/processes/process-status.ts'
import { type Program, run } from '../harness/processes/program.ts'
import { command, describeWith } from '../harness/runner/describe-with.ts'
import { swaksCommand } from '../harness/smtp/swaks.ts'
import { TEST_PASSWORD, type TestAccount } from '../harness/stack.ts'
import { INSPECTED, liveMemory } from './live-memory.ts'
import { SOAK } from './settings.ts'
import { Site } from './site.ts'
import { megabytes, table } from './table.ts'

/** Pause between two clients of one kind, for the load of a busy small site. */
const EVERY_MS = 2500
/**
 * Limit for growth between the first quarter and the end, because memory must not grow with the
 * number of clients.
 */
const LEVEL = { memory: 4_000_000, descriptors: 12 }
const SAMPLES = 12
const MESSAGE = `From: bob@example.org\nTo: ann@example.org\nSubject: message\n\n${'.dots\n..\n.\nlong line '.repeat(800)}the end\n`
const NEEDS = [command('curl'), command('fetchmail'), command('mpop'), command('swaks')]

type Sample = {
  readonly seconds: number
  readonly inUse: number
  readonly resident: number
  readonly descriptors: number
}

describeWith(NEEDS, 'mixed traffic of real clients', () => {
  let site: Site
  let bob: TestAccount
  let pop3s: number
  let home: string
  let delivered = 0
  const served = new Map<string, number>()
  const errors: string[] = []

  beforeAll(async () => {
    pop3s = await freePort()
    site = await Site.start(
      (stack, pop3) => {
        stack.account('reader', [MESSAGE, MESSAGE, MESSAGE])
        // A separate maildrop, because a message that another session moves to cur/ cannot be
        // opened, as with qmail-pop3d.
        stack.account('desk', [MESSAGE, MESSAGE, MESSAGE])
        bob = stack.account('bob')
        return {
          '': { log_level: 'warn' },
          database: { embedded: true },
          sslwrap: { listener: [{ listen: `127.0.0.1:${pop3s}`, backend: `127.0.0.1:${pop3}` }] },
        }
      },
      { env: INSPECTED },
    )
    home = `${site.stack.directory}/home`
    mkdirSync(home)
  })
  afterAll(() => site?.stop())

  const settings = (name: string, text: string): string => {
    writeFileSync(`${home}/${name}`, text, { mode: 0o600 })
    return `${home}/${name}`
  }
  /** Runs a client. Its output must match; otherwise returns the error. */
  const client = async (
    name: string,
    isGood: (ended: Program) => boolean,
    ...words: readonly string[]
  ): Promise<void> => {
    const ended = await run(words, { env: { HOME: home, LC_ALL: 'C' }, cwd: home })
    if (isGood(ended)) served.set(name, (served.get(name) ?? 0) + 1)
    else errors.push(`${name}: ${JSON.stringify(ended.ending)} ${ended.lines.join(' / ').slice(0, 1000)}`)
  }
  const hasPrinted =
    (text: string) =>
    (ended: Program): boolean =>
      ended.ending?.code === 0 && ended.lines.some(line => line.includes(text))

  /** A new message for bob, delivered as a delivery agent does. */
  const deliver = (): void => {
    const name = `${Math.floor(Date.now() / 1000)}.M${delivered++}.mx`
    writeFileSync(`${bob.maildir}/tmp/${name}`, MESSAGE)
    chownSync(`${bob.maildir}/tmp/${name}`, bob.uid, bob.uid)
    renameSync(`${bob.maildir}/tmp/${name}`, `${bob.maildir}/new/${name}`)
  }

  const curl = (url: string, from: string) =>
    client(
      'curl',
      hasPrinted('the end'),
      'curl',
      '-sS',
      '-k',
      '--max-time',
      '60',
      '--interface',
      from,
      '-u',
      `reader:${TEST_PASSWORD}`,
      url,
    )
  const fetchmail = () => {
    const rc = settings(
      'fetchmailrc',
      `poll 127.0.0.1 protocol pop3 port ${site.pop3} user bob password ${TEST_PASSWORD} fetchall nokeep sslproto ""\n`,
    )
    const words = ['-f', rc, '--nosyslog', '-N', '--pidfile', `${home}/pid`, '--mda', `/bin/cat >> ${home}/bob`]
    return client('fetchmail', ({ ending }) => ending?.code === 0 || ending?.code === 1, 'fetchmail', ...words)
  }
  const mpop = () => {
    const lines = [
      'account a',
      'host 127.0.0.1',
      `port ${pop3s}`,
      'tls on',
      'tls_starttls off',
      'tls_certcheck off',
      'auth user',
    ]
    const rest = [
      'user desk',
      `password ${TEST_PASSWORD}`,
      'pipelining on',
      'keep on',
      'only_new off',
      `uidls_file ${home}/uidls`,
    ]
    const rc = settings('mpoprc', [...lines, ...rest, `delivery mbox ${home}/reader`, ''].join('\n'))
    return client('mpop', ({ ending }) => ending?.code === 0, 'mpop', '-q', '-C', rc, 'a')
  }
  const swaks = (from: string, to: string, reply: string) => {
    const hasReply = ({ lines }: Program) => lines.some(line => line.includes(` ${reply} `))
    return client(`swaks, ${reply}`, hasReply, ...swaksCommand(site.smtp, to, '--local-interface', from))
  }

  /** A client that has read mail may send mail; a client that has not may not. */
  const reader = async (round: number): Promise<void> => {
    const ip = site.newcomer()
    await curl(round % 2 === 0 ? `pop3s://127.0.0.1:${pop3s}/1` : `pop3://127.0.0.1:${site.pop3}/2`, ip)
    await swaks(ip, 'somebody@elsewhere.example', '250')
    await swaks('127.240.0.1', 'somebody@elsewhere.example', '553')
  }

  test(`${SOAK.seconds} seconds`, { timeout: SOAK.seconds * 1000 + 180_000 }, async () => {
    const up = site.stack.program('auth-relay')
    const started = performance.now()
    const elapsed = (): number => (performance.now() - started) / 1000
    const samples: Sample[] = []
    const sample = async (): Promise<void> => {
      const { memory, descriptors } = resourcesOf(up.pid)
      samples.push({ seconds: elapsed(), inUse: await liveMemory(up), resident: memory, descriptors })
    }
    const every = async (once: (round: number) => Promise<void>): Promise<void> => {
      for (let round = 0; elapsed() < SOAK.seconds; round++) {
        const next = pause(EVERY_MS)
        await once(round)
        await next
      }
    }
    await Promise.all([
      every(reader),
      every(async () => {
        deliver()
        await fetchmail()
      }),
      every(mpop),
      (async () => {
        for (let n = 1; n <= SAMPLES; n++) {
          await pause(Math.max(0, (n * SOAK.seconds * 1000) / SAMPLES - (performance.now() - started)))
          await sample()
        }
      })(),
    ])
    await pause(2000) // a maildrop does not show messages of the current second
    await fetchmail()
    const fetched = readFileSync(`${home}/bob`, 'latin1').match(/the end$/gm)?.length ?? 0
    console.log(
      table(
        `mixed traffic, ${SOAK.seconds} s`,
        samples.map(({ seconds, inUse, resident, descriptors }) => ({
          seconds: seconds.toFixed(0),
          'memory in use': megabytes(inUse),
          resident: megabytes(resident),
          descriptors,
        })),
      ),
    )
    console.log(
      table(
        'clients',
        [...served].map(([name, times]) => ({ name, served: times })),
      ),
    )
    console.log(`  ${delivered} messages delivered, ${fetched} fetched; ${errors.length} errors`)
    expect(errors).toEqual([])
    expect(fetched).toBe(delivered)
    const levels = samples.slice(Math.floor(SAMPLES / 4))
    const [first, last] = [levels.at(0), levels.at(-1)]
    if (first === undefined || last === undefined) expect.unreachable()
    expect(last.inUse - first.inUse).toBeLessThan(LEVEL.memory)
    expect(last.descriptors - first.descriptors).toBeLessThanOrEqual(LEVEL.descriptors)
    expect(up.lines.filter(line => / level=error /.test(line))).toEqual([])
  })
})
