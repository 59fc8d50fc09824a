import { existsSync } from 'node:fs'
import {
  loadSettingsFile,
  parseSettings,
  requireConfigured,
  SETTINGS_FILE,
  type Settings,
} from '../settings/settings.ts'
import type { Overrides } from './command-line.ts'

/**
 * Settings of the resident gate. A command line with --listen needs no file; what it says wins over
 * everything. Throws UsageFault.
 */
export function loadSettings(
  { config, overrides }: { readonly config: string | undefined; readonly overrides: Overrides },
  environment: Readonly<Record<string, string | undefined>>,
): Settings {
  const file = config ?? SETTINGS_FILE
  const needsFile = config !== undefined || overrides.listen === undefined || existsSync(file)
  const { settings } = needsFile
    ? loadSettingsFile(file, environment)
    : parseSettings('', '(no settings file)', environment)
  if (needsFile) requireConfigured(settings, file)
  return { ...settings, wrap: { ...settings.wrap, ...overrides } }
}
