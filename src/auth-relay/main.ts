import { runCommand, runDaemon } from '../daemon/lifecycle.ts'
import { readCommandLine } from './command-line.ts'

let chosen: ReturnType<typeof readCommandLine> | undefined
await runCommand('auth-relay', async () => {
  chosen = readCommandLine(process.argv.slice(2), process.env)
  return chosen.type === 'command' ? chosen.run() : 0
})
if (chosen?.type === 'daemon') await runDaemon('auth-relay', chosen.start)
