import { EXIT } from '../base/exit-status.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'
import { parseCommandLine } from './command-line.ts'
import { startGate } from './gate/gate-daemon.ts'
import { loadSettings } from './load-settings.ts'

/** The program `wrap` apart from its exec door. */
export const runWrap = (
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Promise<void> =>
  runCommand('wrap', async () => {
    const invocation = parseCommandLine(args)
    switch (invocation.type) {
      case 'about':
        process.stdout.write(invocation.text)
        return EXIT.done
      case 'daemon':
        await runDaemon('wrap', () => startGate(() => loadSettings(invocation, environment)))
        return EXIT.done
    }
  })
