import type { Log } from '../../base/log.ts'
import type { LineServerLimits } from '../../process/line-server.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { Decision } from '../decision.ts'

/** What every door that answers questions needs. */
export type ServiceOptions = {
  readonly decide: (ip: IpAddress | undefined) => Promise<Decision>
  /** Called once a question, with what the asker hears; `ip` undefined: whoever asked named no address. */
  readonly onDecision: (ip: IpAddress | undefined, decision: Decision) => void
  readonly limits: Pick<LineServerLimits, 'maxConnections' | 'maxOpen'>
  readonly log: Log
}
