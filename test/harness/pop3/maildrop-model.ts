import { createHash } from 'node:crypto'

/**
 * A model of a maildrop and its sessions as RFC 1939 and maildir(5) describe them, without files
 * and without modules of src/. It computes the answers of a session and the content of the
 * directory afterwards.
 */

/** Each character of a text is one octet (latin1). */
export type MailFile = {
  readonly folder: 'new' | 'cur'
  readonly name: string
  readonly content: string
  /** Unix seconds. */
  readonly mtime: number
  /** A rename keeps this number; a copy gets another one. */
  readonly identity: number
}

export type Dialect = 'none' | 'qmail'

/**
 * One line, or one line and a text that ends at a dot. There are several where the documents leave
 * a choice.
 */
export type Expected =
  | { readonly type: 'line'; readonly lines: readonly string[] }
  | { readonly type: 'multiline'; readonly text: string; readonly orLine?: string }
  /** `+OK COUNT OCTETS`, with the octets within these bounds. */
  | { readonly type: 'stat'; readonly count: number; readonly least: number; readonly most: number }
  /** A scan listing: for each message the sizes that it may have. */
  | { readonly type: 'sizes'; readonly listed: ReadonlyMap<number, readonly number[]> }

const OK = '+OK '
const UNREADABLE = '-ERR unable to open that message'

export const baseOf = (name: string): string => name.split(':', 1)[0] ?? ''

/** The message as sent: lines end in CRLF, and a dot at the beginning of a line is doubled. */
export function sent(content: string, dialect: Dialect, bodyLines?: number): string {
  const lines = content.split('\n')
  if (lines.at(-1) === '') lines.pop()
  const stripped = dialect === 'qmail' ? lines : lines.map(line => line.replace(/\r$/, ''))
  const headerEnd = stripped.indexOf('')
  const isCut = bodyLines !== undefined && headerEnd >= 0
  const chosen = isCut ? stripped.slice(0, headerEnd + 1 + bodyLines) : stripped
  const text = chosen.map(line => `${line.startsWith('.') ? '.' : ''}${line}\r\n`).join('')
  return `${text}${dialect === 'qmail' ? '\r\n' : ''}.\r\n`
}

/**
 * Octets of the message on the wire without the doubled dots; in mode qmail the octets of the file.
 */
export function sizeOf(content: string, dialect: Dialect): number {
  if (dialect === 'qmail') return content.length
  const lines = content.split('\n')
  if (lines.at(-1) === '') lines.pop()
  return lines.reduce((sum, line) => sum + line.replace(/\r$/, '').length + 2, 0)
}

/**
 * RFC 1939 section 7 allows 70 characters from 0x21 to 0x7E; others are hashed, but not with qmail.
 */
function uniqueIdOf(name: string, dialect: Dialect): string {
  const base = baseOf(name)
  if (dialect === 'qmail' || /^[\x21-\x7e]{1,70}$/.test(base)) return base
  return createHash('sha256').update(Buffer.from(base, 'latin1')).digest('hex')
}

/** The files of a maildir, and the changes that programs make to them. */
export class MaildirModel {
  #files: readonly MailFile[] = []
  #identities = 0

  get files(): readonly MailFile[] {
    return this.#files
  }

  add(file: Omit<MailFile, 'identity'>): void {
    this.#identities += 1
    this.#files = [...this.#files, { ...file, identity: this.#identities }]
  }

  remove({ identity }: MailFile): void {
    this.#files = this.#files.filter(file => file.identity !== identity)
  }

  move(moved: MailFile, folder: 'new' | 'cur', name: string): void {
    this.#files = this.#files.map(file => (file.identity === moved.identity ? { ...file, folder, name } : file))
  }

  at(folder: 'new' | 'cur', name: string): MailFile | undefined {
    return this.#files.find(file => file.folder === folder && file.name === name)
  }

  withIdentity(identity: number): MailFile | undefined {
    return this.#files.find(file => file.identity === identity)
  }

  hasBase(base: string): boolean {
    return this.#files.some(({ name }) => baseOf(name) === base)
  }

  /** The state in the format of `stateOf` in maildir.ts. */
  state(): readonly string[] {
    return this.#files.map(({ folder, name, content }) => `${folder}/${name} ${JSON.stringify(content)}`).sort()
  }
}

/** One session in TRANSACTION state. */
export class SessionModel {
  readonly #maildir: MaildirModel
  readonly #dialect: Dialect
  readonly #messages: readonly MailFile[]
  readonly #deleted = new Set<number>()
  /**
   * Messages whose file was missing at some time of this session. Their size may be the size of the
   * file.
   */
  readonly #wasAway = new Set<number>()
  #last = 0

