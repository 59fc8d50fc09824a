import type { IpAddress } from '../wire/ip-address.ts'

/** Sessions remembered at once; the oldest is forgotten for a new one. */
const MAX_SESSIONS = 4096
/** A login that comes later than this after its session line is not believed, in milliseconds. */
const SESSION_LIFE = 120_000

/** Joins the two lines of daemons that log address and login apart: by host, tag and PID (spec/syslog.md §7). */
export class SessionJoin {
  readonly #sessions = new Map<string, { readonly ip: IpAddress; readonly at: number }>()

  /** A session began; an older one of the same process is forgotten. */
  begin(process: string, ip: IpAddress, now: number): void {
    this.#sessions.delete(process)
    const [oldest] = this.#sessions.keys()
    if (this.#sessions.size >= MAX_SESSIONS && oldest !== undefined) this.#sessions.delete(oldest)
    this.#sessions.set(process, { ip, at: now })
  }

  /** The session of this process ended or logged in: its address if it is fresh. Each session is given out once. */
  take(process: string, now: number): IpAddress | undefined {
    const session = this.#sessions.get(process)
    this.#sessions.delete(process)
    // A clock that was set back proves nothing of the age either.
    if (session === undefined || now < session.at || now - session.at > SESSION_LIFE) return undefined
    return session.ip
  }

  get size(): number {
    return this.#sessions.size
  }
}
