import { spawn } from 'node:child_process'
import { type Duplex, duplexPair } from 'node:stream'
import { createLog } from '../../../src/base/log.ts'
import { MaildropService } from '../../../src/pop3d/serve-maildrop.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { isRoot, OWNER } from './maildir.ts'
import type { Dialect } from './maildrop-model.ts'
import type { OpenSession } from './maildrop-trial.ts'
import { NODE, PROGRAM, socketPair, type WorkersForTests } from './pop3d.ts'

const settingsOf = (compat: Dialect) =>
  ({ compat, sizes: compat === 'qmail' ? 'file' : 'wire', extraBlank: compat === 'qmail' }) as const

/** A session of a worker, as popup's monitor starts it. */
export async function openByWorker(workers: WorkersForTests, maildir: string, compat: Dialect): Promise<Duplex> {
  const isWritten = { sizes: false, extraBlank: false }
  return (await workers.connect(maildir, { ...settingsOf(compat), isWritten })).socket
}

/** A separate process for the session, as tcpserver and a checker start it. */
export const openStandalone: OpenSession = async (maildir, compat) => {
  const { client, server } = await socketPair()
  spawn(NODE, [PROGRAM, maildir], {
    stdio: [server, server, 'inherit'],
    env: { COMPAT: compat, AUTHRELAY_ANNOUNCED: '1' },
    ...(isRoot ? OWNER : {}),
  })
  server.destroy()
  return client
}

/** Sessions in this process, which share the cache of one service. */
export function openWithin(compat: Dialect): OpenSession {
  const log = createLog('pop3d', { write: () => {} })
  const common = { lock: 'none', idleTime: 1_200_000, capabilities: [] } as const
  const service = new MaildropService({ ...common, ...settingsOf(compat) })
  return async maildir => {
    const [client, server] = duplexPair()
    void service.serve(new StreamConnection(server, server), maildir, new Uint8Array(0), log)
    return client
  }
}
