import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, linkSync, openSync, unlinkSync, writeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import {
  SMTPServer,
  type SMTPServerAddress,
  type SMTPServerDataStream,
  type SMTPServerOptions,
  type SMTPServerSession,
} from 'smtp-server'
import { SMTPConnection } from 'smtp-server/lib/smtp-connection.js'
import type { Log } from '../../base/log.ts'

/** Options of the demo's SMTP server, from its command line and its environment (UCSPI). */
export type DemoSmtpOptions = {
  /** The domain for which it accepts mail from every client. */
  readonly domain: string
  /** The one mailbox of that domain. */
  readonly user: string
  readonly maildir: string
  /** RELAYCLIENT as it is set, even to the empty text: any recipient is taken. */
  readonly relayClient: string | undefined
  readonly remoteIp: string
  readonly remotePort: number
}

/** Largest message, in octets: it is held in memory once. */
const MAX_MESSAGE = 10_485_760
/** Milliseconds without a byte from the client. */
const IDLE = 300_000

/** The greeting goes out at once, so early input of a pipelining client is not a fault here. */
class PromptConnection extends SMTPConnection {
  override init(): void {
    this._setListeners(() => this.connectionReady())
  }
}

/**
 * Speaks SMTP with one client until it disconnects. Mail for others than the demo user is accepted
 * and discarded, so that no mail leaves the machine.
 */
export function serveSmtp(socket: Socket, options: DemoSmtpOptions, log: Log): void {
  const server = new SMTPServer(callbacks(options, log))
  const connection = new PromptConnection(server, socket, {
    remoteAddress: options.remoteIp,
    remotePort: options.remotePort,
  })
  server.connections.add(connection)
  connection.on('error', error => log.warn('client_failed', { reason: error instanceof Error ? error : String(error) }))
  connection.init()
}

function callbacks(options: DemoSmtpOptions, log: Log): SMTPServerOptions {
  const { domain, user, maildir, relayClient, remoteIp } = options
  return {
    name: domain,
    banner: 'auth-relay demo',
    size: MAX_MESSAGE,
    socketTimeout: IDLE,
    disabledCommands: ['AUTH', 'STARTTLS'],
    disableReverseLookup: true,
    // At once, and not a turn of the event loop later: by then the client's first words could be
    // there.
    onConnect: (_session, done) => done(),
    onRcptTo({ address }, _session, done) {
      const refusal = refusalOf(address, options)
      log.info('recipient_answered', {
        ip: remoteIp,
        to: address,
        relay: relayClient !== undefined,
        answer: refusal === undefined ? '250' : String(refusal.responseCode),
      })
      done(refusal)
    },
    onData(stream, session, done) {
      void receive(stream)
        .then(text => {
          if (text === undefined) return done(smtpError(552, 'message is too large for the demo'))
          const recipients = session.envelope.rcptTo.map(({ address }) => address.toLowerCase())
          for (const to of new Set(recipients)) {
            if (to === `${user}@${domain}`) {
              const header = traceHeader(session, to, domain, options)
              const file = deliverToMaildir(maildir, domain, [Buffer.from(header, 'utf8'), text], new Date())
              log.info('message_delivered', { ip: remoteIp, to, octets: text.length, file })
            } else {
              log.info('message_discarded', {
                ip: remoteIp,
                to,
                octets: text.length,
                reason: 'demo: nothing leaves this machine',
              })
            }
          }
          done(null, 'ok: the demo has taken the message')
        })
        .catch((error: unknown) => {
          log.error('delivery_failed', { ip: remoteIp, reason: error instanceof Error ? error : String(error) })
          done(smtpError(451, 'cannot deliver now (#4.3.0)'))
        })
    },
  }
}

/** Why a recipient is refused; undefined if it is taken. */
export function refusalOf(
  address: string,
  { domain, user, relayClient }: Pick<DemoSmtpOptions, 'domain' | 'user' | 'relayClient'>,
): SmtpError | undefined {
  const at = address.lastIndexOf('@')
  const isOurs = address.slice(at + 1).toLowerCase() === domain
  if (isOurs) {
    return address.slice(0, at).toLowerCase() === user ? undefined : smtpError(550, 'no such mailbox here (#5.1.1)')
  }
  if (relayClient !== undefined) return undefined
  return smtpError(553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)")
}

type SmtpError = Error & { readonly responseCode: number }

const smtpError = (responseCode: number, message: string): SmtpError =>
  Object.assign(new Error(message), { responseCode })

/**
 * The message with LF line ends, as a Maildir keeps it; undefined if it was too large (and was read
 * to its end).
 */
async function receive(stream: SMTPServerDataStream): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let octets = 0
  for await (const chunk of stream) {
    if (!Buffer.isBuffer(chunk)) continue
    octets += chunk.length
    if (octets <= MAX_MESSAGE) chunks.push(chunk)
    else chunks.length = 0
  }
  if (octets > MAX_MESSAGE) return undefined
  return Buffer.from(Buffer.concat(chunks).toString('latin1').replaceAll('\r\n', '\n'), 'latin1')
}

const mailFrom = (from: SMTPServerAddress | false): string => (from === false ? '' : from.address)

function traceHeader(session: SMTPServerSession, to: string, domain: string, { remoteIp }: DemoSmtpOptions): string {
  const date = new Date().toUTCString().replace('GMT', '+0000')
  return [
    `Return-Path: <${mailFrom(session.envelope.mailFrom)}>`,
    `Delivered-To: ${to}`,
    `Received: from ${session.hostNameAppearsAs || 'unknown'} ([${remoteIp}]) by ${domain} with SMTP; ${date}`,
    '',
  ].join('\n')
}

/**
 * Delivers a message the way maildir(5) says: written and synced in tmp, then linked into new, so
 * that a reader sees it whole or not at all. Answers the file's name. Throws the file system's
 * error; nothing is left in tmp then.
 */
function deliverToMaildir(maildir: string, host: string, message: readonly Uint8Array[], now: Date): string {
  const seconds = Math.floor(now.getTime() / 1000)
  const safeHost = host.replaceAll('/', '\\057').replaceAll(':', '\\072')
  const name = `${seconds}.R${randomBytes(8).toString('hex')}P${process.pid}.${safeHost}`
  const temporary = join(maildir, 'tmp', name)
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    try {
      for (const part of message) writeFully(fd, part)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    linkSync(temporary, join(maildir, 'new', name))
  } finally {
    unlinkSync(temporary)
  }
  return name
}

function writeFully(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
}
