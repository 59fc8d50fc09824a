/**
 * The daemon authd: the order of its start, the effects of a reload, and the last logins at its
 * end.
 */
import { chownSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { createLog, type FieldsOf, type Log } from '../base/log.ts'
import { policyOf } from '../grants/grant-policy.ts'
import { type OpenGrantWriter, openGrantWriter } from '../grants/grant-writer.ts'
import { watchDescriptors } from '../process/connection-limits.ts'
import type { RunningDaemon } from '../process/lifecycle.ts'
import { openMetricsListener } from '../process/metrics-listener.ts'
import { dropPrivileges, type Ids, idsOf, isRoot } from '../process/privileges.ts'
import { formatSocketAddress } from '../process/socket-address.ts'
import { makeSocketDirectory, watchSocketFile } from '../process/unix-sockets.ts'
import { databaseConnection, databaseGroups } from '../settings/database-connection.ts'
import { databaseRemedy } from '../settings/database-remedy.ts'
import { restartFields } from '../settings/reload.ts'
import type { Settings } from '../settings/settings.ts'
import { LAST_LINES_FILE } from '../wire/last-lines.ts'
import { Counters } from './counters.ts'
import { FilePlaces, LastLinesFile } from './file-places.ts'
import { FollowedFile } from './followed-file.ts'
import { GrantQueue } from './grant-queue.ts'
import { Housekeeper } from './housekeeper.ts'
import { Journal } from './journal.ts'
import { LoginSocket } from './login-socket.ts'
import { LoginSources, recognizersFor } from './login-sources.ts'
import type { Metrics } from './metrics.ts'
import { SyslogFifo } from './syslog-fifo.ts'
import { SyslogListener } from './syslog-listener.ts'
import { UsageSocket } from './usage-socket.ts'

/** Time limits for storing logins at the end, in milliseconds: without progress, and in all. */
const FLUSH_MS = 5000
const LONGEST_FLUSH_MS = 30_000

/** Longest wait for the row of an address that another transaction has locked, in milliseconds. */
const LOCK_TIMEOUT_MS = 1000

/** Starts authd. `load` reads the settings, at the start and at each SIGHUP. */
export async function startAuthd(load: () => Settings): Promise<RunningDaemon> {
  const settings = load()
  const { authd, grants, top } = settings
  const log = createLog('authd', { level: top.log_level, byTurn: true })
  watchDescriptors(log)
  const counters = new Counters()
  const connection = databaseConnection(settings, 'writer')
  const store = openGrantWriter(
    { ...connection, applicationName: 'authd', max: 4, lockTimeoutMs: LOCK_TIMEOUT_MS },
    policyOf(settings),
  )
  let metrics: Metrics | undefined
  const queue = new GrantQueue({
    store,
    log,
    counters,
    clock: systemClock,
    monotonic: () => performance.now(),
    commitWait: authd.commit_wait,
    onCommit: milliseconds => metrics?.observeCommit(milliseconds),
  })
  store.onStateChange(state => {
    if (state.state === 'down') {
      log.error('database_unavailable', {
        state: state.state,
        reason: state.reason,
        remedy: `${databaseRemedy({ message: state.reason, refusal: state.refusal }, connection)}; logins wait meanwhile`,
      })
    } else if (state.state === 'up') {
      log.info('database_connected', { state: state.state, host: state.host, pooled: state.pooled })
    }
    warnOfCommit(state, settings, log)
    if (state.state === 'up') queue.storeIsBack()
  })
  const loginSources = new LoginSources({
    recognizers: recognizersFor(settings),
    queue,
    counters,
    clock: systemClock,
    log,
  })
  const common = { sources: loginSources, queue, counters, log }
  const sources: { close(): void | Promise<void> }[] = []
  const ready: string[] = []

  const owner = authd.user === '' || !isRoot() ? undefined : idsOf(authd.user, 'authd.user')
  const directory = ownDirectory(top.state_dir, owner)
  const places = new FilePlaces(join(directory, 'places.json'))
  const lastLines = new LastLinesFile(join(top.state_dir, LAST_LINES_FILE), counters.lastLines)
  if (authd.syslog_fifo !== '') {
    const fifo = new SyslogFifo({ ...common, path: authd.syslog_fifo })
    sources.push(fifo)
    ready.push(`fifo=${authd.syslog_fifo}`)
    log.info('fifo_opened', { path: authd.syslog_fifo, capacity: fifo.capacity })
  }
  const syslog = new SyslogListener(common)
  sources.push(syslog)
  for (const address of authd.syslog_listen) {
    ready.push(`syslog=${formatSocketAddress(await syslog.listen(address))}`)
  }
  for (const path of authd.follow_files) {
    sources.push(new FollowedFile({ ...common, path, places }))
    ready.push(`file=${path}`)
  }
  if (authd.journal) {
    sources.push(new Journal({ ...common, command: authd.journal_command, places }))
    ready.push('journal')
  }
  const socket = new LoginSocket({
    ...common,
    path: authd.socket,
    uids: uidsOf(authd.socket_users, 'authd.socket_users'),
    owner,
  })
  for (const [setting, path] of Object.entries({
    'authd.socket': authd.socket,
    'authd.usage_socket': authd.usage_socket,
  })) {
    if (path !== '') makeSocketDirectory({ kind: 'unix', path }, { runDir: top.run_dir, setting, owner })
  }
  if (authd.socket !== '') ready.unshift(`listen=${formatSocketAddress(await socket.listen())}`)
  const usage = new UsageSocket({
    path: authd.usage_socket,
    uids: new Set([...uidsOf(authd.usage_users, 'authd.usage_users'), ...uidOfGate(settings)]),
    owner,
    store,
    counters,
    clock: systemClock,
    monotonic: () => performance.now(),
    log,
  })
  if (authd.usage_socket !== '') {
    await usage.listen()
    ready.push(`usage=unix:${authd.usage_socket}`)
  }
  if (authd.metrics_listen !== undefined) {
    const { Metrics } = await import('./metrics.ts')
    metrics = new Metrics({
      counters,
      queue,
      databaseIsUp: () => store.state().state === 'up',
      countLive: () => store.countLive(),
      countAlarms: () => store.countAlarms(),
    })
    const listener = await openMetricsListener(metrics.registry, authd.metrics_listen, 'authd.metrics_listen')
    sources.push(listener)
    ready.push(`metrics=${formatSocketAddress(listener.address)}`)
  }
  const watches = [authd.socket, authd.usage_socket].filter(path => path !== '').map(watchSocketFile)
  const housekeeper = new Housekeeper({
    store,
    places,
    lastLines,
    counters,
    log,
    sweepEvery: grants.alrm_time * 1000,
    keepDays: grants.history_days,
  })
  warnOfUnsafe(settings, log)
  // Every file and socket that needs root is open now.
  if (owner !== undefined) dropPrivileges(owner, databaseGroups(settings))

  return {
    ready: ready.join(' '),
    reload() {
      const changed = load()
      loginSources.reconfigure(recognizersFor(changed))
      store.usePolicy(policyOf(changed))
      warnOfUnsafe(changed, log)
      log.info('settings_reloaded', restartFields('authd', settings, changed))
    },
    report: () => reportCounters(counters, queue, log),
    failed: Promise.race(watches.map(({ missing }) => missing)),
    async stop() {
      for (const watch of watches) watch.stop()
      socket.drain()
      await Promise.all(sources.map(async source => source.close()))
      const lost = await queue.drain(FLUSH_MS, LONGEST_FLUSH_MS)
      if (lost > 0) log.error('logins_lost', { count: lost, reason: 'the database did not come back in time' })
      await usage.write()
      socket.close()
      usage.close()
      queue.close()
      housekeeper.close()
      reportCounters(counters, queue, log)
      await Promise.race([store.close(), new Promise(resolve => setTimeout(resolve, 1000).unref())])
    },
  }
}

/** Where authd keeps its own files; it must be able to write there under its own account. */
function ownDirectory(stateDir: string, owner: Ids | undefined): string {
  const directory = join(stateDir, 'authd')
  if (owner === undefined) return directory
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  chownSync(directory, owner.uid, owner.gid)
  return directory
}

const uidsOf = (accounts: readonly string[], setting: string): ReadonlySet<number> =>
  new Set(accounts.map(account => idsOf(account, setting).uid))

/** The gate's account, if the host has it. The gate reports used grants. */
function uidOfGate({ wrap }: Settings): readonly number[] {
  try {
    return [idsOf(wrap.user, 'wrap.user').uid]
  } catch {
    return [] // this host has no gate, or no separate account for it
  }
}

/**
 * Detects that the server lowers the durability of commits for authd's role, for the database or as
 * a whole.
 */
function warnOfCommit(state: ReturnType<OpenGrantWriter['state']>, { database }: Settings, log: Log): void {
  if (state.state !== 'up') return
  const { host, synchronousCommit: value } = state
  const lowered = database.require_sync ? ['off', 'local', 'remote_write'] : ['off']
  if (!lowered.includes(value)) return
  log.warn('synchronous_commit_lowered', {
    host,
    value,
    reason: database.require_sync
      ? 'authd sets synchronous_commit = on for its own connections'
      : 'a crash of the server may lose logins that were answered committed',
    remedy: `raise synchronous_commit to on for the role ${database.dbuser}, the database or the server`,
  })
}

function warnOfUnsafe({ grants }: Settings, log: Log): void {
  if (!grants.grant_loopback) return
  log.warn('setting_unsafe', {
    setting: 'grant_loopback',
    reason: 'every program on this host can relay: for tests only',
  })
}

/** All counters in a few lines (SIGUSR1 and the end). */
function reportCounters(counters: Counters, queue: GrantQueue, log: Log): void {
  for (const [source, verdicts] of counters.events) {
    const [lines, overlong] = [counters.lines[source], counters.overlong[source]]
    const dropped = counters.dropped.get(source)
    const events: FieldsOf<'counters_reported'> = {
      committed: verdicts.get('committed'),
      queued: verdicts.get('queued'),
      refused: verdicts.get('refused'),
      replaced: verdicts.get('replaced'),
      dropped: verdicts.get('dropped'),
      dropped_expired: dropped?.get('expired'),
      dropped_no_time: dropped?.get('no_time'),
      dropped_cut_name: dropped?.get('cut_name'),
      dropped_sender: dropped?.get('sender'),
    }
    if (lines + overlong + [...verdicts.values()].reduce((sum, n) => sum + n, 0) > 0) {
      log.info('counters_reported', { source, lines, overlong, ...events })
    }
  }
  const ignored = [...counters.ignored].map(([tag, n]) => `${tag}:${n}`).join(',')
  const { commits, commitFailures, sweeps, swept, fifoFull, badAnnouncements, foreignPeers, usageEvents, decisions } =
    counters
  log.info('counters_reported', {
    waiting: queue.length,
    commits,
    commit_failures: commitFailures,
    sweeps,
    swept,
    fifo_full: fifoFull,
    bad_announcements: badAnnouncements,
    foreign_peers: foreignPeers,
    usage_events: usageEvents,
    gate_relayed: decisions.relayed,
    gate_refused: decisions.refused,
    gate_undecided: decisions.undecided,
    gate_never: decisions.never,
    ignored,
  })
}
