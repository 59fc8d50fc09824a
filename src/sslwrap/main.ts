/**
 * The program `sslwrap`. The command line selects the privileged process, a worker, or one client
 * on descriptors 0 and 1.
 */
import '../base/inspector.ts'
import { EXIT } from '../base/errors.ts'
import { nameProcess, runCommand, runDaemon } from '../process/lifecycle.ts'
import { loadDaemonSettings } from '../settings/settings.ts'
import { parseCommandLine } from './command-line.ts'
import { serveStandardInput } from './inetd.ts'
import { planOf } from './plan.ts'
import { startSupervisor } from './supervisor.ts'
import { runWorker } from './worker.ts'

const script = process.argv[1] ?? ''

await runCommand('sslwrap', async () => {
  const invocation = parseCommandLine(process.argv.slice(2), process.env)
  switch (invocation.type) {
    case 'about':
      process.stdout.write(invocation.text)
      return EXIT.done
    case 'worker':
      nameProcess('sslwrap-worker')
      runWorker(status => process.exit(status))
      return EXIT.done
    case 'inetd':
      return serveStandardInput(invocation.plan, invocation.program, invocation.user)
    case 'stand-alone':
      await runDaemon('sslwrap', () => startSupervisor(() => ({ plan: invocation.plan, settings: undefined }), script))
      return EXIT.done
    case 'daemon': {
      const readPlan = () => {
        const settings = loadDaemonSettings('sslwrap', invocation.config)
        return { plan: planOf(settings), settings }
      }
      await runDaemon('sslwrap', () => startSupervisor(readPlan, script))
      return EXIT.done
    }
  }
})
