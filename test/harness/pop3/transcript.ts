import { readdirSync, readFileSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { expect } from 'vitest'
import { type MaildirAction, makeMaildir, type PlannedFile, parseFile, performAction, stateOf } from './maildir.ts'

/**
 * Conversations in Markdown in the form of the examples of RFC 1939: the files of the maildrop, the
 * lines of client and server, and the files afterwards. test/transcripts/README.md describes the
 * form.
 */
export interface Transcript {
  /** `file.md:line: heading`. */
  readonly name: string
  readonly settings: TranscriptSettings
  readonly before: readonly PlannedFile[]
  readonly steps: readonly Step[]
  readonly afterwards: readonly string[]
}

export interface TranscriptSettings {
  readonly compat: 'none' | 'qmail'
  readonly sizes: 'wire' | 'file'
  readonly extraBlank: boolean
  /** The state at the beginning of the connection; undefined: either. */
  readonly over?: 'clear' | 'tls' | undefined
  /** The settings that the transcript names; the others have the defaults of its `compat`. */
  readonly isWritten: { readonly sizes: boolean; readonly extraBlank: boolean }
}

export type Step =
  | { readonly type: 'client' | 'server'; readonly octets: string }
  | { readonly type: 'clientCloses' | 'serverCloses' | 'clientStartsTls' }
  | { readonly type: 'meanwhile'; readonly action: MaildirAction }

/** Every transcript of a folder, once for each of its settings. */
export function readTranscripts(folder: string): readonly Transcript[] {
  return readdirSync(folder)
    .filter(file => file.endsWith('.md') && file !== 'README.md')
    .sort()
    .flatMap(file => parseTranscripts(file, readFileSync(`${folder}/${file}`, 'utf8')))
}

/** The transcripts in a Markdown file: one below each `##` heading. */
export function parseTranscripts(file: string, markdown: string): readonly Transcript[] {
  const transcripts: Transcript[] = []
  const lines = markdown.split('\n')
  const starts = lines.flatMap((line, index) => (line.startsWith('## ') ? [index] : []))
  for (const [index, start] of starts.entries()) {
    const section = lines.slice(start + 1, starts[index + 1])
    const heading = (lines[start] ?? '').slice(3)
    const at = `${file}:${start + 1}`
    const blocks = blocksOf(section)
    const variants = /^Settings: (.*)$/m.exec(section.join('\n'))?.[1]?.split(' | ') ?? ['']
    for (const variant of variants) {
      transcripts.push({
        name: `${at}: ${heading}${variant === '' ? '' : ` [${variant}]`}`,
        settings: parseSettings(at, variant),
        before: (blocks.get('maildrop') ?? []).map(parseFile),
        steps: (blocks.get('pop3') ?? []).map(line => parseStep(at, line)),
        afterwards: (blocks.get('afterwards') ?? []).map(line => parseFile(line)).map(planned => describe(planned)),
      })
    }
  }
  return transcripts
}

function blocksOf(lines: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const blocks = new Map<string, string[]>()
  let open: string[] | undefined
  for (const line of lines) {
    const fence = /^```(\w*)$/.exec(line)
    if (fence !== null && open !== undefined) open = undefined
    else if (fence !== null) {
      open = []
      blocks.set(fence[1] ?? '', open)
    } else if (line !== '') open?.push(line)
  }
  return blocks
}

function parseSettings(at: string, text: string): TranscriptSettings {
  const given = new Map(text.split(' ').map(pair => [pair.split('=')[0] ?? '', pair.split('=')[1] ?? '']))
  for (const key of given.keys()) {
    if (!['', 'compat', 'sizes', 'extra_blank', 'over'].includes(key)) throw new Error(`${at}: unknown setting ${key}`)
  }
  const sizes = given.get('sizes')
  const extraBlank = given.get('extra_blank')
  const compat = given.get('compat') === 'qmail' ? 'qmail' : 'none'
  const over = given.get('over')
  if (over !== undefined && over !== 'clear' && over !== 'tls') throw new Error(`${at}: over=${over}`)
  return {
    compat,
    sizes: sizes === 'wire' || sizes === 'file' ? sizes : compat === 'qmail' ? 'file' : 'wire',
    extraBlank: extraBlank === undefined ? compat === 'qmail' : extraBlank !== '0',
    over,
    isWritten: { sizes: sizes !== undefined, extraBlank: extraBlank !== undefined },
  }
}

function parseStep(at: string, line: string): Step {
  const [, who = '', text = ''] = /^(C|S|!):(?: (.*))?$/.exec(line) ?? []
  if (text === '(closes)') return { type: who === 'C' ? 'clientCloses' : 'serverCloses' }
  if (who === 'C' && text === '(starts TLS)') return { type: 'clientStartsTls' }
  if (who === '!') return { type: 'meanwhile', action: parseAction(at, text) }
  if (who === '') throw new Error(`${at}: neither C: nor S: nor !: ${line}`)
  return { type: who === 'C' ? 'client' : 'server', octets: unescapeLine(text) }
}

function parseAction(at: string, text: string): MaildirAction {
  const [verb, path = '', to = ''] = text.split(' ')
  if (verb === 'rename') return { type: 'rename', path, to }
  if (verb === 'unlink' || verb === 'obstruct') return { type: verb, path }
  throw new Error(`${at}: unknown action ${text}`)
}

/**
 * Reads the escapes: `·` is a space at the end of a line, `\x..` an octet and `\n` a bare line end.
 * `\` at the end omits the line end, and `{N}x` is N times x.
 */
function unescapeLine(text: string): string {
  const open = text.endsWith('\\')
  const line = (open ? text.slice(0, -1) : text)
    .replace(/\{(\d+)\}(.)/g, (_, times: string, character: string) => character.repeat(Number(times)))
    .replace(/·$/, ' ')
    .replace(/\\(?:x([0-9a-f]{2})|n|r)/g, (sequence, hex: string | undefined) =>
      hex !== undefined ? String.fromCharCode(Number.parseInt(hex, 16)) : sequence === '\\n' ? '\n' : '\r',
    )
  return open || line.endsWith('\n') ? line : `${line}\r\n`
}

const describe = ({ path, content }: PlannedFile): string => `${path} ${JSON.stringify(content)}`

/** Opens a session on a maildir. `closed` is fulfilled when the session has ended completely. */
export type Connect = (
  maildir: string,
  settings: TranscriptSettings,
) => Promise<{ socket: Duplex; closed: Promise<unknown> }>

/**
 * Runs a transcript. The client's octets between two pauses are sent in one piece, or in two pieces
 * divided at `cut`, or one by one with `cut` 'everywhere'.
 */
export async function runTranscript(
  transcript: Transcript,
  root: string,
  connect: Connect,
  cut: number | 'whole' | 'everywhere',
): Promise<void> {
  const maildir = makeMaildir(root, transcript.before)
  const { socket: first, closed } = await connect(maildir, transcript.settings)
  let socket = first
  const output = new Output(socket)
  let expected = ''
  let sent = 0
  let input = ''
  const send = () => {
    for (const piece of piecesOf(input, cut, sent)) socket.write(piece)
    sent += input.length
    input = ''
  }
  for (const step of transcript.steps) {
    if (step.type === 'client') input += step.octets
    else if (step.type === 'server') expected += step.octets
    else {
      send()
      await output.reaches(expected)
      if (step.type === 'meanwhile') performAction(maildir, step.action)
      if (step.type === 'clientStartsTls') {
        output.leave(socket)
        socket = connectTls({ socket, rejectUnauthorized: false })
        output.follow(socket)
      }
      if (step.type === 'clientCloses') socket.end()
      if (step.type === 'serverCloses') await output.ended
    }
  }
  send()
  await output.ended
  socket.end()
  await closed
  expect(output.text).toBe(expected)
  expect(stateOf(maildir)).toEqual([...transcript.afterwards].sort())
}

/**
 * Number of octets that the client of a transcript sends, which is the number of places for `cut`.
 */
export const inputLength = ({ steps }: Transcript): number =>
  steps.reduce((length, step) => length + (step.type === 'client' ? step.octets.length : 0), 0)

/**
 * The octets of `input`, of which `offset` were sent before, divided as `runTranscript` describes.
 */
export function piecesOf(input: string, cut: number | 'whole' | 'everywhere', offset: number): readonly Buffer[] {
  const at = typeof cut === 'number' ? Math.max(0, Math.min(input.length, cut - offset)) : 0
  const pieces = cut === 'everywhere' ? [...input] : [input.slice(0, at), input.slice(at)]
  return pieces.filter(piece => piece !== '').map(piece => Buffer.from(piece, 'latin1'))
}

/** Limit for an answer of a server. */
const ANSWER_LIMIT_MS = 10_000

/** The greeting has another timestamp in each session; a transcript writes `<timestamp>`. */
const withoutTimestamp = (text: string): string => text.replace(/^\+OK <[^>\r\n]+>\r\n/, '+OK <timestamp>\r\n')

/** The server's output in one session, over one connection after the other. */
class Output {
  readonly ended: Promise<void>
  readonly #end: () => void
  #received = ''
  #waiting: (() => void) | undefined

  readonly #data = (chunk: Buffer): void => {
    this.#received += chunk.toString('latin1')
    this.#waiting?.()
  }

  constructor(socket: Duplex) {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(
      () => reject(new Error(`the server did not close; its output:\n${this.text}`)),
      ANSWER_LIMIT_MS,
    )
    this.#end = () => {
      clearTimeout(timer)
      resolve()
      this.#waiting?.()
    }
    this.follow(socket)
    this.ended = promise
    promise.catch(() => {}) // the caller that awaits the promise receives the rejection
  }

  get text(): string {
    return withoutTimestamp(this.#received)
  }

  /** Reads from a connection. A reset counts as the end of the connection. */
  follow(socket: Duplex): void {
    socket.on('data', this.#data).on('end', this.#end).on('error', this.#end).on('close', this.#end)
  }

  /** Stops reading from a connection on which TLS begins. */
  leave(socket: Duplex): void {
    socket.off('data', this.#data).off('end', this.#end)
  }

  /**
   * Waits until the server has sent this text. The comparison at the end finds text that was not
   * expected.
   */
  async reaches(expected: string): Promise<void> {
    const over = this.ended.then(
      () => 'over',
      () => 'over',
    )
    while (this.text.length < expected.length) {
      const { promise, resolve } = Promise.withResolvers<string>()
      this.#waiting = () => resolve('more')
      if ((await Promise.race([promise, over])) === 'over' && this.text.length < expected.length) {
        expect(this.text).toBe(expected)
        return
      }
    }
    expect(this.text).toBe(expected)
  }
}
