/** The database as the store of grants, for the gate's services and for one query in exec mode. */
import { type AddressRules, addressRulesOf, closedBy } from '../grants/devices/mail-rules.ts'
import { policyOf } from '../grants/grant-policy.ts'
import { openGrantReader } from '../grants/grant-reader.ts'
import type { Ungrantable } from '../grants/never-list.ts'
import { databaseConnection } from '../settings/database-connection.ts'
import { loadSettingsFile, parseSettings, type Settings } from '../settings/settings.ts'
import { type Environment, remoteIpOf } from '../ucspi/environment.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import { type AskGrant, type Decision, decide } from './decision.ts'
import type { CdbExportOptions } from './services/cdb-export.ts'

/** The store of grants for the services. */
export type GrantSource = {
  readonly ask: AskGrant
  /** Lists all grants and allowances that are in force. */
  readonly list: CdbExportOptions['list']
  /** Calls `changed` soon after the list has changed. The notification may be lost. */
  readonly onChange: (changed: () => void) => void
  readonly rules: AddressRules
  /** Returns why an address can never be granted; undefined if it can. */
  readonly refusal: (ip: IpAddress) => Ungrantable | undefined
  close(): Promise<void>
}

/**
 * Opens the store that the settings name, with the read-only role. Reads secrets immediately and
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
  const rules = addressRulesOf(settings)
  return {
    rules,
    ask: async (ip, signal) => {
      const asked = Date.now()
      const grant = await reader.lookup(ip, { signal })
      if (grant === undefined) return undefined
      const { secondsLeft, login, device, logins, granted, devices } = grant
      return {
        until: endHere(asked, secondsLeft),
        login: login ?? undefined,
        device: device ?? undefined,
        logins,
        granted,
        devices,
      }
    },
    list: async (signal, onProof) => {
      const asked = Date.now()
      const grants = await reader.current({ signal, onProof })
      // The database checks the rules of a device for this list, as far as a table of addresses can
      // express them.
      return grants
        .filter(
          ({ network, login, logins, hasDevice }) =>
            hasDevice || closedBy(network.base, { login: login ?? undefined, logins }, rules) === undefined,
        )
        .map(({ network, secondsLeft, login }) => ({
          network,
          until: endHere(asked, secondsLeft),
          login: login ?? undefined,
        }))
    },
    onChange,
    refusal: ip => policy.neverList.refusal(ip),
    close,
  }
}

/**
 * The end of a grant by the clock of this host, in Unix seconds. `secondsLeft` are left by the
 * database's clock, which may differ by minutes. `asked`: milliseconds, the time before the query.
 * Rounded down, so that no reported end is later than the end of the grant.
 */
const endHere = (asked: number, secondsLeft: number | null): number | undefined =>
  secondsLeft === null ? undefined : Math.floor(asked / 1000 + secondsLeft)

/**
 * Decides by one query to the database, for exec mode. Settings come from the settings file, if
 * there is one, and the environment overrides them. Throws UsageFault.
 */
export async function askDatabaseOnce(
  file: string | undefined,
  environment: Environment,
  timeoutMs: number,
): Promise<Decision> {
  const variables = Object.fromEntries(
    Object.entries(environment).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )
  const { settings } =
    file === undefined ? parseSettings('', '(no settings file)', variables) : loadSettingsFile(file, variables)
  return decide(remoteIpOf(environment), { ...askDatabase(settings, 1), timeoutMs })
}
