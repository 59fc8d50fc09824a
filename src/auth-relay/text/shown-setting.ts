import type { Origin, ShownSetting } from '../../settings/settings.ts'

const SECRETS: ReadonlySet<string> = new Set(['dbpass', 'wrap_dbpass', 'status_dbpass'])

/** The setting as it may be printed: a password that stands in the file is left out. */
export const hideSecret = (setting: ShownSetting): ShownSetting =>
  SECRETS.has(setting.name) && setting.written !== '' ? { ...setting, written: '[secret]' } : setting

/** Where the value of a setting comes from, in words. */
export function describeOrigin(origin: Origin): string {
  switch (origin.type) {
    case 'default':
      return 'default'
    case 'file':
      return `line ${origin.line}`
    case 'environment':
      return `environment ${origin.variable}`
  }
}
