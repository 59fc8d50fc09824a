import '../../base/ignore-inspector-signal.ts'
import { EXIT } from '../../base/exit-status.ts'
import { serveStarts } from './serve-starts.ts'

/**
 * `smtpd-starter UID:GID`, started by the gate with one end of a socket pair as descriptor 3: starts smtpds on the connections that come through it.
 */
const ids = /^(\d{1,10}):(\d{1,10})$/.exec(process.argv[2] ?? '')
if (ids === null) {
  process.stderr.write('smtpd-starter: usage: the gate starts this program (see wrap(8)); it takes UID:GID\n')
  process.exitCode = EXIT.usage
} else serveStarts(3, { uid: Number(ids[1]), gid: Number(ids[2]) }, status => process.exit(status))
