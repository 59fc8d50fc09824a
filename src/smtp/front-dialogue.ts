/** The SMTP dialogue that the front leads between a client and its smtpd. */
import { beginsMessage, type Command, type CommandLine, CommandReader, parseCommand } from './command.ts'
import { type Content, DiscardedContent, RepairedContent, StrictContent } from './content.ts'
import type { FrontEnd, FrontHabit, FrontOptions, FrontOutput, RefusedAddress } from './front-options.ts'
import { EhloReply, formatReply, type ReplyLine, ReplyReader } from './reply.ts'
import { type Refusal, type Settlement, Transactions } from './transaction.ts'

type MailCommand = Extract<Command, { kind: 'mail' }>

/** Pending replies above which no further command is read. */
const MAX_ENTRIES = 100
const MAX_SYNTAX_FAULTS = 20
const MAIL_REFUSED = '503 5.5.1 MAIL was refused'
const UNAVAILABLE = '502 5.5.1 command not available here'

/** A reply that the client gets in order: the server's reply, or one of the front. */
type Entry =
  | { readonly kind: 'own'; readonly reply: string }
  /** `command`: also the end of a message that was passed. */
  | { readonly kind: 'banner' | 'command' | 'hello' | 'quit' | 'auth'; readonly settlement?: Settlement }
  /** With `reply`, the front refuses the command itself. */
  | { readonly kind: 'data'; readonly reply?: string }

/**
 * State of the dialogue, which decides how the client's octets are used:
 * - `commands`: lines are checked and passed.
 * - `renewing`: MAIL, and each line after it, waits until the rules are renewed.
 * - `held`: octets are kept, because the reply to DATA decides whether content follows.
 * - `auth`: lines are passed to the server, because the reply to AUTH is pending.
 * - `content`: octets are the content of a message.
 * - `discarding`: octets are the content of a refused message.
 * - `quitting`: QUIT was passed.
 * - `answering`: the session ends with the last reply.
 *
 * No command is read in the last three states and after the session is closed.
 */
type State = 'commands' | 'renewing' | 'held' | 'auth' | 'content' | 'discarding' | 'quitting' | 'answering' | 'closed'

/**
 * An SMTP session between a client and its own smtpd. The class uses neither sockets nor time.
 *
 * Commands are checked in the order in which the client sends them, and replies leave in that
 * order: `#entries` has one entry for each command without a reply. The front never adds a command
 * and never replies with 2xx or 3xx.
 *
 * Octets that could be content never run as commands. Octets between DATA and its reply are held:
 * after 354 they are content. If there are any, each other reply ends the session. Octets behind
 * BDAT are never read.
 */
export class FrontDialogue {
  readonly #options: FrontOptions
  readonly #output: FrontOutput
  readonly #reader = new CommandReader()
  readonly #replies = new ReplyReader()
  readonly #entries: Entry[] = [{ kind: 'banner' }]
  readonly #ehlo: EhloReply
  #state: State = 'commands'
  readonly #transactions = new Transactions()
  /** The MAIL command that waits until the rules are renewed. */
  #waitingMail: MailCommand | undefined
  #content: Content | undefined
  readonly #discarded = new DiscardedContent()
  #syntaxFaults = 0
  #clientHasEnded = false
  #serverInputEnded = false
  #authOffered = false
  readonly #reported = new Set<FrontHabit[0]>()

  constructor(options: FrontOptions) {
    this.#options = options
    this.#output = options.output
    this.#ehlo = new EhloReply(options.auth === 'hide')
  }

