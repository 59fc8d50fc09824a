import type { IpAddress } from '../wire/ip-address.ts'
import { MAX_RECENT, type RelayTally, type RelayVerdict } from '../wire/relay-tally.ts'

/** An hour of every door, while authd is away; the oldest go first. */
const MAX_TALLIES = 300

type OpenTally = {
  at: number
  readonly door: string
  readonly counts: Record<RelayVerdict, number>
  readonly recent: IpAddress[]
}

/** Counts decisions by door and minute until they are taken. However many ask, it stays small: of the refused it keeps the last few addresses. */
export class DecisionTallies {
  readonly #open = new Map<string, OpenTally>()

  get isEmpty(): boolean {
    return this.#open.size === 0
  }

  /** `at`: Unix seconds. */
  count(door: string, verdict: RelayVerdict, ip: IpAddress | undefined, at: number): void {
    const tally = this.#tallyOf(door, at)
    tally.at = at
    tally.counts[verdict] += 1
    if (verdict !== 'refused' || ip === undefined || tally.recent.includes(ip)) return
    if (tally.recent.length === MAX_RECENT) tally.recent.shift()
    tally.recent.push(ip)
  }

  /** What was counted since the last time, oldest minute first. */
  take(): readonly RelayTally[] {
    const tallies = [...this.#open.values()]
    this.#open.clear()
    return tallies
  }

  #tallyOf(door: string, at: number): OpenTally {
    const key = `${door} ${Math.floor(at / 60)}`
    const known = this.#open.get(key)
    if (known !== undefined) return known
    const [oldest] = this.#open.keys()
    if (this.#open.size === MAX_TALLIES && oldest !== undefined) this.#open.delete(oldest)
    const tally: OpenTally = { at, door, counts: { relayed: 0, refused: 0, undecided: 0, never: 0 }, recent: [] }
    this.#open.set(key, tally)
    return tally
  }
}
