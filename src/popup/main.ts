/**
 * The program `popup`. The command line selects the monitor, a login process, or one connection,
 * and each of them loads only its own modules.
 */
import '../base/inspector.ts'
import { EXIT } from '../base/errors.ts'
import { parseDaemonWords } from '../process/command-line.ts'
import { nameProcess, runCommand, runDaemon } from '../process/lifecycle.ts'
import { SETTINGS_FILE } from '../settings/settings.ts'

const USAGE = `Usage: popup [--config FILE]          serve POP3 logins by the settings file
       popup [-P] HOST CHECKER PROG…  serve one connection on descriptors 0 and 1 (UCSPI), no settings file needed
       popup --help | --version

-P: the connection begins with a PROXY header. See popup(8).
`

const args = process.argv.slice(2)

if (args.length === 1 && args[0] === '--login') {
  nameProcess('popup-login')
  const { runLogin } = await import('./login/login-server.ts')
  await runCommand('popup', () => runLogin().then(() => process.exit(0)))
} else {
  await runCommand('popup', async () => {
    // The words from HOST on belong to the checker and its program.
    const host = args.findIndex((word, at) => !word.startsWith('-') && args[at - 1] !== '--config')
    const words = parseDaemonWords('popup', USAGE, SETTINGS_FILE, args, host < 0 ? args : args.slice(0, host))
    if (words.kind === 'about') process.stdout.write(words.text)
    else if (words.kind === 'serve') {
      await runDaemon('popup', async () => {
        const { startMonitor } = await import('./monitor/monitor.ts')
        return startMonitor(words.config, process.argv[1] ?? '')
      })
    } else {
      const [{ serveConnection }, { ownEnvironment }, { forbidInspection }] = await Promise.all([
        import('./one-connection/serve-connection.ts'),
        import('../ucspi/environment.ts'),
        import('../process/privileges.ts'),
      ])
      const environment = ownEnvironment()
      forbidInspection()
      return serveConnection(args, environment)
    }
    return EXIT.done
  })
}
