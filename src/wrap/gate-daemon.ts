import type { Server } from 'node:net'
import { monotonicClock, systemClock } from '../daemon/clock.ts'
import { watchDescriptors } from '../daemon/descriptor-watch.ts'
import { UsageFault } from '../daemon/exit-status.ts'
import type { RunningDaemon } from '../daemon/lifecycle.ts'
import { openListener } from '../daemon/listener.ts'
import { createLog, type Log } from '../daemon/log.ts'
import { dropPrivileges, idsOf } from '../daemon/privileges.ts'
import type { Settings } from '../daemon/settings/settings.ts'
import { formatSocketAddress, type SocketAddress } from '../daemon/socket-address.ts'
import { changeEnvironment, ownEnvironment } from '../ucspi/environment.ts'
import { findProgram } from '../ucspi/find-program.ts'
import { OWN_VARIABLES } from '../ucspi/run-next.ts'
import { shareOpenFilesLimit } from '../ucspi/share-open-files.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import { askDatabase, type GrantSource } from './ask-database.ts'
import { batchedLines } from './batched-lines.ts'
import { CdbDoor } from './cdb-door.ts'
import { type Decision, decide } from './decision.ts'
import { HourlyRate } from './hourly-rate.ts'
import { policyDoor } from './policy-door.ts'
import { questionDoor } from './question-door.ts'
import { ResidentGate } from './resident-gate.ts'
import { reverseDns } from './reverse-dns.ts'
import { shareDecisions } from './share-decisions.ts'
import { smtpdCommand } from './smtpd-command.ts'
import { socketmapDoor } from './socketmap-door.ts'
import { TcpRulesFile } from './tcp-rules-file.ts'
import { UseReporter } from './use-reporter.ts'

/** Database connections of the gate: one answers thousands of questions a second, the others stand by. */
const DATABASE_CONNECTIONS = 4

/** Descriptors of the gate beside those of its smtpds' connections: the other doors, the database, clients being refused. */
const OTHER_DESCRIPTORS = 256

/** Starts the resident gate and every door that the settings open. Listens and reads secrets first, then gives up root, then serves. */
export async function startGate(settings: Settings): Promise<RunningDaemon> {
  const { wrap } = settings
  const lines = batchedLines()
  process.once('exit', lines.flush)
  const log = createLog('wrap', { level: settings.top.log_level, write: lines.write })
  watchDescriptors(log)
  const source = askDatabase(settings, DATABASE_CONNECTIONS)
  const { uses_socket } = settings.authd
  const uses = uses_socket === '' ? undefined : new UseReporter(uses_socket)
  const doors = new Doors(settings, source, uses, log)
  try {
    const gate = wrap.listen.length === 0 ? undefined : doors.gate()
    const listening = [
      ...(await doors.listen('wrap.listen', wrap.listen, () => gate?.server())),
      ...(await doors.listen('wrap.policy_listen', wrap.policy_listen, () => doors.policy())),
      ...(await doors.listen('wrap.socketmap_listen', wrap.socketmap_listen, () => doors.socketmap())),
      ...(await doors.listen('wrap.question_listen', wrap.question_listen, () => doors.question())),
    ]
    if (listening.length === 0 && wrap.tcprules_cdb === '')
      throw new UsageFault(
        'the gate has no door: set wrap.listen, wrap.policy_listen, wrap.question_listen or wrap.tcprules_cdb',
      )
    if (wrap.smtpd_user !== '') dropPrivileges(idsOf(wrap.smtpd_user, 'wrap.smtpd_user'))
    const cdb = wrap.tcprules_cdb === '' ? undefined : doors.cdb()
    await cdb?.start()
    return {
      ready: [...listening, ...(cdb === undefined ? [] : [`cdb=${wrap.tcprules_cdb}`])].join(' '),
      reload: async () => cdb?.refresh(),
      stop: async () => {
        doors.close()
        await cdb?.stop()
        await gate?.drain(wrap.drain_timeout * 1000)
        uses?.close()
        await source.close()
      },
    }
  } catch (error) {
    doors.close()
    await source.close()
    throw error
  }
}

class Doors {
  readonly #settings: Settings
  readonly #source: GrantSource
  readonly #uses: UseReporter | undefined
  readonly #log: Log
  readonly #servers: Server[] = []
  readonly #decide: (ip: IpAddress | undefined) => Promise<Decision>

