import { renameSync, rmSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import fc from 'fast-check'
import { expect } from 'vitest'
import { makeMaildir, octetPath, stateOf } from './maildir.ts'
import { baseOf, type Dialect, type Expected, MaildirModel, type MailFile, SessionModel } from './maildrop-model.ts'
import { Pop3Client } from './pop3-client.ts'

/** Opens a session on a maildir. */
export type OpenSession = (maildir: string, dialect: Dialect) => Promise<Duplex>

const SLOTS = 3
const FUTURE = 4_000_000_000
const FLAGS = ['', ':2,', ':2,S', ':2,RS', ':2,T']
const CONTENTS = [
  'Subject: a\n\nbody\n',
  'Subject: b\r\n\r\n.one\r\n..two\r\n',
  '',
  '\n',
  '.',
  'no line end',
  'no header end\nstill none\n',
  'a\n\n.\n\n.\nb\n',
  'bare \r in a line\nnul \0 and \xe9\n\n\r\n\r',
  `long line\n\n${'y'.repeat(2000)}\n`,
  `Subject: large\n\n${`${'x'.repeat(69)}\n`.repeat(1000)}`,
]
/**
 * Names of messages as delivery agents make them, with names that are too long and names with
 * octets that a unique-id cannot contain.
 */
const NAMES: readonly ((n: number) => string)[] = [
  n => `${1_700_000_000 + n}.M${n}P7.mx`,
  n => `${1_700_000_000 + n}.V1I${n}.mx,S=${n}`,
  n => `${n}.${'long'.repeat(20)}`,
  n => `${n}.caf\xe9 mx`,
]

const number = fc.oneof(fc.integer({ min: 1, max: 7 }).map(String), fc.constantFrom('0', '99', '', 'x', '2x'))
const line = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom('RETR', 'DELE', 'LIST', 'UIDL', 'retr'), number).map(words => words.join(' ')),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(number, fc.constantFrom('0', '1', '2', '5', '')).map(([n, top]) => `TOP ${n} ${top}`),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom('STAT', 'LIST', 'UIDL', 'stat', 'LAST', 'NOOP', 'RSET', 'USER x', 'XYZZY 1', ''),
  },
)
const slot = fc.nat(SLOTS - 1)
const flags = fc.constantFrom(...FLAGS)
const which = fc.nat(20)

const action = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('open'), slot }) },
  {
    weight: 12,
    arbitrary: fc.record({ kind: fc.constant('say'), slot, lines: fc.array(line, { minLength: 1, maxLength: 8 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('quit', 'quit', 'drop'), slot }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('deliver'),
      content: fc.constantFrom(...CONTENTS),
      name: fc.constantFrom(...NAMES),
      flags: fc.constantFrom('', '', '', ':2,S'),
      mtime: fc.oneof({ weight: 15, arbitrary: fc.integer({ min: 1000, max: 1004 }) }, fc.constant(FUTURE)),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('rename'), which, flags }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('expunge'), which }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('restore'), which, flags: fc.option(flags) }) },
)
export type Action = typeof action extends fc.Arbitrary<infer T> ? T : never

/**
 * The actions of sessions, a delivery agent, an IMAP program and a restored backup on one maildrop.
 */
export const actions = (most: number): fc.Arbitrary<Action[]> =>
  fc.array(action, { minLength: Math.ceil(most * 0.75), maxLength: most, size: 'max' })

/**
 * One maildrop, three places for sessions on it, and one model. Every answer is compared with the
 * model.
 */
export class MaildropTrial {
  readonly #open: OpenSession
  readonly #dialect: Dialect
  readonly #maildir: string
  readonly #model = new MaildirModel()
  readonly #sessions = new Map<number, { readonly client: Pop3Client; readonly model: SessionModel; end(): void }>()
  /** A backup of the removed messages. */
  readonly #removed: MailFile[] = []
  #delivered = 0
  #commands = 0

  private constructor(root: string, dialect: Dialect, open: OpenSession) {
    this.#open = open
    this.#dialect = dialect
    this.#maildir = makeMaildir(root, [])
  }

  /**
   * Runs the actions and returns the number of answered commands. Rejects at the first wrong
   * answer.
   */
  static async run(root: string, dialect: Dialect, open: OpenSession, steps: readonly Action[]): Promise<number> {
    const trial = new MaildropTrial(root, dialect, open)
    try {
      for (const each of steps) await trial.#perform(each)
      trial.#expectState([])
      return trial.#commands
    } finally {
      for (const { end } of trial.#sessions.values()) end()
      rmSync(trial.#maildir, { recursive: true })
    }
  }

  async #perform(each: Action): Promise<void> {
    switch (each.kind) {
      case 'open':
        if (!this.#sessions.has(each.slot)) await this.#begin(each.slot)
        return
      case 'say':
        return this.#say(each.slot, each.lines)
      case 'quit':
        return this.#quit(each.slot)
      case 'drop':
        this.#sessions.get(each.slot)?.end()
        this.#sessions.delete(each.slot)
        return this.#expectState([])
      case 'deliver':
        return this.#deliver(each)
      case 'rename':
        return this.#rename(each)
      case 'expunge':
        return this.#expunge(each.which)
      case 'restore':
        return this.#restore(each)
    }
  }

  async #begin(place: number): Promise<void> {
    const socket = await this.#open(this.#maildir, this.#dialect)
    const client = new Pop3Client(socket)
    this.#sessions.set(place, {
      client,
      model: new SessionModel(this.#model, this.#dialect, Date.now() / 1000),
      end: () => socket.destroy(),
    })
    expect(await client.line()).toBe('+OK ')
  }

