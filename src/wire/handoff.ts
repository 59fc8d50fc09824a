import { MAX_SESSION_TICKET_LINE } from './session-ticket.ts'

/**
 * The link between a login process and a pop3d worker, over which client sockets change hands
 * (docs/WIRE.md): a Unix connection to the worker's socket.
 * With each `take` comes a descriptor; the nth belongs to the nth.
 */

/** The first line of both: login's in place of a ticket, then the worker's when descriptors may come. */
export const LINK_LINE = 'link v=1'

/** Octets read ahead that go with a socket, at most. */
export const MAX_READ_AHEAD = 131_072

/** Longest `take` line, in octets without LF. */
export const MAX_TAKE_LINE = MAX_SESSION_TICKET_LINE + 64

/** Login to worker: a socket whose session `ticket` opens. `octets` of what the client sent follow the line. */
export type Take = { readonly n: number; readonly octets: number; readonly ticket: string }

/** The line, without LF. */
export const formatTake = ({ n, octets, ticket }: Take): string => `take n=${n} octets=${octets} ${ticket}`

/** Reads a `take` line; undefined if it is none. The ticket is not looked at. */
export function parseTake(line: string): Take | undefined {
  const match = /^take n=([1-9]\d{0,14}) octets=(0|[1-9]\d{0,5}) (.+)$/.exec(line)
  const octets = Number(match?.[2])
  const ticket = match?.[3]
  if (ticket === undefined || octets > MAX_READ_AHEAD) return undefined
  return { n: Number(match?.[1]), octets, ticket }
}

/**
 * Worker to login: sockets may be passed; the session of that socket is over; or the worker takes
 * no more, and login should end its side.
 */
export type HandoffReply =
  | { readonly type: 'open' }
  | { readonly type: 'ended'; readonly n: number }
  | { readonly type: 'bye' }

/** The line, without LF. */
export function formatHandoffReply(news: HandoffReply): string {
  switch (news.type) {
    case 'open':
      return LINK_LINE
    case 'ended':
      return `ended n=${news.n}`
    case 'bye':
      return 'bye'
  }
}

/** Reads a line of the worker; undefined if it is none. */
export function parseHandoffReply(line: string): HandoffReply | undefined {
  if (line === LINK_LINE) return { type: 'open' }
  if (line === 'bye') return { type: 'bye' }
  const n = /^ended n=([1-9]\d{0,14})$/.exec(line)?.[1]
  return n === undefined ? undefined : { type: 'ended', n: Number(n) }
}
