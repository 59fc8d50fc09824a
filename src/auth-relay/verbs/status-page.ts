import { resolve } from 'node:path'
import { loadSettingsFile, requireConfigured } from '../../settings/settings.ts'
import { startStatusPage } from '../status-page/start-status-page.ts'
import type { Verb } from '../verb.ts'
import { withConfigOption } from '../verb.ts'

/** `auth-relay status-page`: the page for the browser; `up` starts it where the settings name an address for it. */
export const statusPage: Verb = (program, { environment }, choose) => {
  withConfigOption(program.command('status-page'))
    .description(
      'serve the status page on a loopback address: grants, logins and refusals, gate, database, certificate',
    )
    .addHelpText(
      'after',
      `
Examples:
  STATUS_PAGE_LISTEN=127.0.0.1:8110 auth-relay status-page
  ssh -L 8110:127.0.0.1:8110 mx.example.org        then http://127.0.0.1:8110/ at home

auth-relay up starts it by itself if status-page.listen is set. The page shows and changes
nothing. It has no password: whoever can connect to the address reads logins and
addresses; unix:/PATH is for root alone.`,
    )
    .action((options: { config: string }) => {
      choose({
        type: 'daemon',
        name: 'status-page',
        start: () => {
          const config = resolve(options.config)
          return startStatusPage(() => {
            const { settings } = loadSettingsFile(config, environment)
            requireConfigured(settings, config)
            return settings
          })
        },
      })
    })
}
