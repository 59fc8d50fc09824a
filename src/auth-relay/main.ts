/** The program `auth-relay`: runs the verb of its command line, to its end or as a daemon. */
import '../base/inspector.ts'
import { EXIT } from '../base/errors.ts'
import { runCommand, runDaemon } from '../process/lifecycle.ts'
import { forbidInspection } from '../process/privileges.ts'
import { readCommandLine } from './command-line.ts'
import type { Action } from './verb.ts'

forbidInspection()
let chosen: Action | undefined
// `auth-relay … | head`: the reader has closed the pipe. A running stack continues without a reader
// of its screen.
process.stdout.on('error', () => {
  if (chosen?.kind !== 'daemon') process.exit(EXIT.temporary)
})
await runCommand('auth-relay', async () => {
  chosen = await readCommandLine(process.argv.slice(2), process.env)
  return chosen.kind === 'command' ? chosen.run() : 0
})
if (chosen?.kind === 'daemon') await runDaemon(chosen.name, chosen.start)
