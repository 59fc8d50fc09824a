import type { Command } from 'commander'
import { SETTINGS_FILE } from '../daemon/settings/settings.ts'

/** `--config FILE`, the same for every verb that reads the settings. */
export const withConfigOption = (command: Command): Command =>
  command.option('--config <file>', 'settings file', SETTINGS_FILE)
