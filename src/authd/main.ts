/**
 * The program `authd`: its command line, and the settings that it reads at its start and at each
 * SIGHUP.
 */
import '../base/inspector.ts'
import { EXIT, UsageFault } from '../base/errors.ts'
import { parseDaemonWords, unknownOption } from '../process/command-line.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'
import { loadDaemonSettings, SETTINGS_FILE } from '../settings/settings.ts'
import { startAuthd } from './authd.ts'

const USAGE = `Usage: authd [--config FILE]    receive login events, store the grants
       authd --help | --version

Signals: HUP reads the settings again, USR1 logs the counters, TERM stores what is left and ends. See authd(8).
`

await runCommand('authd', async () => {
  const args = process.argv.slice(2)
  const words = parseDaemonWords('authd', USAGE, SETTINGS_FILE, args)
  if (words.kind === 'own') {
    const [first = ''] = args
    throw new UsageFault(
      first.startsWith('-') ? unknownOption('authd', first) : 'authd takes no arguments: see authd --help',
    )
  }
  if (words.kind === 'about') process.stdout.write(words.text)
  else await runDaemon('authd', () => startAuthd(() => loadDaemonSettings('authd', words.config)))
  return EXIT.done
})
