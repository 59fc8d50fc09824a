import { Program } from './program.ts'

/**
 * Sends SIGUSR1 to each process, then to a Node.js process without settings, and waits until the
 * latter has opened its inspector. By then the other processes had enough time to open an
 * inspector.
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
