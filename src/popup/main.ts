import '../base/ignore-inspector-signal.ts'
import manifest from '../../package.json' with { type: 'json' }
import { UsageFault } from '../base/exit-status.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'
import { SETTINGS_FILE } from '../settings/settings.ts'

const USAGE = `Usage: popup [--config FILE]          serve POP3 logins by the settings file
       popup [-P] HOST CHECKER PROG…  serve one connection on descriptors 0 and 1 (UCSPI), no settings file needed
       popup --help | --version

-P: the connection begins with a PROXY header. Settings file: ${SETTINGS_FILE} unless named. See popup(8).
`

const [word = '', ...more] = process.argv.slice(2)

if (word === '--login' && more.length === 0) {
  const { runLogin } = await import('./login/login.ts')
  await runCommand('popup', () => runLogin().then(() => process.exit(0)))
} else if (word === '' || word === '--config') {
  await runDaemon('popup', async () => {
    const [file = SETTINGS_FILE, ...rest] = more
    if (rest.length > 0 || (word !== '' && more.length === 0)) throw new UsageFault('usage: popup [--config FILE]')
    const { startMonitor } = await import('./monitor/monitor.ts')
    return startMonitor(file, process.argv[1] ?? '')
  })
} else {
  await runCommand('popup', async () => {
    if (word === '--help') process.stdout.write(USAGE)
    else if (word === '--version') process.stdout.write(`popup (auth-relay) ${manifest.version}\n`)
    else if (word.startsWith('--')) throw new UsageFault(`unknown option ${word}: see popup --help`)
    else {
      const [{ serveConnection }, { ownEnvironment }, { forbidInspection }] = await Promise.all([
        import('./one-connection/serve-connection.ts'),
        import('../ucspi/environment.ts'),
        import('../process/privileges.ts'),
      ])
      const environment = ownEnvironment()
      forbidInspection()
      return serveConnection([word, ...more], environment)
    }
    return 0
  })
}
