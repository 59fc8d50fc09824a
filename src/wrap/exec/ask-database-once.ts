import { loadSettingsFile, parseSettings } from '../../settings/settings.ts'
import { remoteIpOf } from '../../ucspi/connection.ts'
import type { Environment } from '../../ucspi/environment.ts'
import { askDatabase } from '../ask-database.ts'
import { type Decision, decide } from '../decision.ts'

/**
 * Decides by asking the database itself, for a program that asks one question: the settings file if
 * there is one, overridden by the environment.
 * Throws UsageFault.
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
