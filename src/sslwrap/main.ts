/**
 * The program `sslwrap`. The command line selects the privileged process, a worker, or one client
 * on descriptors 0 and 1.
 */
import '../base/inspector.ts'
import { EXIT } from '../base/errors.ts'
import { nameProcess, runCommand, runDaemon } from '../process/lifecycle.ts'
import { loadDaemonSettings } from '../settings/settings.ts'
import { parseCommandLine } from './command-line.ts'
import { planOf } from './plan.ts'
import type { Planned } from './supervisor.ts'

/** Each case loads its own code alone: a worker needs no supervisor. */
async function supervise(readPlan: () => Planned): Promise<void> {
  await runDaemon('sslwrap', async () => {
    const { startSupervisor } = await import('./supervisor.ts')
    return startSupervisor(readPlan, process.argv[1] ?? '')
  })
}

await runCommand('sslwrap', async () => {
  const invocation = parseCommandLine(process.argv.slice(2), process.env)
  switch (invocation.kind) {
    case 'about':
      process.stdout.write(invocation.text)
      return EXIT.done
    case 'worker': {
      nameProcess('sslwrap-worker')
      const { runWorker } = await import('./worker.ts')
      runWorker(status => process.exit(status))
      return EXIT.done
    }
    case 'inetd': {
      const { serveStandardInput } = await import('./inetd.ts')
      return serveStandardInput(invocation.plan, invocation.program, invocation.user)
    }
    case 'stand-alone':
      await supervise(() => ({ plan: invocation.plan, settings: undefined }))
      return EXIT.done
    case 'daemon':
      await supervise(() => {
        const settings = loadDaemonSettings('sslwrap', invocation.config)
        return { plan: planOf(settings), settings }
      })
      return EXIT.done
  }
})
