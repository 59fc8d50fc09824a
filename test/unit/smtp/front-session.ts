import type { Mailbox } from '../../../src/smtp/address.ts'
import { FrontDialogue } from '../../../src/smtp/front-dialogue.ts'
import type { FrontOptions } from '../../../src/smtp/front-options.ts'
import type { FrontRules, Refusal, Reservation } from '../../../src/smtp/transaction.ts'

/**
 * Octets from the notation of the test vectors: `/` is CRLF, `\n \r \0` are octets. One character
 * per octet.
 */
export const octets = (text: string): string =>
  text.replaceAll('/', '\r\n').replaceAll('\\n', '\n').replaceAll('\\r', '\r').replaceAll('\\0', '\0')

const EHLO_REPLY =
  '250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE\r\n250-STARTTLS\r\n250-AUTH LOGIN\r\n250 CHUNKING\r\n'

/** Replies in place of the usual ones, in order, by verb; `.` for the end of a message. */
export type Replies = Readonly<Record<string, readonly string[]>>

/**
 * A server that accepts everything. A message ends at CRLF.CRLF. `saw`: the octets that it read.
 */
class ServerDouble {
  saw = ''
  messages = 0
  hasEnded = false
  readonly #replies: Map<string, string[]>
  #pending = ''
  #inContent = false
  #awaitsAuth = false

  constructor(replies: Replies) {
    this.#replies = new Map(Object.entries(replies).map(([verb, each]) => [verb, [...each]]))
  }

  read(text: string): string {
    this.saw += text
    this.#pending += text
    let serverText = ''
    for (;;) {
      const end = this.#inContent ? this.#endOfContent() : this.#pending.indexOf('\n') + 1
      if (end <= 0) return serverText
      const taken = this.#pending.slice(0, end)
      this.#pending = this.#pending.slice(end)
      serverText += this.#answer(taken)
    }
  }

  #endOfContent(): number {
    const empty = this.#pending.startsWith('.\r\n')
    const at = empty ? 0 : this.#pending.indexOf('\r\n.\r\n')
    return at < 0 ? 0 : at + (empty ? 3 : 5)
  }

  #answer(taken: string): string {
    const verb = this.#inContent ? '.' : this.#awaitsAuth ? '=' : (/^\w*/.exec(taken)?.[0] ?? '').toUpperCase()
    const reply = this.#replies.get(verb)?.shift() ?? usualReply(verb)
    if (verb === '.') {
      this.#inContent = false
      if (reply.startsWith('250')) this.messages += 1
    }
    if (verb === 'DATA' && reply.startsWith('354')) this.#inContent = true
    if (verb === 'AUTH' || verb === '=') this.#awaitsAuth = reply.startsWith('334')
    if (reply.startsWith('221') || reply.startsWith('421') || reply === '') this.hasEnded = true
    return reply === '' ? '' : reply.endsWith('\n') ? reply : `${reply} text\r\n`
  }
}

function usualReply(verb: string): string {
  if (verb === 'EHLO') return EHLO_REPLY
  if (verb === 'DATA') return '354'
  if (verb === 'QUIT') return '221'
  return '250'
}

export type SessionOptions = Partial<Pick<FrontOptions, 'auth'>> & {
  readonly lineEndings?: 'strict' | 'repair'
  readonly rules?: FrontRules
  readonly replies?: Replies
  /** The rules are renewed when nothing else happens, in place of at once. */
  readonly renewsLate?: boolean
  /** Octets of a read, of either side; undefined: as they were written. */
  readonly cut?: number
}

/**
 * A dialogue between a client that writes groups and a ServerDouble, without sockets. The server
 * answers when it has read the group.
 */
export class FrontSession {
  readonly server: ServerDouble
  readonly dialogue: FrontDialogue
  readonly events: string[] = []
  received = ''
  isClosed = false
  serverInputEnded = false
  readonly #cut: number | undefined
  readonly #renewsLate: boolean
  #mustRenew = false
  #toServer = ''
  #unread = ''

