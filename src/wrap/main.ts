import '../base/inspector.ts'
import { inheritance } from '../ucspi/run-next.ts'
import { execMode, parseExecLine } from './exec/exec-mode.ts'

/**
 * Runs exec mode, or loads the rest of `wrap`. Exec mode runs once for each connection, so all
 * other code, such as the database, is loaded only when it is needed.
 */
async function main(): Promise<void> {
  const taken = inheritance()
  const args = process.argv.slice(2)
  const script = process.argv[1] ?? ''
  const line = parseExecLine(args, script)
  if (line === undefined) {
    const { runWrap } = await import('./run-wrap.ts')
    return runWrap(args, process.env)
  }
  const status = await execMode({ ...line, inheritance: taken, script }, async (...query) => {
    const { askDatabaseOnce } = await import('./ask-database.ts')
    return askDatabaseOnce(...query)
  })
  // Exit now, because a pending query must not delay the client.
  process.exit(status)
}

void main()
