import { openGrantReader } from '../grants/open-grant-reader.ts'
import { policyOf } from '../grants/policy-of.ts'
import { databaseConnection } from '../settings/database-connection.ts'
import type { Settings } from '../settings/settings.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { AskGrant } from './decision.ts'
import type { ListedGrant } from './services/cdb-export.ts'

/** The store of grants as the doors see it. */
export type GrantSource = {
  readonly ask: AskGrant
  /** Everything that may relay now. */
  readonly list: (signal: AbortSignal) => Promise<readonly ListedGrant[]>
  /** Calls `heard` soon after that has changed; it may never come. */
  readonly onChange: (heard: () => void) => void
  /** Why an address can never be granted; undefined if it can. */
  readonly refusal: (ip: IpAddress) => string | undefined
  close(): Promise<void>
}

/**
 * Opens the store that the settings name, with the role that can only read. Reads secrets at once,
 * connects in the background. Throws UsageFault.
 */
export function askDatabase(settings: Settings, connections: number): GrantSource {
  const policy = policyOf(settings)
  const { reader, onChange, close } = openGrantReader(
    {
      ...databaseConnection(settings, 'reader'),
      statementTimeoutMs: settings.wrap.wrap_timeout * 1000,
      max: connections,
    },
    policy,
  )
  return {
    ask: async (ip, signal) => {
      const grant = await reader.lookup(ip, { signal })
      if (grant === undefined) return undefined
      const { until, login, device } = grant
      return { until: unixSeconds(until), login: login ?? undefined, device: device ?? undefined }
    },
    list: async signal => {
      const grants = await reader.current({ signal })
      return grants.map(({ network, until, login }) => ({
        network,
        until: unixSeconds(until),
        login: login ?? undefined,
      }))
    },
    onChange,
    refusal: ip => policy.neverList.refusal(ip),
    close,
  }
}

/** Rounded down: nothing of ours says that a grant lives longer than it does. */
const unixSeconds = (date: Date | null): number | undefined =>
  date === null ? undefined : Math.floor(date.getTime() / 1000)