  async #say(place: number, lines: readonly string[]): Promise<void> {
    const session = this.#sessions.get(place)
    if (session === undefined) return
    const { client, model } = session
    const expected = lines.map(each => model.answer(each))
    client.write(lines.map(each => `${each}\r\n`).join(''))
    for (const [index, wanted] of expected.entries()) await expectAnswer(client, lines[index] ?? '', wanted)
    this.#commands += lines.length
  }

  async #quit(place: number): Promise<void> {
    const session = this.#sessions.get(place)
    if (session === undefined) return
    this.#sessions.delete(place)
    const before = this.#model.files
    const { replies, open } = session.model.quit()
    session.client.write('QUIT\r\n')
    for (const reply of replies) expect(await session.client.line(), 'QUIT').toBe(reply)
    expect(await session.client.rest()).toBe('')
    session.end()
    this.#commands += 1
    this.#removed.push(...before.filter(({ identity }) => this.#model.withIdentity(identity) === undefined))
    this.#expectState(open)
    this.#notice()
  }

  /** The directory has the content of the model; files of `open` may exist or not. */
  #expectState(open: readonly MailFile[]): void {
    const state = stateOf(this.#maildir)
    for (const file of open) {
      const now = this.#model.withIdentity(file.identity)
      if (now === undefined || state.some(text => text.startsWith(`${now.folder}/${now.name} `))) continue
      this.#model.remove(now)
      this.#removed.push(now)
    }
    expect(state).toEqual(this.#model.state())
  }

  #deliver({ content, name, flags: suffix, mtime }: Extract<Action, { kind: 'deliver' }>): void {
    this.#delivered += 1
    this.#write({ folder: suffix === '' ? 'new' : 'cur', name: `${name(this.#delivered)}${suffix}`, content, mtime })
  }

  /** Delivers a message through tmp/, as maildir(5) describes. */
  #write(file: Omit<MailFile, 'identity'>): void {
    const draft = `${this.#maildir}/tmp/draft`
    writeFileSync(draft, Buffer.from(file.content, 'latin1'), { mode: 0o644 })
    utimesSync(draft, file.mtime, file.mtime)
    renameSync(draft, octetPath(this.#maildir, `${file.folder}/${file.name}`))
    this.#model.add(file)
    this.#notice()
  }

  /** As an IMAP program: moves the message to cur/ and changes its flags. */
  #rename({ which: choice, flags: suffix }: Extract<Action, { kind: 'rename' }>): void {
    const file = this.#choose(choice)
    if (file === undefined) return
    const name = `${baseOf(file.name)}${suffix === '' ? ':2,' : suffix}`
    if (this.#model.at('cur', name) !== undefined) return
    renameSync(this.#pathOf(file), octetPath(this.#maildir, `cur/${name}`))
    this.#model.move(file, 'cur', name)
    this.#notice()
  }

  #expunge(choice: number): void {
    const file = this.#choose(choice)
    if (file === undefined) return
    unlinkSync(this.#pathOf(file))
    this.#model.remove(file)
    this.#removed.push(file)
    this.#notice()
  }

  /**
   * As a restored backup: puts a message back with the same octets and time, and with its old name
   * or other flags.
   */
  #restore({ which: choice, flags: suffix }: Extract<Action, { kind: 'restore' }>): void {
    const file = this.#removed[choice % Math.max(1, this.#removed.length)]
    if (file === undefined || this.#model.hasBase(baseOf(file.name))) return
    const { folder, name, content, mtime } = file
    const other = { folder: 'cur', name: `${baseOf(name)}${suffix === '' ? ':2,' : suffix}` } as const
    this.#write({ ...(suffix === null ? { folder, name } : other), content, mtime })
  }

  #choose(choice: number): MailFile | undefined {
    const { files } = this.#model
    return files[choice % Math.max(1, files.length)]
  }

  #pathOf({ folder, name }: MailFile): Buffer {
    return octetPath(this.#maildir, `${folder}/${name}`)
  }

  #notice(): void {
    for (const { model } of this.#sessions.values()) model.notice()
  }
}

async function expectAnswer(client: Pop3Client, answerText: string, wanted: Expected): Promise<void> {
  const first = await client.line()
  switch (wanted.type) {
    case 'line':
      if (!wanted.lines.includes(first)) expect(first, answerText).toBe(wanted.lines.join(' or '))
      return
    case 'multiline': {
      if (wanted.orLine !== undefined && first === wanted.orLine) return
      if (first !== '+OK ') expect(first, answerText).toBe('+OK ')
      const text = await client.textToDot()
      if (text !== wanted.text) expect(text, answerText).toBe(wanted.text)
      return
    }
    case 'stat': {
      const [status, count, octets] = first.split(' ')
      expect([status, Number(count)], answerText).toEqual(['+OK', wanted.count])
      expect(Number(octets), answerText).toBeGreaterThanOrEqual(wanted.least)
      expect(Number(octets), answerText).toBeLessThanOrEqual(wanted.most)
      return
    }
    case 'sizes': {
      expect(first, answerText).toBe('+OK ')
      const listed = (await client.textToDot()).split('\r\n').slice(0, -2)
      expect(
        listed.map(each => Number(each.split(' ')[0])),
        answerText,
      ).toEqual([...wanted.listed.keys()])
      for (const each of listed) {
        const [n, size] = each.split(' ').map(Number)
        expect(wanted.listed.get(n ?? 0), `${answerText}: ${each}`).toContain(size)
      }
      return
    }
  }
}
