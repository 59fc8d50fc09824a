import type { Duplex } from 'node:stream'

export type DialogueOptions = {
  /** The whole command, CRLF included (formatSslPreamble). It is written once and never reported. */
  readonly preamble: string
  /** `ok`: the server answers the command with one line, which is swallowed. `none`: it stays silent. */
  readonly reply: 'ok' | 'none'
  /** Milliseconds for the greeting, and again for the reply. */
  readonly limit: number
}

/**
 * `greeted`: send `greeting` (with its line end) and then `rest` to the client. `refused`: the
 * server did not greet with +OK; send its line to the client and close. `failed`: no octet of the
 * server may reach the client; `reason` is for the log.
 */
export type DialogueEnd =
  | { readonly outcome: 'greeted'; readonly greeting: Buffer; readonly rest: Buffer }
  | { readonly outcome: 'refused'; readonly greeting: Buffer }
  | { readonly outcome: 'failed'; readonly reason: string; readonly error?: Error | undefined }

/** Longest line that a server may say before the client speaks (RFC 2449 §4). */
const LINE_MAX_OCTETS = 512

/**
 * The proxy's side of the SSL dialogue: holds the greeting back, sends the client's address,
 * discards the reply. Afterwards the stream is paused and has no listener of this function, and no
 * octet of the client has been sent. Never rejects; on `failed` the caller destroys the stream.
 */
export async function holdDialogue(server: Duplex, { preamble, reply, limit }: DialogueOptions): Promise<DialogueEnd> {
  const greeting = await readLine(server, Buffer.alloc(0), limit, 'greeting')
  if (!('line' in greeting)) return greeting
  if (!greeting.line.toString('latin1').startsWith('+OK')) return { outcome: 'refused', greeting: greeting.line }
  server.write(preamble)
  if (reply === 'none') return { outcome: 'greeted', greeting: greeting.line, rest: greeting.rest }
  const answer = await readLine(server, greeting.rest, limit, 'reply')
  if (!('line' in answer)) return answer
  // The reply is not quoted: a server that echoes commands would put the password into the log.
  if (!answer.line.toString('latin1').startsWith('+OK'))
    return failed('preamble refused: check the shared password file and the trusted peers')
  return { outcome: 'greeted', greeting: greeting.line, rest: answer.rest }
}

type Line = { readonly line: Buffer; readonly rest: Buffer }

/** One line with its LF. `before` are bytes read already. */
function readLine(stream: Duplex, before: Buffer, limit: number, what: string): Promise<Line | DialogueEnd> {
  return new Promise(resolve => {
    let bytes = before
    const timer = setTimeout(() => settle(failed(`no ${what} within ${limit} ms`)), limit)
    const settle = (answer: Line | DialogueEnd): void => {
      clearTimeout(timer)
      stream.off('data', data)
      stream.off('end', end)
      stream.off('close', end)
      stream.off('error', error)
      stream.pause()
      resolve(answer)
    }
    const look = (): boolean => {
      const lineFeed = bytes.indexOf(0x0a)
      if (lineFeed < 0 ? bytes.length < LINE_MAX_OCTETS : lineFeed < LINE_MAX_OCTETS) {
        if (lineFeed < 0) return false
        settle({ line: bytes.subarray(0, lineFeed + 1), rest: bytes.subarray(lineFeed + 1) })
      } else settle(failed(`${what} longer than ${LINE_MAX_OCTETS} octets`))
      return true
    }
    const data = (chunk: Buffer): void => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
      look()
    }
    const end = (): void => settle(failed(`server closed before its ${what}`))
    const error = (cause: Error): void => settle(failed(`server failed before its ${what}`, cause))
    if (look()) return
    if (stream.readableEnded || stream.destroyed) {
      end()
      return
    }
    stream.on('end', end)
    stream.on('close', end)
    stream.on('error', error)
    stream.on('data', data)
    stream.resume()
  })
}

const failed = (reason: string, error?: Error): DialogueEnd => ({ outcome: 'failed', reason, error })
