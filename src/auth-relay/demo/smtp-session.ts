/** The SMTP server of the demo. It delivers to one mailbox and discards all other mail. */

import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, linkSync, openSync, unlinkSync, writeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { asError } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { type Command, type CommandLine, CommandReader, parseCommand } from '../../smtp/command.ts'
import { StrictContent } from '../../smtp/content.ts'
import { formatReply } from '../../smtp/reply.ts'

/** Options of the demo's SMTP server, from its command line and its environment (UCSPI). */
export type DemoSmtpOptions = {
  /** The domain for which it accepts mail from every client. */
  readonly domain: string
  /** The one mailbox of that domain. */
  readonly user: string
  readonly maildir: string
  /** RELAYCLIENT as it is set, even to the empty text: every recipient is accepted. */
  readonly relayClient: string | undefined
  readonly remoteIp: string
}

/** Largest message, in octets: it is held in memory once. */
const MAX_MESSAGE_OCTETS = 10_485_760
/** Milliseconds without a byte from the client. */
const IDLE_MS = 300_000
const MAX_RECIPIENTS = 100
/** Refused commands after which the connection is closed. */
const MAX_REFUSALS = 20

/**
 * Speaks SMTP with one client until it disconnects. Mail for others than the demo user is accepted
 * and discarded, so that no mail leaves the machine.
 */
export function serveSmtp(socket: Socket, options: DemoSmtpOptions, log: Log): void {
  const session = new DemoSession(options, log, {
    write: octets => void socket.write(octets),
    close: () => void socket.end(),
  })
  socket.on('error', error => log.warn('client_failed', { reason: error }))
  socket.on('end', () => socket.end())
  socket.setTimeout(IDLE_MS, () => session.timedOut())
  socket.on('data', octets => session.push(octets))
  session.start()
}

/** Output of a session. */
export type DemoClient = { write(octets: Buffer): void; close(): void }

/** The message of which the client sends the content. */
type Message = { readonly content: StrictContent; readonly chunks: Buffer[]; octets: number }

const NOTHING: Buffer = Buffer.alloc(0)

/** The dialogue with one client. Every command is answered at once. */
export class DemoSession {
  readonly #options: DemoSmtpOptions
  readonly #log: Log
  readonly #client: DemoClient
  readonly #commands = new CommandReader()
  #helloName: string | undefined
  /** Of MAIL: the text between the brackets. */
  #sender: string | undefined
  #recipients: string[] = []
  #message: Message | undefined
  #refusals = 0
  #isOver = false

  constructor(options: DemoSmtpOptions, log: Log, client: DemoClient) {
    this.#options = options
    this.#log = log
    this.#client = client
  }

  start(): void {
    this.#reply(`220 ${this.#options.domain} ESMTP auth-relay demo`)
  }

  timedOut(): void {
    this.#end('421 timeout (#4.4.2)')
  }

  push(octets: Buffer): void {
    let rest = octets
    while (rest.length > 0 && !this.#isOver) {
      if (this.#message === undefined) {
        this.#commands.push(rest)
        rest = this.#runCommands()
      } else rest = this.#receive(this.#message, rest)
    }
  }

