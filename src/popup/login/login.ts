import { createLog } from '../../base/log.ts'
import { forbidNewPrivileges } from '../../libc/this-process.ts'
import { watchDescriptors } from '../../process/descriptor-watch.ts'
import { openListener } from '../../process/listener.ts'
import { dropPrivileges } from '../../process/privileges.ts'
import { channelToParent, FIRST_LISTENING_DESCRIPTOR } from '../../process/worker-process.ts'
import type { Acceptor } from '../../sockets/engine.ts'
import { selectEngine } from '../../sockets/select-engine.ts'
import { type LoginSettings, parseToLogin } from '../messages.ts'
import { LoginServer } from './login-server.ts'
import { MonitorRequests } from './monitor-requests.ts'

/**
 * The process that talks to the network before login: no rights, no secrets but the preamble's
 * password. It is started by
 * the monitor. Fulfilled when it should end: the monitor is gone, or said so and the last session is over.
 */
export async function runLogin(): Promise<void> {
  const ended = Promise.withResolvers<void>()
  // A terminal's Ctrl-C reaches us too; the monitor says when to stop.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  // Many small turns for many clients become fewer turns with more work in each.
  const channel = channelToParent({ batch: true })
  const monitor = new MonitorRequests(channel)
  channel.onClose(ended.resolve)
  const started = Promise.withResolvers<LoginSettings>()
  let server: LoginServer | undefined
  const acceptors: Acceptor[] = []
  channel.onMessage(raw => {
    const message = parseToLogin(raw)
    if (message.type === 'settings') {
      if (server === undefined) started.resolve(message.settings)
      else server.use(message.settings)
    } else if (message.type === 'drain') {
      for (const acceptor of acceptors) acceptor.close()
      void server?.drain().then(ended.resolve)
    } else monitor.receive(message)
  })
  const settings = await started.promise
  const log = createLog('popup', { level: settings.logLevel })
  watchDescriptors(log)
  const engine = selectEngine(settings.engine, 'popup.engine', log)
  engine.logLimits(log)
  server = new LoginServer(settings, monitor, engine, log)
  process.chdir(settings.directory)
  if (settings.ids !== null) dropPrivileges(settings.ids)
  forbidNewPrivileges()
  for (const [index, options] of settings.listeners.entries())
    acceptors.push(server.listen(FIRST_LISTENING_DESCRIPTOR + index, options))
  if (settings.mode === 'chain') {
    const fd = FIRST_LISTENING_DESCRIPTOR + settings.listeners.length
    await openListener(server.chains.server, { type: 'descriptor', fd }, 'popup.listen')
  }
  monitor.ready()
  await ended.promise
}
