import { hostname } from 'node:os'
import { resolve } from 'node:path'
import manifest from '../../../package.json' with { type: 'json' }
import { systemClock } from '../../base/clock.ts'
import { UsageFault } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
import { openDatabase } from '../../database/database.ts'
import { createStatusFeed } from '../../grants/status-feed.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import { openListener } from '../../process/listener.ts'
import { dropPrivileges, idsOf, isRoot } from '../../process/privileges.ts'
import { formatSocketAddress, requireLoopback } from '../../process/socket-address.ts'
import { makeSocketDirectory } from '../../process/unix-sockets.ts'
import { databaseConnection, databaseGroups } from '../../settings/database-connection.ts'
import { restartFields } from '../../settings/reload.ts'
import { loadDaemonSettings, type Settings } from '../../settings/settings.ts'
import { shownCertificates } from '../certificates.ts'
import { page } from '../status-page/page.ts'
import { createStatusServer } from '../status-page/status-server.ts'
import { StatusSource } from '../status-page/status-source.ts'
import { type Verb, withConfigOption } from '../verb.ts'

/**
 * `auth-relay status-page`: the page for the browser. `up` starts it if the settings have an
 * address for it.
 */
export const statusPage: Verb = (program, { environment }, choose) => {
  withConfigOption(program.command('status-page'))
    .description(
      'serve the status page on a loopback address: grants, logins and refusals, gate, database, certificate',
    )
    .addHelpText(
      'after',
      `
Examples:
  STATUS_PAGE_LISTEN=127.0.0.1:8110 auth-relay status-page
  ssh -L 8110:127.0.0.1:8110 mx.example.org        then http://127.0.0.1:8110/ at home

auth-relay up starts the page too if status-page.listen is set. The page shows and changes
nothing. It has no password: every account that can connect to the address reads logins and
addresses; unix:/PATH is for root alone.`,
    )
    .action((options: { config: string }) => {
      choose({
        kind: 'daemon',
        name: 'status-page',
        start: () => {
          const config = resolve(options.config)
          return startStatusPage(() => loadDaemonSettings('status-page', config, environment))
        },
      })
    })
}

/** Limit for one query of the page, so that the page does not load a busy database further. */
const STATEMENT_TIMEOUT_MS = 5000
const CONNECTIONS = 2

/**
 * Serves the status page. `load` reads the settings. SIGHUP changes nothing: it logs which settings
 * need a restart. The program listens, reads the password of its role, which can only read, drops
 * root, and then answers.
 * @throws UsageFault if no address is set, or if other hosts can reach the address.
 */
async function startStatusPage(load: () => Settings): Promise<RunningDaemon> {
  const settings = load()
  const { listen, user } = settings.statusPage
  if (listen === undefined) {
    throw new UsageFault('status-page.listen is empty: set it to a loopback address, e.g. listen = "127.0.0.1:8110"')
  }
  requireLoopback(listen, 'status-page.listen')
  const log = createLog('status-page', { level: settings.top.log_level })
  const connection = databaseConnection(settings, 'status')
  const ids = isRoot() && user !== '' ? idsOf(user, 'status-page.user') : undefined
  const context = { host: hostname(), version: manifest.version, expTime: settings.grants.exp_time }
  const server = createStatusServer({
    page: async () => page(await source.snapshot(), context),
    checkHost: listen.kind !== 'unix',
    onFault: error => log.error('page_failed', { reason: error }),
  })
  makeSocketDirectory(listen, { runDir: settings.top.run_dir, setting: 'status-page.listen', owner: ids })
  const bound = await openListener(server, listen, 'status-page.listen')
  if (ids !== undefined) dropPrivileges(ids, databaseGroups(settings))
  const database = openDatabase({
    ...connection,
    applicationName: 'auth-relay status-page',
    max: CONNECTIONS,
    statementTimeoutMs: STATEMENT_TIMEOUT_MS,
  })
  const source = new StatusSource({
    feed: createStatusFeed(database),
    databaseState: () => database.state(),
    probeCertificates: () => shownCertificates(settings),
    clock: systemClock,
  })
  return {
    ready: `listen=${formatSocketAddress(bound)}`,
    reload: () => log.info('settings_reloaded', restartFields('status-page', settings, load())),
    stop: async () => {
      server.close()
      server.closeAllConnections()
      await database.close()
    },
  }
}
