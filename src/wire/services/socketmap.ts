/** Netstrings, and the socketmap protocol that is written in them. */

/** Formats a netstring: `5:hello,` (cr.yp.to/proto/netstrings.txt). */
export function formatNetstring(content: string): string {
  return `${Buffer.byteLength(content)}:${content},`
}

/** The input is not a netstring, or too long. The connection must be closed. */
export class NetstringFault extends Error {
  override readonly name = 'NetstringFault'
}

/** Splits a stream of octets into netstrings of at most `limit` octets. Holds at most one. */
export class NetstringReader {
  readonly #limit: number
  #held = Buffer.alloc(0)

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Adds octets and returns the contents that they complete, as UTF-8. Throws NetstringFault. */
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
    // Copy the rest, because the caller may change the chunk.
    this.#held = Buffer.from(bytes)
    return contents
  }
}

/** A request of Postfix or sendmail: the map, and the key (socketmap_table(5)). */
export type SocketmapQuery = { readonly map: string; readonly key: string }

/** The answers of socketmap_table(5). After `temporary` the mail system tries again later. */
export type SocketmapAnswer =
  | { readonly kind: 'ok'; readonly data: string }
  | { readonly kind: 'notfound' }
  | { readonly kind: 'temporary' | 'permanent'; readonly reason: string }

/** Content of a query's netstring. */
export const formatSocketmapQuery = ({ map, key }: SocketmapQuery): string => `${map} ${key}`

/** Inverse of formatSocketmapQuery; undefined if there is no space. */
export function parseSocketmapQuery(content: string): SocketmapQuery | undefined {
  const space = content.indexOf(' ')
  return space < 1 ? undefined : { map: content.slice(0, space), key: content.slice(space + 1) }
}

/** Content of an answer's netstring. */
export function formatSocketmapAnswer(answer: SocketmapAnswer): string {
  switch (answer.kind) {
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
