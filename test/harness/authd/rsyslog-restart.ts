import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import type { Database } from '../../../src/database/database.ts'
import { int8 } from '../../../src/database/statement.ts'
import { eventually } from '../eventually.ts'
import { Program } from '../processes/program.ts'
import { pathOf } from '../runner/describe-with.ts'
import { publicAddress } from './authd-client.ts'

/** The action of deploy/rsyslog/to-authd-tcp.conf with another port. */
function documentedRule(port: number): string {
  const text = readFileSync(new URL('../../../deploy/rsyslog/to-authd-tcp.conf', import.meta.url), 'utf8')
  const rule = /^mail\.info action\([^)]*^\)$/ms.exec(text)?.[0].replace('port="6514"', `port="${port}"`)
  if (rule?.includes(`"${port}"`) !== true) throw new Error('to-authd-tcp.conf has no rule for port 6514')
  return rule
}

/** rsyslogd in the foreground, with its own input socket `directory/log` and these rules. */
export async function startRsyslog(directory: string, rules: string): Promise<Program> {
  writeFileSync(
    `${directory}/rsyslog.conf`,
    [
      `global(workDirectory="${directory}")`,
      'module(load="imuxsock" SysSock.Use="off")',
      `input(type="imuxsock" Socket="${directory}/log" RateLimit.Interval="0")`,
      rules,
      '',
    ].join('\n'),
  )
  const arguments_ = ['-n', '-f', `${directory}/rsyslog.conf`, '-i', `${directory}/rsyslog.pid`]
  const program = new Program('rsyslogd', [pathOf('rsyslogd') ?? 'rsyslogd', ...arguments_])
  await program.waitFor('rsyslogd listens', () => existsSync(`${directory}/log`))
  return program
}

/** Waits until the count is as expected, or has not changed for 20 s. */
async function settledCount(wanted: number, count: () => Promise<number>): Promise<number> {
  let last = await count()
  let changed = performance.now()
  return eventually(
    `${wanted} logins, or no more`,
    async () => {
      const now = await count()
      if (now !== last) changed = performance.now()
      last = now
      return now >= wanted || performance.now() - changed > 20_000 ? now : undefined
    },
    240_000,
  )
}

export type RestartUnderLoad = {
  readonly directory: string
  readonly database: Database
  /** Login lines, each with a different address. */
  readonly logins: number
  /** Address at which authd listens. */
  readonly port: number
  readonly stopAuthd: () => Promise<unknown>
  readonly startAuthd: () => Promise<unknown>
}

/**
 * A real rsyslogd delivers logins to authd. authd is stopped while lines arrive, stays down for
 * some of them, and starts again. Returns the number of logins in the history before the restart,
 * after it, and at the end.
 */
export async function restartUnderLoad(options: RestartUnderLoad): Promise<{ before: number; stored: number }> {
  const { directory, database, logins, port, stopAuthd, startAuthd } = options
  const rsyslogd = await startRsyslog(directory, documentedRule(port))
  const sendLines = async (from: number, to: number): Promise<void> => {
    const file = `${directory}/lines.${from}`
    const lines = Array.from(
      { length: to - from },
      (_, n) => `Login user=ann host=[${publicAddress(from + n)}] nmsgs=1/1\n`,
    )
    writeFileSync(file, lines.join(''))
    const words = ['-u', `${directory}/log`, '-t', 'ipop3d', '-p', 'mail.info', '--id=77', '-f', file]
    const { code } = await new Program('logger', [pathOf('logger') ?? 'logger', ...words]).ended
    if (code !== 0) throw new Error(`logger ended with ${code}`)
  }
  const count = async (): Promise<number> => {
    const { rows } = await database.query({
      row: v.object({ n: int8 }),
      text: 'SELECT count(DISTINCT ip) AS n FROM login_event',
    })
    return rows[0]?.n ?? 0
  }
  try {
    const half = Math.ceil(logins / 2)
    const flowing = sendLines(0, half)
    await eventually('the first logins are stored', async () => (await count()) > 0)
    await stopAuthd()
    const before = await count()
    await flowing
    await sendLines(half, logins)
    await startAuthd()
    return { before, stored: await settledCount(logins, count) }
  } finally {
    await rsyslogd.stop()
  }
}
