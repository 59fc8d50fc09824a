import { Program } from './program.ts'

/**
 * Sends SIGUSR1 to each process, then to a bare Node.js, and waits until that one has opened its
 * inspector: by then the others have had the time to open theirs.
 */
export async function signalUntilInspected(pids: readonly number[]): Promise<void> {
  const control = new Program('bare Node.js', [
    process.execPath,
    '--inspect-port=127.0.0.1:0',
    '-e',
    'setInterval(() => {}, 1000); console.log("runs")',
  ])
  try {
    await control.waitForLine(/^runs$/)
    for (const pid of pids) process.kill(pid, 'SIGUSR1')
    control.signal('SIGUSR1')
    await control.waitForLine(/^Debugger listening on /)
  } finally {
    await control.stop()
  }
}
