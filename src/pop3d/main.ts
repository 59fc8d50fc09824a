/** The program `pop3d`: one session on descriptors 0 and 1, or a worker of popup. */
import '../base/inspector.ts'
import { EXIT } from '../base/errors.ts'
import { parseDaemonWords } from '../process/command-line.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'

const USAGE = `Usage: pop3d MAILDIR        serve one session on descriptors 0 and 1, started by a checker
       pop3d --worker       serve the sessions of one owner, started by popup
       pop3d --help | --version

Environment of pop3d MAILDIR: COMPAT SIZES EXTRA_BLANK LOCK POP3D_IDLE_TIME, and from the checker
TCPREMOTEIP AUTHRELAY_LOGIN AUTHRELAY_METHOD AUTHRELAY_TLS AUTHRELAY_ANNOUNCED; see pop3d(8).
`

const args = process.argv.slice(2)

if (args.length === 1 && args[0] === '--worker') {
  const { startWorker } = await import('./worker.ts')
  await runDaemon('pop3d', startWorker)
} else {
  await runCommand('pop3d', async () => {
    const words = parseDaemonWords('pop3d', USAGE, undefined, args)
    if (words.kind === 'about') process.stdout.write(words.text)
    else {
      const [{ serveStandalone }, { ownEnvironment }, { forbidInspection }] = await Promise.all([
        import('./standalone.ts'),
        import('../ucspi/environment.ts'),
        import('../process/privileges.ts'),
      ])
      const environment = ownEnvironment()
      forbidInspection()
      return serveStandalone(args[0], environment)
    }
    return EXIT.done
  })
}