  /**
   * True if the dialogue can use more octets of the client. Otherwise the client must not be read.
   */
  get acceptsInput(): boolean {
    const hasRoom = this.#reader.pending === 0
    if (this.#state === 'commands') return hasRoom || this.#entries.length < MAX_ENTRIES
    if (this.#state === 'auth') return hasRoom || this.#entries.length === 0
    if (this.#state === 'held' || this.#state === 'renewing') return hasRoom
    return this.#state === 'content' || this.#state === 'discarding'
  }

  fromClient(octets: Uint8Array): void {
    switch (this.#state) {
      case 'content':
        this.#passContent(octets)
        return
      case 'discarding':
        this.#discard(octets)
        return
      case 'quitting':
      case 'answering':
      case 'closed':
        return
      case 'commands':
      case 'renewing':
      case 'held':
      case 'auth':
        this.#reader.push(octets)
        this.#run()
    }
  }

  /** The client has ended its output. It may still read. */
  clientEnded(): void {
    if (this.#state === 'closed' || this.#clientHasEnded) return
    this.#clientHasEnded = true
    if (this.#state === 'discarding') this.#refuseContent()
    else this.#run()
  }

  fromServer(octets: Uint8Array): void {
    if (this.#state === 'closed' || this.#state === 'discarding') return
    let lines: readonly ReplyLine[]
    try {
      lines = this.#replies.push(octets)
    } catch {
      this.#breakOff('no_reply', '421 4.3.0 the mail server gave no SMTP reply')
      return
    }
    for (const line of lines) {
      this.#receiveLine(line)
      if (this.#isClosed()) return
    }
    this.#run()
  }

  serverEnded(): void {
    if (this.#state === 'closed' || this.#state === 'discarding') return
    const isExpected = this.#state === 'quitting' || this.#clientHasEnded
    if (isExpected && this.#entries.length === 0) this.#close()
    else this.#breakOff('server_ended', '421 4.3.0 the mail server behind ended the session')
  }

  /**
   * Ends the session with `reply`, which names the cause; `reason` is for the log. While content is
   * discarded, the reply that refuses the message is sent instead.
   */
  endSession(reason: FrontEnd, reply: string): void {
    if (this.#state === 'discarding') this.#refuseContent()
    else if (this.#state !== 'closed') this.#breakOff(reason, reply)
  }

  /** Checks the MAIL that waits for `renewRules`, then reads the lines after it. */
  rulesRenewed(): void {
    const command = this.#waitingMail
    this.#waitingMail = undefined
    if (command === undefined || this.#state !== 'renewing') return
    this.#state = 'commands'
    this.#checkMail(command)
    if (!this.#isClosed()) this.#run()
  }

  #isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** Runs the complete lines as long as the state permits commands. */
  #run(): void {
    while (this.#entries.length < MAX_ENTRIES && (this.#state === 'commands' || this.#state === 'auth')) {
      const isAuth = this.#state === 'auth'
      if (isAuth && this.#entries.length > 0) break
      const line = this.#reader.next(isAuth)
      if (line === undefined) break
      if (isAuth) this.#passAuthLine(line)
      else this.#take(line)
    }
    if (this.#clientHasEnded && !this.#serverInputEnded && this.#mayEndServer()) {
      this.#serverInputEnded = true
      this.#output.endServer()
    }
  }

  /**
   * True if the server's input can end after the client's. Half a line is dropped. Complete lines
   * that wait and held octets must be processed first.
   */
  #mayEndServer(): boolean {
    if (this.#state === 'commands') return this.#entries.length < MAX_ENTRIES
    if (this.#state === 'renewing') return false
    if (this.#state === 'held') return this.#reader.pending === 0
    return this.#state !== 'auth' || this.#entries.length === 0
  }

  #take(line: CommandLine): void {
    switch (line.kind) {
      case 'tls_hello':
        this.#breakOff('tls_hello', '421 4.7.0 this port speaks SMTP in clear text')
        return
      case 'tooLong':
        this.#fault(line.verb, '500 5.5.2 line too long')
        return
      case 'control_character':
        this.#fault(line.verb, '500 5.5.2 control character in a command')
        return
      case 'line':
        this.#command(parseCommand(line.text))
    }
  }

  #command(command: Command): void {
    switch (command.kind) {
      case 'fault':
        this.#fault(command.verb, command.reply)
        return
      case 'hidden':
        if (beginsMessage(command.verb)) this.#transactions.current.mailIsRefused = true
        this.#answer(UNAVAILABLE)
        return
      case 'chunk':
        this.#refuseChunk(UNAVAILABLE)
        return
      case 'mail':
        this.#mail(command)
        return
      case 'recipient':
        this.#recipient(command)
        return
      case 'data':
        this.#data(command.line)
        return
      case 'auth':
        if (this.#options.auth === 'hide') this.#answer(UNAVAILABLE)
        else {
          this.#pass(command.line, { kind: 'auth' })
          this.#state = 'auth'
        }
        return
      case 'hello': {
        const { name, sent, verb } = command
        if (name === undefined) this.#reportOnce('hello_replaced', { helo: sent })
        this.#pass(`${verb} ${name ?? this.#options.helloName}`, {
          kind: verb === 'EHLO' ? 'hello' : 'command',
          settlement: this.#transactions.begin(),
        })
        return
      }
      case 'reset':
        this.#pass(command.line, { kind: 'command', settlement: this.#transactions.begin() })
        return
      case 'quit':
        this.#pass(command.line, { kind: 'quit' })
        this.#state = 'quitting'
        return
      case 'other':
        this.#pass(command.line, { kind: 'command' })
    }
  }

  #mail(command: MailCommand): void {
    this.#waitingMail = command
    this.#state = 'renewing'
    this.#output.renewRules()
  }

  #checkMail({ line, sender }: MailCommand): void {
    const refusal = this.#options.rules.sender(sender)
    if (refusal !== undefined) {
      this.#transactions.current.mailIsRefused = true
      this.#refuse(refusal, { sender: sender?.written ?? '' })
      return
    }
    this.#pass(line, { kind: 'command', settlement: this.#transactions.begin() })
  }

  #recipient({ line, recipient }: Extract<Command, { kind: 'recipient' }>): void {
    if (this.#transactions.current.mailIsRefused) {
      this.#answer(MAIL_REFUSED)
      return
    }
    const { rules } = this.#options
    const settlement = this.#transactions.reserve(
      () => rules.message(),
      () => rules.recipient(recipient),
    )
    if ('rule' in settlement) this.#refuse(settlement, { recipient: recipient?.written ?? '' })
    else this.#pass(line, { kind: 'command', settlement })
  }

  #data(line: string): void {
    const { mailIsRefused, noRecipients } = this.#transactions.current
    const reply = mailIsRefused ? MAIL_REFUSED : noRecipients
    if (reply !== undefined) this.#refuseData(reply)
    else {
      this.#state = 'held'
      this.#pass(line, { kind: 'data' })
    }
  }

  /** Content may follow without waiting for the reply, so later octets are held until then. */
  #refuseData(reply: string): void {
    this.#state = 'held'
    this.#enter({ kind: 'data', reply })
  }

  /** The octets behind BDAT are content and must not run as commands, so the session ends. */
  #refuseChunk(reply: string): void {
    this.#answer(reply)
    if (!this.#isClosed()) this.#state = 'answering'
    this.#closeWhenAnswered()
  }

  /**
   * Passes a line of an AUTH dialogue. The server has requested the line, so the line cannot be a
   * command.
   */
  #passAuthLine(line: CommandLine): void {
    if (line.kind === 'line') this.#pass(line.text, { kind: 'auth' })
    else this.#breakOff('auth_line', '421 4.7.0 the answer to AUTH is no text of one line')
  }

  #pass(line: string, entry: Entry): void {
    this.#output.toServer(Buffer.from(`${line}\r\n`, 'latin1'))
    this.#entries.push(entry)
  }

  /** Queues a reply of the front behind the pending replies. */
  #answer(reply: string): void {
    this.#enter({ kind: 'own', reply })
  }

  #enter(entry: Entry): void {
    this.#entries.push(entry)
    if (this.#entries.length === 1) this.#writeOwn()
  }

  /** Reports a habit of the device. A device may repeat it without an end. */
  #reportOnce(...habit: FrontHabit): void {
    const [name] = habit
    if (this.#reported.has(name)) return
    this.#reported.add(name)
    this.#output.event(...habit)
  }

  #refuse({ rule, reply }: Refusal, address: RefusedAddress): void {
    this.#output.event('mail_refused', { reason: rule, ...address })
    this.#answer(reply)
  }

  /** Refuses a command with invalid syntax. It has the effect of one that a rule refuses. */
  #fault(verb: string, reply: string): void {
    const transaction = this.#transactions.current
    this.#syntaxFaults += 1
    if (this.#syntaxFaults >= MAX_SYNTAX_FAULTS) this.#breakOff('too_many_errors', '421 4.7.0 too many errors')
    else if (verb === 'DATA') this.#refuseData(reply)
    else if (verb === 'BDAT') this.#refuseChunk(reply)
    else if (verb === 'RCPT' && transaction.mailIsRefused) this.#answer(MAIL_REFUSED)
    else {
      if (verb === 'RCPT') transaction.recipientRefused(reply)
      else if (beginsMessage(verb)) transaction.mailIsRefused = true
      this.#answer(reply)
    }
  }

  /** Sends the front's replies at the head of the queue. */
  #writeOwn(): void {
    for (let [first] = this.#entries; first !== undefined; [first] = this.#entries) {
      if (!('reply' in first) || first.reply === undefined) break
      this.#entries.shift()
      this.#output.toClient(formatReply(first.reply))
      if (first.kind === 'data') this.#dataRefused()
      if (this.#isClosed()) return
    }
    this.#closeWhenAnswered()
  }

  #closeWhenAnswered(): void {
    if (this.#state === 'answering' && this.#entries.length === 0) this.#close()
  }

  /** Handles a refusal of DATA. The session ends if octets behind DATA may be content. */
  #dataRefused(): void {
    if (this.#reader.pending > 0) {
      this.#output.event('front_ended', { reason: 'early_data_refused' })
      this.#close()
    } else this.#state = 'commands'
  }

  #receiveLine(line: ReplyLine): void {
    const [entry] = this.#entries
    if (entry?.kind === 'hello') {
      const reply = this.#ehlo.push(line)
      if (reply === 'tooLong') {
        this.#breakOff('no_reply', '421 4.3.0 the mail server gave no SMTP reply')
        return
      }
      if (reply === 'unfinished') return
      this.#output.toClient(reply.octets)
      this.#authOffered = reply.offersAuth
    } else {
      this.#output.toClient(line.octets)
      if (!line.isLast) return
    }
    if (line.code === 421 || entry === undefined || this.#state === 'content') {
      // The server ends the session, or replies without a command. Later replies could not be
      // matched to commands.
      const reason = this.#state === 'content' ? 'early_reply' : 'server_reply'
      this.#output.event('front_ended', { reason, code: `${line.code}` })
      this.#output.endServer()
      this.#close()
      return
    }
    this.#entries.shift()
    this.#answered(entry, line.code)
    if (!this.#isClosed()) this.#writeOwn()
  }

  /** Handles the server's reply to a command. */
  #answered(entry: Entry, code: number): void {
    const isDone = code >= 200 && code < 300
    if ('settlement' in entry) entry.settlement?.answered(isDone)
    switch (entry.kind) {
      case 'data':
        if (code === 354) this.#beginContent()
        else this.#dataRefused()
        return
      case 'auth':
        if (code === 334) return
        if (code >= 500 && !this.#authOffered) this.#reportOnce('auth_refused', {})
        this.#state = 'commands'
        return
      case 'quit':
        if (!isDone) this.#state = 'commands'
        return
      case 'own':
      case 'banner':
      case 'command':
      case 'hello':
    }
  }

  #beginContent(): void {
    const { lineEndings, scan } = this.#options
    this.#content =
      lineEndings() === 'strict'
        ? new StrictContent(scan)
        : new RepairedContent(() => this.#reportOnce('line_ends_repaired', {}))
    this.#state = 'content'
    if (this.#reader.pending === 0) return
    this.#reportOnce('early_data_sent', {})
    this.#passContent(this.#reader.rest())
  }

  #passContent(octets: Uint8Array): void {
    const content = this.#content
    if (content === undefined) return
    const { state, taken } = content.push(octets, piece => this.#output.toServer(piece))
    const rest = octets.subarray(taken)
    if (state === 'violation') {
      this.#state = 'discarding'
      this.#output.dropServer()
      this.#output.discarding()
      if (this.#clientHasEnded) this.#refuseContent()
      else this.#discard(rest)
    } else if (state === 'end') {
      this.#content = undefined
      this.#entries.push({ kind: 'command', settlement: this.#transactions.passMessage() })
      this.#state = 'commands'
      if (rest.length > 0) this.#reader.push(rest)
      this.#run()
    }
  }

  #discard(octets: Uint8Array): void {
    if (this.#discarded.push(octets)) this.#refuseContent()
  }

  #refuseContent(): void {
    this.#output.event('mail_refused', { reason: 'line_endings' })
    this.#output.toClient(
      formatReply(
        `550 5.5.2 the message has a line that does not end with CR LF, or NUL; ${this.#options.lineEndingAdvice()}`,
      ),
    )
    this.#close()
  }

  #breakOff(reason: FrontEnd, reply: string): void {
    this.#output.event('front_ended', { reason })
    this.#output.dropServer()
    this.#output.toClient(formatReply(reply))
    this.#close()
  }

  #close(): void {
    this.#state = 'closed'
    this.#transactions.current.giveBack()
    for (const entry of this.#entries.splice(0)) if ('settlement' in entry) entry.settlement?.abandoned()
    this.#output.close()
  }
}
