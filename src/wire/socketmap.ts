/** `5:hello,` (cr.yp.to/proto/netstrings.txt). */
export function formatNetstring(content: string): string {
  return `${Buffer.byteLength(content)}:${content},`
}

/** The stream is not made of netstrings, or of longer ones than allowed: nothing that follows can be understood. */
export class NetstringFault extends Error {
  override readonly name = 'NetstringFault'
}

/** Cuts a stream of octets into netstrings; holds at most one of `limit` octets. */
export class NetstringReader {
  readonly #limit: number
  #held = Buffer.alloc(0)

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Takes the next octets and returns the contents that they complete, as UTF-8. Throws NetstringFault. */
  push(chunk: Buffer): string[] {
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    const contents: string[] = []
    for (;;) {
      const head = bytes.subarray(0, 11).toString('latin1')
      const colon = head.indexOf(':')
      const digits = colon < 0 ? head : head.slice(0, colon)
      if (!/^(0|[1-9]\d{0,9})?$/.test(digits) || (colon >= 0 && digits === '') || Number(digits) > this.#limit)
        throw new NetstringFault(`not a netstring of at most ${this.#limit} octets`)
      const end = colon + 1 + Number(digits)
      if (colon < 0 || bytes.length <= end) break
      if (bytes[end] !== 0x2c) throw new NetstringFault('a netstring does not end in a comma')
      contents.push(bytes.toString('utf8', colon + 1, end))
      bytes = bytes.subarray(end + 1)
    }
    // A copy: the chunk's memory belongs to the socket.
    this.#held = Buffer.from(bytes)
    return contents
  }
}

/** A question of Postfix or sendmail: which map, and what to look up (socketmap_table(5)). */
export type SocketmapQuery = { readonly map: string; readonly key: string }

/** The answers of socketmap_table(5). `temporary` makes the mail system try again later. */
export type SocketmapAnswer =
  | { readonly type: 'ok'; readonly data: string }
  | { readonly type: 'notfound' }
  | { readonly type: 'temporary' | 'permanent'; readonly reason: string }

/** Content of the netstring that asks. */
export const formatSocketmapQuery = ({ map, key }: SocketmapQuery): string => `${map} ${key}`

/** Inverse of formatSocketmapQuery; undefined if there is no space. */
export function parseSocketmapQuery(content: string): SocketmapQuery | undefined {
  const space = content.indexOf(' ')
  return space < 1 ? undefined : { map: content.slice(0, space), key: content.slice(space + 1) }
}

/** Content of the netstring that answers. */
export function formatSocketmapAnswer(answer: SocketmapAnswer): string {
  switch (answer.type) {
    case 'ok':
      return `OK ${answer.data}`
    case 'notfound':
      return 'NOTFOUND '
    case 'temporary':
      return `TEMP ${answer.reason}`
    case 'permanent':
      return `PERM ${answer.reason}`
  }
}