  /** `now`: Unix seconds. A file with a time of this second or later is not a message yet. */
  constructor(maildir: MaildirModel, dialect: Dialect, now: number) {
    this.#maildir = maildir
    this.#dialect = dialect
    const listed = maildir.files.filter(({ mtime }) => mtime < now)
    this.#messages = listed.toSorted(
      (a, b) =>
        a.mtime - b.mtime ||
        (a.name < b.name ? -1 : a.name > b.name ? 1 : 0) ||
        (a.folder === b.folder ? 0 : a.folder === 'new' ? -1 : 1),
    )
  }

  get count(): number {
    return this.#messages.length
  }

  /** Records which files are missing; called after each change of the maildir. */
  notice(): void {
    for (const [index, message] of this.#messages.entries()) {
      const file = this.#now(message)
      if (file === undefined || file.identity !== message.identity) this.#wasAway.add(index + 1)
    }
  }

  /** The allowed answers to a command other than QUIT. */
  answer(line: string): Expected {
    const [, verb = '', argument = ''] = /^([^ ]*) *(.*)$/s.exec(line) ?? []
    const command = verb.replace(/[a-z]+/g, letters => letters.toUpperCase())
    switch (command) {
      case 'STAT':
        return this.#stat()
      case 'LAST':
        return one(`${OK}${this.#last}`)
      case 'NOOP':
        return one(OK)
      case 'RSET':
        this.#deleted.clear()
        this.#last = 0
        return one(OK)
      case 'LIST':
      case 'UIDL':
        if (argument === '') return command === 'LIST' ? this.#listing() : { type: 'multiline', text: this.#ids() }
        return this.#about(argument, number =>
          command === 'UIDL'
            ? one(`${OK}${number} ${this.#id(number)}`)
            : { type: 'line', lines: this.#sizes(number).map(size => `${OK}${number} ${size}`) },
        )
      case 'DELE':
        return this.#about(argument, number => {
          this.#deleted.add(number)
          this.#last = Math.max(this.#last, number)
          return one(OK)
        })
      case 'RETR':
      case 'TOP':
        return this.#about(argument, (number, rest) => this.#message(number, /^ *(\d+)/.exec(rest)?.[1]))
      default:
        return one('-ERR unimplemented')
    }
  }

  /**
   * UPDATE state: the allowed replies to QUIT. Changes the maildir as the session must, except for
   * copies that another program put back. The model leaves open whether QUIT removes these, and
   * `open` names them.
   */
  quit(): { readonly replies: readonly string[]; readonly open: readonly MailFile[] } {
    const open: MailFile[] = []
    let failures = 0
    for (const [index, message] of this.#messages.entries()) {
      if (this.#deleted.has(index + 1)) {
        const file = this.#now(message)
        if (this.#dialect === 'qmail') {
          if (file === undefined) failures += 1
          else this.#maildir.remove(file)
        } else if (file?.identity === message.identity) this.#maildir.remove(file)
        else if (file !== undefined) open.push(file)
      } else if (message.folder === 'new') this.#see(message.name)
    }
    const failure = '-ERR unable to unlink all deleted messages'
    return { replies: [...Array.from({ length: failures }, () => failure), OK], open }
  }

  /** A message that is kept is moved from new/ to cur/. */
  #see(name: string): void {
    const file = this.#maildir.at('new', name)
    const target = this.#dialect === 'none' && name.includes(':') ? name : `${name}:2,`
    if (file !== undefined && this.#maildir.at('cur', target) === undefined) this.#maildir.move(file, 'cur', target)
  }

  /**
   * The current file of the message. In mode qmail the name decides; otherwise it is the original
   * file or a copy.
   */
  #now(message: MailFile): MailFile | undefined {
    if (this.#dialect === 'qmail') return this.#maildir.at(message.folder, message.name)
    return (
      this.#maildir.withIdentity(message.identity) ??
      this.#maildir.files.find(({ name }) => baseOf(name) === baseOf(message.name))
    )
  }

  #of(number: number): MailFile {
    const message = this.#messages[number - 1]
    if (message === undefined) throw new RangeError(`no message ${number}`)
    return message
  }

  #about(argument: string, answer: (number: number, rest: string) => Expected): Expected {
    const digits = /^\d+/.exec(argument)?.[0]
    if (digits === undefined) return one('-ERR syntax error')
    const number = Number(digits)
    if (number === 0) return one('-ERR messages are counted from 1')
    if (number > this.count) return one('-ERR not that many messages')
    if (this.#deleted.has(number)) return one('-ERR already deleted')
    return answer(number, argument.slice(digits.length))
  }

  #message(number: number, bodyLines: string | undefined): Expected {
    const message = this.#of(number)
    const file = this.#now(message)
    if (file === undefined) return one(UNREADABLE)
    const text = sent(file.content, this.#dialect, bodyLines === undefined ? undefined : Number(bodyLines))
    // The session may treat a copy as the message, or not.
    const isOwn = this.#dialect === 'qmail' || file.identity === message.identity
    return { type: 'multiline', text, ...(isOwn ? {} : { orLine: UNREADABLE }) }
  }

  #id(number: number): string {
    return uniqueIdOf(this.#of(number).name, this.#dialect)
  }

  #ids(): string {
    return `${this.#undeleted.map(number => `${number} ${this.#id(number)}\r\n`).join('')}.\r\n`
  }

  get #undeleted(): readonly number[] {
    return this.#messages.map((_, index) => index + 1).filter(number => !this.#deleted.has(number))
  }

  #sizes(number: number): readonly number[] {
    const { content } = this.#of(number)
    const size = sizeOf(content, this.#dialect)
    return this.#wasAway.has(number) ? [size, content.length] : [size]
  }

  #listing(): Expected {
    return { type: 'sizes', listed: new Map(this.#undeleted.map(number => [number, this.#sizes(number)])) }
  }

  #stat(): Expected {
    const sizes = this.#undeleted.map(number => this.#sizes(number))
    return {
      type: 'stat',
      count: this.#dialect === 'qmail' ? this.count : sizes.length,
      least: sizes.reduce((sum, each) => sum + Math.min(...each), 0),
      most: sizes.reduce((sum, each) => sum + Math.max(...each), 0),
    }
  }
}

const one = (line: string): Expected => ({ type: 'line', lines: [line] })
