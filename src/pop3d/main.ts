import '../base/ignore-inspector-signal.ts'
import manifest from '../../package.json' with { type: 'json' }
import { UsageFault } from '../base/exit-status.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'

const USAGE = `Usage: pop3d MAILDIR        serve one session on descriptors 0 and 1, started by a checker
       pop3d --worker       serve the sessions of one owner, started by popup
       pop3d --help | --version

Environment of pop3d MAILDIR: COMPAT SIZES EXTRA_BLANK LOCK POP3D_IDLE_TIME, and from the checker
TCPREMOTEIP AUTHRELAY_LOGIN AUTHRELAY_METHOD AUTHRELAY_TLS AUTHRELAY_ANNOUNCED; see pop3d(8).
`

const [word, ...more] = process.argv.slice(2)

if (word === '--worker' && more.length === 0) {
  const { startWorker } = await import('./worker.ts')
  await runDaemon('pop3d', startWorker)
} else {
  await runCommand('pop3d', async () => {
    if (word === '--help') process.stdout.write(USAGE)
    else if (word === '--version') process.stdout.write(`pop3d (auth-relay) ${manifest.version}\n`)
    else if (word?.startsWith('--')) throw new UsageFault(`unknown option ${word}: see pop3d --help`)
    else {
      const [{ serveStandalone }, { ownEnvironment }, { forbidInspection }] = await Promise.all([
        import('./standalone.ts'),
        import('../ucspi/environment.ts'),
        import('../process/privileges.ts'),
      ])
      const environment = ownEnvironment()
      forbidInspection()
      return serveStandalone(word, environment)
    }
    return 0
  })
}
