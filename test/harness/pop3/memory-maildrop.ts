import { CRLF, ok, TERMINATION } from '../../../src/pop3/reply.ts'
import {
  EncoderPool,
  LF,
  type LineEncoder,
  lineEndAfter,
  scriptBlock,
} from '../../../src/pop3d/encoding/line-encoder.ts'
import { TopLimit } from '../../../src/pop3d/encoding/send-message.ts'
import { seenName } from '../../../src/pop3d/maildir/folders.ts'
import { inMaildropOrder, type Message, uniqueIds } from '../../../src/pop3d/maildir/scan-maildir.ts'
import type { PlannedFile } from './maildir.ts'
import type { OpenMaildrop } from './memory-session.ts'
import type { TranscriptSettings } from './transcript.ts'

type MemoryMessage = Message & { readonly content: Buffer }

/** The maildrop of a transcript without a directory: its files stay in memory. */
export class MemoryMaildrop implements OpenMaildrop {
  readonly #settings: TranscriptSettings
  readonly #messages: readonly MemoryMessage[]
  readonly #ids: readonly string[]
  /** Every file of the maildir, by path. */
  readonly #files: Map<string, string>

  constructor(files: readonly PlannedFile[], settings: TranscriptSettings) {
    this.#settings = settings
    this.#files = new Map(files.filter(({ path }) => !path.startsWith('-')).map(({ path, content }) => [path, content]))
    this.#messages = files.flatMap(messagesOf).sort(inMaildropOrder)
    this.#ids = uniqueIds(this.#messages, settings.compat)
  }

  get count(): number {
    return this.#messages.length
  }

  octets(number: number): number {
    const { content } = this.#message(number)
    if (this.#settings.sizes === 'file') return content.length
    const end = lineEndAfter(content.at(-1) ?? LF, this.#keepsCr)
    return encoderOf(content).count(content.length, LF, this.#keepsCr) + end.length
  }

  totalOctets(): number {
    return this.#messages.reduce((sum, _, index) => sum + this.octets(index + 1), 0)
  }

  uniqueId(number: number): string {
    return this.#ids[number - 1] ?? ''
  }

  retrieve(number: number, bodyLines: number | undefined): string {
    const { content } = this.#message(number)
    const wanted = bodyLines === undefined ? content.length : new TopLimit(bodyLines, !this.#keepsCr).take(content)
    const sent = content.subarray(0, wanted)
    const encoder = encoderOf(sent)
    const octets = encoder.encode(sent.length, LF, this.#keepsCr, 0, 0)
    const encoded = encoder.outputs[0].toString('latin1', 0, octets)
    const end = lineEndAfter(sent.at(-1) ?? LF, this.#keepsCr)
    return ok() + encoded + end + (this.#settings.extraBlank ? CRLF : '') + TERMINATION
  }

  update(deleted: ReadonlySet<number>): number {
    for (const [index, { folder, name }] of this.#messages.entries()) {
      const path = `${folder}/${name}`
      const target = `cur/${seenName(name, this.#settings.compat)}`
      if (deleted.has(index + 1)) this.#files.delete(path)
      else if (folder === 'new' && !this.#files.has(target)) {
        this.#files.set(target, this.#files.get(path) ?? '')
        this.#files.delete(path)
      }
    }
    return 0
  }

  /** The state in the format of `stateOf` in maildir.ts. */
  get state(): readonly string[] {
    return [...this.#files].map(([path, content]) => `${path} ${JSON.stringify(content)}`).sort()
  }

  get #keepsCr(): boolean {
    return this.#settings.compat === 'qmail'
  }

  #message(number: number): MemoryMessage {
    const message = this.#messages[number - 1]
    if (message === undefined) throw new RangeError(`there is no message ${number}`)
    return message
  }
}

/** The files that a scan lists (docs/spec/pop3d.md §2). */
function messagesOf({ path, content, mtime }: PlannedFile, index: number): readonly MemoryMessage[] {
  const [folder, name = ''] = path.split('/')
  if ((folder !== 'new' && folder !== 'cur') || name.startsWith('.') || path.endsWith('/')) return []
  if (mtime * 1000 >= Date.now()) return []
  const octets = Buffer.from(content, 'latin1')
  return [{ folder, name, fileOctets: octets.length, mtime, mtimeMs: mtime * 1000, inode: index + 1, content: octets }]
}

/** An encoder in JavaScript that reads this content. */
function encoderOf(content: Buffer): LineEncoder {
  const encoder = new EncoderPool(content.length, scriptBlock).take()
  content.copy(encoder.input)
  return encoder
}
