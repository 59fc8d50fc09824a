import type { Log } from '../daemon/log.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { Decision } from './decision.ts'

/** What every door that answers questions needs. */
export type DoorOptions = {
  readonly decide: (ip: IpAddress | undefined) => Promise<Decision>
  /** Somebody was let through. */
  readonly onRelay: (ip: IpAddress) => void
  readonly log: Log
}
