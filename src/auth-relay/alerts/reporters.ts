/** The ways to report an alarm, mail, webhook and program, and the form of each report. */

import { spawn } from 'node:child_process'
import { UsageFault } from '../../base/errors.ts'
import type { AlarmRule } from '../../grants/alarms.ts'
import { readSecretFile, type Secret } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'
import { printable } from '../text/terminal.ts'

/** One start or end of an alarm, as shown in the mail and in the JSON. */
export type AlertMessage = Pick<AlarmRule, 'summary' | 'remedy' | 'severity'> & {
  readonly rule: string
  readonly state: 'start' | 'end'
  /** The login, the address, the device or the host. */
  readonly subject: string
  readonly detail: string
  readonly since: Date
  readonly until: Date | null
  /** The host that reports. */
  readonly host: string
}

/** A way to report an alarm. Rejects if the message was not sent. */
export type Reporter = { readonly name: string; send(message: AlertMessage): Promise<void> }

/** Milliseconds for one mail, one request or one program. */
const LIMIT_MS = 20_000

/**
 * Every way that the settings name. Reads the secret URL.
 * @throws UsageFault for an address or a URL that cannot be used.
 */
export function reportersOf({ alerts }: Pick<Settings, 'alerts'>): readonly Reporter[] {
  const { mail_to, mail_from, sendmail, webhook_file, program } = alerts
  for (const [setting, addresses] of Object.entries({ mail_to, mail_from: mail_from === '' ? [] : [mail_from] }))
    for (const address of addresses)
      if (!/^[\x21-\x7e]+$/.test(address) || address.startsWith('-') || /[<>,;:"]/.test(address))
        throw new UsageFault({
          setting: `alerts.${setting}`,
          fact: `${printable(address)} is not an address`,
          remedy: 'write postmaster@example.org',
        })
  return [
    ...(mail_to.length === 0 ? [] : [mailReporter(mail_to, mail_from, sendmail)]),
    ...(webhook_file === '' ? [] : [webhookReporter(readUrl(webhook_file))]),
    ...(program.length === 0
      ? []
      : [{ name: 'program', send: (message: AlertMessage) => run(program, `${JSON.stringify(jsonOf(message))}\n`) }]),
  ]
}

const mailReporter = (to: readonly string[], from: string, sendmail: readonly string[]): Reporter => ({
  name: 'mail',
  send: message => {
    const sender = from === '' ? [] : ['-f', from]
    return run([...sendmail, ...sender, '--', ...to], formatMail(message, to, from))
  },
})

const webhookReporter = (url: Secret): Reporter => ({
  name: 'webhook',
  send: async message => {
    const failure = await fetch(url.reveal(), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(jsonOf(message)),
      redirect: 'error',
      signal: AbortSignal.timeout(LIMIT_MS),
    }).then(
      async response => {
        await response.body?.cancel()
        return response.ok ? undefined : `it answered ${response.status}`
      },
      // The message of the error may contain the URL.
      () => `it cannot be reached within ${LIMIT_MS / 1000} s`,
    )
    if (failure !== undefined) throw new Error(`the webhook: ${failure}`)
  },
})

function readUrl(file: string): Secret {
  const url = readSecretFile(file)
  if (!/^https?:$/.test(URL.parse(url.reveal())?.protocol ?? ''))
    throw new UsageFault({
      setting: 'alerts.webhook_file',
      fact: `${file} holds no URL`,
      remedy: 'write https://example.org/PATH on its first line',
    })
  return url
}

/** The JSON for a webhook and a program. */
const jsonOf = ({ since, until, ...rest }: AlertMessage) => ({
  ...rest,
  since: since.toISOString(),
  until: until?.toISOString() ?? null,
})

/** RFC 5322. A login name is hostile text: it can neither begin a line nor leave the subject. */
export function formatMail(message: AlertMessage, to: readonly string[], from: string): string {
  const { rule, state, subject, detail, summary, remedy, since, until, host } = message
  const word = state === 'start' ? 'ALARM' : 'over'
  const head = [
    ...(from === '' ? [] : [`From: auth-relay <${from}>`]),
    `To: ${to.join(', ')}`,
    `Subject: [auth-relay] ${word}: ${rule} ${asciiOf(subject)}`,
    'Auto-Submitted: auto-generated',
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: 8bit',
  ]
  const body = [
    summary,
    '',
    `about:  ${printable(subject)}`,
    `found:  ${printable(detail)}`,
    `since:  ${since.toISOString()}`,
    ...(until === null ? [] : [`until:  ${until.toISOString()}`]),
    `host:   ${host}`,
    ...(state === 'start' ? [`to do:  ${remedy}`] : []),
  ]
  return `${head.join('\n')}\n\n${body.join('\n')}\n`
}

const asciiOf = (text: string): string => text.slice(0, 200).replace(/[^\x20-\x7e]/g, '?')

/** Runs a program with a text on standard input. Rejects unless it ends with 0 in time. */
function run([file = '', ...args]: readonly string[], input: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['pipe', 'ignore', 'ignore'], timeout: LIMIT_MS, killSignal: 'SIGKILL' })
    child.once('error', error => reject(new Error(`${file}: ${error.message}`)))
    child.once('close', (code, signal) => {
      if (code === 0) resolve()
      else reject(new Error(`${file} ended with ${code === null ? signal : `status ${code}`}`))
    })
    child.stdin.on('error', () => {}) // A program need not read its input.
    child.stdin.end(input)
  })
}