  constructor({
    rules = COPIER,
    replies = {},
    cut,
    lineEndings = 'strict',
    auth = 'pass',
    renewsLate = false,
  }: SessionOptions = {}) {
    this.#cut = cut
    this.#renewsLate = renewsLate
    this.server = new ServerDouble(replies)
    this.dialogue = new FrontDialogue({
      rules,
      lineEndings: () => lineEndings,
      auth,
      helloName: '[192.0.2.7]',
      lineEndingAdvice: () => 'device "copier-2": set line_endings = "repair"',
      output: {
        toServer: piece => {
          this.#toServer += Buffer.from(piece).toString('latin1')
        },
        toClient: piece => {
          this.received += Buffer.from(piece).toString('latin1')
        },
        endServer: () => {
          this.serverInputEnded = true
        },
        dropServer: () => {
          this.serverInputEnded = true
          // Octets that were written before can still be read.
          this.server.read(this.#toServer)
          this.#toServer = ''
        },
        discarding: () => {},
        renewRules: () => {
          if (this.#renewsLate) this.#mustRenew = true
          else this.dialogue.rulesRenewed()
        },
        close: () => {
          this.isClosed = true
        },
        event: (name, fields) => {
          this.events.push('reason' in fields ? `${name}:${fields.reason}` : name)
        },
      },
    })
    this.fromServer(replies['banner']?.[0] ?? '220 mx.example.org ESMTP\r\n')
  }

  /** The client writes, and waits until both sides have read all octets. */
  group(text: string): this {
    this.#unread += text
    for (;;) {
      const { dialogue } = this
      while (this.#unread !== '' && dialogue.acceptsInput && !this.isClosed) {
        const size = this.#cut ?? this.#unread.length
        dialogue.fromClient(Buffer.from(this.#unread.slice(0, size), 'latin1'))
        this.#unread = this.#unread.slice(size)
      }
      if (!this.#serverTurn() && !this.#renew()) return this
    }
  }

  /** False if no MAIL waits for the rules. */
  #renew(): boolean {
    if (!this.#mustRenew) return false
    this.#mustRenew = false
    this.dialogue.rulesRenewed()
    return true
  }

  /** False if nothing has happened. */
  #serverTurn(): boolean {
    const text = this.#toServer
    this.#toServer = ''
    if (text === '' || this.server.hasEnded) return false
    const serverText = this.server.read(text)
    this.fromServer(serverText)
    if (this.server.hasEnded && !this.isClosed) this.dialogue.serverEnded()
    return true
  }

  fromServer(serverText: string): void {
    const size = this.#cut ?? Math.max(1, serverText.length)
    for (let at = 0; at < serverText.length; at += size)
      this.dialogue.fromServer(Buffer.from(serverText.slice(at, at + size), 'latin1'))
  }

  end(): this {
    this.dialogue.clientEnded()
    this.group('')
    if (this.serverInputEnded && !this.isClosed) this.dialogue.serverEnded()
    return this
  }

  /** Codes of the replies, the banner left out; `250-` for a line that another follows. */
  get codes(): string {
    return this.received
      .split('\r\n')
      .filter(line => line !== '')
      .map(line => (line[3] === '-' ? line.slice(0, 4) : line.slice(0, 3)))
      .slice(1)
      .join(' ')
  }
}

/** Device copier-2 of the specification. */
const SENDER = 'scan@example.org'
const DOMAINS: ReadonlySet<string> = new Set([
  'example.org',
  'partner.example',
  'xn--bcher-kva.example',
  'bücher.example',
])

const domainOf = ({ domain = '' }: Mailbox): string =>
  Buffer.from(domain, 'latin1').toString().toLowerCase().replace(/\.$/, '')

/** The device's rules with separate counts; `messages` and `recipients` are what remains. */
export class TestRules implements FrontRules {
  messages: number
  recipients: number

  constructor(messages = 60, recipients = 1000) {
    this.messages = messages
    this.recipients = recipients
  }

  sender(sender: Mailbox | undefined): Refusal | undefined {
    if (this.messages === 0)
      return { rule: 'messages_per_address', reply: '450 4.7.1 device "copier-2" has sent 60 messages in an hour' }
    if (sender === undefined || `${sender.local}@${domainOf(sender)}` === SENDER) return undefined
    return { rule: 'sender', reply: '550 5.7.1 device "copier-2" may not send as that' }
  }

  message(): Refusal | Reservation {
    if (this.messages === 0) return { rule: 'messages_per_address', reply: '450 4.7.1 too many messages' }
    this.messages -= 1
    return {
      giveBack: () => {
        this.messages += 1
      },
    }
  }

  recipient(recipient: Mailbox | undefined): Refusal | Reservation {
    const isOurs =
      recipient !== undefined &&
      (recipient.written.toLowerCase() === 'postmaster' ||
        (DOMAINS.has(domainOf(recipient)) && !/[%!@]/.test(recipient.local)))
    if (!isOurs) return { rule: 'recipient', reply: '550 5.7.1 device "copier-2" may not send there' }
    if (this.recipients === 0) return { rule: 'messages_per_address', reply: '450 4.7.1 too many recipients' }
    this.recipients -= 1
    return {
      giveBack: () => {
        this.recipients += 1
      },
    }
  }
}

const COPIER = new TestRules(1e9, 1e9)
