import '../base/ignore-inspector-signal.ts'
import manifest from '../../package.json' with { type: 'json' }
import { UsageFault } from '../base/exit-status.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'
import { loadSettingsFile, requireConfigured, SETTINGS_FILE } from '../settings/settings.ts'
import { startAuthd } from './authd.ts'

const USAGE = `Usage: authd [--config FILE]    hear of logins, keep the grants
       authd --help | --version

Signals: HUP reads the settings again, USR1 logs the counters, TERM stores what is left and ends. See authd(8).
`

const [option, file = SETTINGS_FILE, ...more] = process.argv.slice(2)

if (option === undefined || (option === '--config' && more.length === 0)) {
  await runDaemon('authd', () =>
    startAuthd(() => {
      const { settings } = loadSettingsFile(file)
      requireConfigured(settings, file)
      return settings
    }),
  )
} else {
  await runCommand('authd', async () => {
    if (option === '--help') process.stdout.write(USAGE)
    else if (option === '--version') process.stdout.write(`authd (auth-relay) ${manifest.version}\n`)
    else throw new UsageFault(`unknown option ${option}: see authd --help`)
    return 0
  })
}
