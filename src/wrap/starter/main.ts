import '../../base/inspector.ts'
import { EXIT } from '../../base/errors.ts'
import { epollEngine } from '../../sockets/epoll-engine.ts'
import { nodeEngine } from '../../sockets/node-engine.ts'
import { serveStarts } from './serve-starts.ts'

/**
 * `smtpd-starter UID:GID ENGINE`: starts smtpds on the connections that arrive through a channel of
 * the gate. The gate starts this program, and ENGINE is the engine of the channel.
 */
const ids = /^(\d{1,10}):(\d{1,10})$/.exec(process.argv[2] ?? '')
const engine = [nodeEngine, epollEngine].find(({ name }) => name === process.argv[3])
if (ids === null || engine === undefined) {
  process.stderr.write(
    'smtpd-starter: usage: the gate starts this program (see wrap(8)); it takes UID:GID and an engine\n',
  )
  process.exitCode = EXIT.usage
} else serveStarts(engine, { uid: Number(ids[1]), gid: Number(ids[2]) }, status => process.exit(status))