  /** Returns the octets that are content of a message. */
  #runCommands(): Buffer {
    while (!this.#isOver && this.#message === undefined) {
      const line = this.#commands.next(false)
      if (line === undefined) return NOTHING
      this.#run(line)
    }
    return this.#commands.rest()
  }

  #run(line: CommandLine): void {
    if (line.kind === 'line') this.#obey(parseCommand(line.text))
    else if (line.kind === 'tls_hello') this.#end('554 TLS is not spoken here (#5.5.1)')
    else if (line.kind === 'tooLong') this.#refuse('500 the line is too long (#5.5.2)')
    else this.#refuse('500 the line has a control character (#5.5.2)')
  }

  #obey(command: Command): void {
    switch (command.kind) {
      case 'hello':
        this.#hello(command.verb, command.sent)
        break
      case 'mail':
        this.#mail(command.sender?.written ?? '')
        break
      case 'recipient':
        this.#recipient(command.recipient?.written ?? '')
        break
      case 'data':
        this.#data()
        break
      case 'reset':
        this.#reset()
        this.#reply('250 ok')
        break
      case 'quit':
        this.#end('221 bye')
        break
      case 'fault':
        this.#refuse(command.reply)
        break
      case 'chunk':
        // The remaining octets of the chunk would be read as commands.
        this.#end('502 BDAT is not supported (#5.5.1)')
        break
      case 'auth':
      case 'hidden':
        this.#refuse('502 the command is not supported (#5.5.1)')
        break
      case 'other':
        if (/^noop\b/i.test(command.line)) this.#reply('250 ok')
        else if (/^vrfy\b/i.test(command.line)) this.#reply('252 send mail to find out')
        else this.#refuse('500 unknown command (#5.5.1)')
    }
  }

  #hello(verb: 'HELO' | 'EHLO', name: string): void {
    if (name === '') {
      this.#refuse(`501 syntax: ${verb} host.example (#5.5.4)`)
      return
    }
    this.#helloName = name
    this.#reset()
    const { domain } = this.#options
    const extended = [`250-${domain}`, '250-PIPELINING', '250-8BITMIME', `250 SIZE ${MAX_MESSAGE_OCTETS}`]
    for (const line of verb === 'HELO' ? [`250 ${domain}`] : extended) this.#reply(line)
  }

  #mail(sender: string): void {
    if (this.#helloName === undefined) this.#refuse('503 EHLO comes first (#5.5.1)')
    else if (this.#sender !== undefined) this.#refuse('503 a message has begun (#5.5.1)')
    else {
      this.#sender = sender
      this.#reply('250 ok')
    }
  }

  #recipient(address: string): void {
    const refusal = this.#refusalOf(address)
    if (refusal !== undefined) this.#refuse(refusal)
    else {
      this.#recipients.push(address.toLowerCase())
      this.#reply('250 ok')
    }
  }

  #refusalOf(address: string): string | undefined {
    if (this.#sender === undefined) return '503 MAIL comes first (#5.5.1)'
    if (this.#recipients.length >= MAX_RECIPIENTS) return '452 too many recipients (#4.5.3)'
    const { remoteIp, relayClient } = this.#options
    const refusal = refusalOf(address, this.#options)
    this.#log.info('recipient_answered', {
      ip: remoteIp,
      recipient: address,
      relay: relayClient !== undefined,
      code: refusal?.slice(0, 3) ?? '250',
    })
    return refusal
  }

  #data(): void {
    if (this.#recipients.length === 0) this.#refuse('503 RCPT comes first (#5.5.1)')
    else {
      this.#message = { content: new StrictContent(), chunks: [], octets: 0 }
      this.#reply('354 end with a line that holds a dot alone')
    }
  }

  /** Returns the octets behind the message. */
  #receive(message: Message, octets: Buffer): Buffer {
    const { state, taken } = message.content.push(octets, piece => {
      message.octets += piece.length
      if (message.octets <= MAX_MESSAGE_OCTETS) message.chunks.push(Buffer.from(piece))
    })
    if (state === 'violation') {
      this.#end('550 the message has a line that does not end with CR LF, or NUL (#5.5.2)')
      return NOTHING
    }
    if (state === 'end') {
      this.#message = undefined
      if (message.octets > MAX_MESSAGE_OCTETS) this.#refuse('552 message is too large for the demo (#5.3.4)')
      else this.#deliver(contentOf(message.chunks))
      this.#reset()
    }
    return octets.subarray(taken)
  }

  #deliver(text: Buffer): void {
    const { user, domain, maildir, remoteIp } = this.#options
    try {
      for (const recipient of new Set(this.#recipients)) {
        const octets = text.length
        if (recipient === `${user}@${domain}`) {
          const header = Buffer.from(this.#traceHeader(recipient), 'latin1')
          const file = deliverToMaildir(maildir, domain, [header, text], new Date())
          this.#log.info('message_delivered', { ip: remoteIp, recipient, octets, file })
        } else {
          const reason = 'demo: nothing leaves this machine'
          this.#log.info('message_discarded', { ip: remoteIp, recipient, octets, reason })
        }
      }
      this.#reply('250 ok: the demo has taken the message')
    } catch (error) {
      this.#log.error('delivery_failed', { ip: remoteIp, reason: asError(error) })
      this.#reply('451 cannot deliver now (#4.3.0)')
    }
  }

  #traceHeader(to: string): string {
    const { domain, remoteIp } = this.#options
    const date = new Date().toUTCString().replace('GMT', '+0000')
    return [
      `Return-Path: <${this.#sender ?? ''}>`,
      `Delivered-To: ${to}`,
      `Received: from ${this.#helloName ?? 'unknown'} ([${remoteIp}]) by ${domain} with SMTP; ${date}`,
      '',
    ].join('\n')
  }

  #reset(): void {
    this.#sender = undefined
    this.#recipients = []
  }

  #refuse(reply: string): void {
    this.#refusals += 1
    if (this.#refusals >= MAX_REFUSALS) this.#end('421 too many refused commands (#4.7.0)')
    else this.#reply(reply)
  }

  #reply(reply: string): void {
    this.#client.write(formatReply(reply))
  }

  #end(reply: string): void {
    this.#isOver = true
    this.#reply(reply)
    this.#client.close()
  }
}

/** The reply that refuses a recipient; undefined if the recipient is accepted. */
export function refusalOf(
  address: string,
  { domain, user, relayClient }: Pick<DemoSmtpOptions, 'domain' | 'user' | 'relayClient'>,
): string | undefined {
  const at = address.lastIndexOf('@')
  const isOurs = address.slice(at + 1).toLowerCase() === domain
  if (isOurs) return address.slice(0, at).toLowerCase() === user ? undefined : '550 no such mailbox here (#5.1.1)'
  if (relayClient !== undefined) return undefined
  return "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
}

/**
 * The message with LF line ends, as a Maildir keeps it: without the final dot, and without the
 * stuffed ones (RFC 5321 section 4.5.2).
 */
const contentOf = (chunks: readonly Buffer[]): Buffer =>
  Buffer.from(
    Buffer.concat(chunks).toString('latin1').slice(0, -'.\r\n'.length).replaceAll('\r\n', '\n').replace(/^\./gm, ''),
    'latin1',
  )

/**
 * Delivers a message as in maildir(5): written and synced in tmp, then linked into new, so that a
 * reader sees all of it or nothing. Returns the name of the file. Throws the file system's error;
 * no file is then left in tmp.
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