  constructor(settings: Settings, source: GrantSource, uses: UseReporter | undefined, log: Log) {
    this.#settings = settings
    this.#source = source
    this.#uses = uses
    this.#log = log
    const options = { ask: source.ask, refusal: source.refusal, timeoutMs: settings.wrap.wrap_timeout * 1000 }
    this.#decide = shareDecisions(ip => decide(ip, options))
  }

  /** Opens a server for each address of a setting; says where for the ready line. */
  async listen(
    setting: string,
    addresses: readonly SocketAddress[],
    serverFor: () => Server | undefined,
  ): Promise<string[]> {
    const name = setting.replace('wrap.', '').replace('_listen', '')
    const texts: string[] = []
    for (const address of addresses) {
      const server = serverFor()
      if (server === undefined) continue
      this.#servers.push(server)
      const mode = Number.parseInt(this.#settings.wrap.socket_mode, 8)
      texts.push(`${name}=${formatSocketAddress(await openListener(server, address, setting, { mode }))}`)
    }
    return texts
  }

  close(): void {
    for (const server of this.#servers) server.close()
  }

  gate(): ResidentGate {
    const { wrap } = this.#settings
    const argv = smtpdCommand(this.#settings)
    const own = ownEnvironment()
    const path = typeof own['PATH'] === 'string' ? own['PATH'] : undefined
    const file = findProgram(argv[0] ?? '', path)
    if (file === undefined)
      throw new UsageFault(
        `${argv[0] ?? ''} is no program that can be run: change wrap.smtpd, or qmaildir and qmail_smtpd_noauth`,
      )
    // Without a limit of connections nobody knows how many descriptors it takes: the raised limit stays then.
    if (wrap.connections > 0) shareOpenFilesLimit(wrap.connections + OTHER_DESCRIPTORS)
    return new ResidentGate({
      file,
      argv,
      environment: changeEnvironment(own, Object.fromEntries(OWN_VARIABLES.map(name => [name, undefined]))),
      relayclientValue: wrap.relayclient_value,
      decide: this.#decide,
      onRelay: this.#report('gate'),
      log: this.#log,
      rules: wrap.rules === '' ? undefined : new TcpRulesFile(wrap.rules),
      reverseDns:
        wrap.reverse_dns === 'off' ? undefined : reverseDns(wrap.reverse_dns_timeout, wrap.reverse_dns === 'paranoid'),
      proxyTrust: wrap.proxy_trust,
      maxConnections: wrap.connections,
      maxPerAddress: wrap.connections_per_address,
    })
  }

  policy(): Server {
    const { wrap } = this.#settings
    return policyDoor({
      decide: this.#decide,
      onRelay: this.#report('policy'),
      log: this.#log,
      senderBinding: wrap.sender_binding,
      senderDomains: wrap.sender_domains,
      messagesPerLogin: new HourlyRate(wrap.messages_per_login, monotonicClock),
      messagesPerAddress: new HourlyRate(wrap.messages_per_address, monotonicClock),
      recipientsPerLogin: new HourlyRate(wrap.recipients_per_login, monotonicClock),
      recipientsPerAddress: new HourlyRate(wrap.recipients_per_address, monotonicClock),
    })
  }

  socketmap(): Server {
    return socketmapDoor({ decide: this.#decide, onRelay: this.#report('socketmap'), log: this.#log })
  }

  question(): Server {
    return questionDoor({ decide: this.#decide, onRelay: this.#report('question'), log: this.#log })
  }

  cdb(): CdbDoor {
    const { wrap } = this.#settings
    return new CdbDoor({
      path: wrap.tcprules_cdb,
      rulesPath: wrap.tcprules_static,
      relayclientValue: wrap.relayclient_value,
      list: this.#source.list,
      refusal: this.#source.refusal,
      timeoutMs: wrap.wrap_timeout * 1000,
      intervalMs: wrap.tcprules_interval,
      clock: systemClock,
      log: this.#log,
    })
  }

  #report(door: string): (ip: IpAddress) => void {
    return ip => this.#uses?.report({ ip, at: Math.floor(systemClock() / 1000), door })
  }
}
