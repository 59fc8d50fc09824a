/** The parts of the gate that the settings decide. */
import { isAbsolute, join } from 'node:path'
import { type Clock, monotonicClock, systemClock } from '../../base/clock.ts'
import { UsageFault } from '../../base/errors.ts'
import { createLog, type Log } from '../../base/log.ts'
import { knownUids } from '../../process/privileges.ts'
import type { Settings } from '../../settings/settings.ts'
import type { Engine } from '../../sockets/engine.ts'
import { changeEnvironment, type Environment } from '../../ucspi/environment.ts'
import { findProgram, OWN_VARIABLES } from '../../ucspi/run-next.ts'
import { CustomerNetworks } from '../../wire/customer-networks.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { RelayVerdict } from '../../wire/usage-event.ts'
import { askDatabase, type GrantSource } from '../ask-database.ts'
import { type Decision, decide, verdictOf } from '../decision.ts'
import type { ClientFaultTimes } from '../front/client-faults.ts'
import { GrantRules } from '../front/grant-rules.ts'
import { GrantTerm } from '../front/grant-term.ts'
import { SmtpFront } from '../front/smtp-front.ts'
import type { MailCounts } from '../mail-counts.ts'
import { logForeignSender, mailRules, type SiteMailRules } from '../mail-rules.ts'
import type { CdbExportOptions } from '../services/cdb-export.ts'
import type { FaultsSource, QueryListenerOptions, QueryServiceOptions } from '../services/query-service.ts'
import type { OpenFront, ResidentGateOptions } from './resident-gate.ts'
import { reverseDns } from './reverse-dns.ts'
import { TcpRulesFile } from './tcp-rules-file.ts'
import { UsageReporter } from './usage-reporter.ts'

/**
 * Database connections of the gate. One of them answers thousands of queries a second; the others
 * are used while it waits.
 */
const DATABASE_CONNECTIONS = 4

/** Pending queries of one connection. Postfix sends one at a time. */
const MAX_OPEN = 1_000

/**
 * Everything in the gate that the settings decide. At SIGHUP a new GateSetup replaces the old one,
 * which is closed.
 */
export class GateSetup {
  readonly settings: Settings
  readonly log: Log
  readonly #source: GrantSource
  readonly #usage: UsageReporter | undefined
  /** Accounts besides root and the gate's own whose queries count as mail. */
  readonly #mailUids: ReadonlySet<number>
  readonly #decide: (ip: IpAddress | undefined) => Promise<Decision>

  readonly #environment: Environment
  readonly #customers: CustomerNetworks

  /**
   * Reads secrets immediately and connects to the database in the background. `environment`: that
   * of this process. Throws UsageFault.
   */
  constructor(settings: Settings, environment: Environment) {
    this.settings = settings
    this.#environment = environment
    this.#customers = new CustomerNetworks(settings.grants.nat64_prefixes)
    this.log = createLog('wrap', { level: settings.top.log_level, byTurn: true })
    this.#source = askDatabase(settings, DATABASE_CONNECTIONS)
    const { usage_socket } = settings.authd
    this.#usage = usage_socket === '' ? undefined : new UsageReporter(usage_socket)
    this.#mailUids = new Set(knownUids(settings.wrap.policy_users))
    const { ask, refusal, rules } = this.#source
    const timeoutMs = settings.wrap.wrap_timeout * 1000
    this.#decide = shareDecisions((ip, left) => decide(ip, { ask, refusal, rules, timeoutMs: left }), {
      timeoutMs,
      clock: monotonicClock,
    })
  }

  serviceOptions(service: string): QueryListenerOptions {
    return {
      decide: this.#decide,
      onDecision: (ip, decision) => this.#report(service, ip, decision),
      limits: { maxConnections: this.settings.wrap.max_service_connections, maxOpen: MAX_OPEN },
      log: this.log,
    }
  }

  #report(service: string, ip: IpAddress | undefined, decision: Decision): void {
    const at = Math.floor(systemClock() / 1000)
    if (decision.relay && ip !== undefined) this.#usage?.report({ ip, at, service })
    this.#usage?.count(service, verdictOf(decision), ip, at)
  }

  /** Counts a decision of the front about mail. That about the session counts for the gate. */
  #countMail(ip: IpAddress, verdict: RelayVerdict): void {
    this.#usage?.count('front', verdict, ip, Math.floor(systemClock() / 1000))
  }

  /**
   * Makes the report of a session's accepted messages. Each one counts. The first one of a minute
   * is also a usage event, except in the minute of the session's own event.
   */
  #reportMessages(ip: IpAddress): (device: string | undefined) => void {
    const minuteOf = (at: number): number => Math.floor(at / 60)
    let reported = minuteOf(systemClock() / 1000)
    return device => {
      this.#countMail(ip, 'relayed')
      const at = Math.floor(systemClock() / 1000)
      if (device !== undefined) this.#usage?.countMessage(device, at)
      if (minuteOf(at) === reported) return
      reported = minuteOf(at)
      this.#usage?.report({ ip, at, service: 'front' })
    }
  }

  /** Throws UsageFault if the smtpd does not exist. */
  gateOptions(engine: Engine, mailCounts: MailCounts, faults: ClientFaultTimes): ResidentGateOptions {
    const { wrap } = this.settings
    const argv = smtpdCommand(this.settings)
    const own = this.#environment
    const path = typeof own['PATH'] === 'string' ? own['PATH'] : undefined
    const file = findProgram(argv[0] ?? '', path)
    if (file === undefined)
      throw new UsageFault(
        `${argv[0] ?? ''} is not a program that can be run: change wrap.smtpd, or qmaildir and qmail_smtpd_noauth`,
      )
    return {
      ...this.serviceOptions('gate'),
      engine,
      file,
      argv,
      environment: changeEnvironment(own, Object.fromEntries(OWN_VARIABLES.map(name => [name, undefined]))),
      relayclientValue: wrap.relayclient_value,
      rules: wrap.rules === '' ? undefined : new TcpRulesFile(wrap.rules),
      reverseDns:
        wrap.reverse_dns === 'off' ? undefined : reverseDns(wrap.reverse_dns_timeout, wrap.reverse_dns === 'paranoid'),
      proxyTrust: wrap.proxy_trust,
      maxConnections: wrap.max_connections,
      maxPerAddress: wrap.max_per_address,
      customers: this.#customers,
      front: wrap.front ? this.#openFront(mailCounts, faults) : undefined,
    }
  }

  #siteRules(mailCounts: MailCounts): SiteMailRules {
    const { sender_binding, sender_domains, recipient_domains } = this.settings.wrap
    return {
      senderBinding: sender_binding,
      senderDomains: sender_domains,
      recipientDomains: recipient_domains,
      mailCounts,
      customers: this.#customers,
    }
  }

  #openFront(mailCounts: MailCounts, faults: ClientFaultTimes): OpenFront {
    const site = this.#siteRules(mailCounts)
    const { front_auth: auth } = this.settings.wrap
    return (client, server, { ip, grant, pid }) => {
      const session = { ip, service: 'front', pid }
      const onForeignSender = logForeignSender(this.log, session)
      const term = new GrantTerm(grant, () => this.#decide(ip))
      const onAccepted = this.#reportMessages(ip)
      const rules: GrantRules = new GrantRules(
        term,
        current => mailRules(site, ip, current, onForeignSender),
        onAccepted,
      )
      return new SmtpFront(client, server, {
        ip,
        rules,
        renewRules: () => term.renew(),
        lineEndings: () => rules.lineEndings,
        auth,
        lineEndingAdvice: () => rules.lineEndingAdvice,
        onFault: fault => faults.add(ip, fault),
        onRefusal: reason => this.#countMail(ip, reason === 'undecided' ? 'undecided' : 'refused'),
        log: this.log,
        fields: () => ({ ...session, ...rules.logFields }),
      })
    }
  }

  policyOptions(mailCounts: MailCounts): QueryServiceOptions {
    return {
      ...this.serviceOptions('policy'),
      ...this.#siteRules(mailCounts),
      counts: this.#counts,
      onMessage: this.#countMessage,
    }
  }

  queryOptions(mailCounts: MailCounts, faults: ClientFaultTimes): QueryServiceOptions & FaultsSource {
    return {
      ...this.serviceOptions('query'),
      ...this.#siteRules(mailCounts),
      counts: this.#counts,
      onMessage: this.#countMessage,
      faultsOf: ip => faults.of(ip),
    }
  }

  readonly #countMessage = (device: string): void => this.#usage?.countMessage(device, Math.floor(systemClock() / 1000))

  readonly #counts = (uid: number | undefined): boolean =>
    uid === undefined || uid === 0 || uid === process.geteuid?.() || this.#mailUids.has(uid)

  cdbOptions(): CdbExportOptions {
    const { wrap, database } = this.settings
    // The same limits as those of a decision: without a limit of the proof there is none here.
    const isProven = database.require_sync && database.standby_age > 0
    return {
      path: wrap.tcprules_cdb,
      rulesPath: wrap.tcprules_static,
      relayclientValue: wrap.relayclient_value,
      list: this.#source.list,
      onChange: this.#source.onChange,
      refusal: this.#source.refusal,
      timeoutMs: wrap.wrap_timeout * 1000,
      intervalMs: wrap.tcprules_interval,
      unprovenMs: isProven ? database.standby_age * 1000 + wrap.tcprules_interval : undefined,
      clock: systemClock,
      monotonic: monotonicClock,
      log: this.log,
    }
  }

  /** Waits for the answers to pending queries, then closes. */
  async close(): Promise<void> {
    this.#usage?.close()
    await this.#source.close()
  }
}

type SharedQuery = { hasBegun: boolean; readonly answer: Promise<Decision> }

/**
 * Makes a function that shares one query of the store among callers that need the same address
 * before the query begins. So no answer is older than its request: a client that has read `+OK` may
 * relay, and a client with a new block may not. For each address at most one query runs, and one
 * waits for its end. `timeoutMs` is the limit for the wait and the query together.
 */
export function shareDecisions(
  decide: (ip: IpAddress | undefined, timeoutMs: number) => Promise<Decision>,
  { timeoutMs, clock }: { readonly timeoutMs: number; readonly clock: Clock },
): (ip: IpAddress | undefined) => Promise<Decision> {
  const newest = new Map<IpAddress | undefined, SharedQuery>()
  return ip => {
    const known = newest.get(ip)
    if (known?.hasBegun === false) return known.answer
    const asked = clock()
    const before: Promise<unknown> = known?.answer ?? Promise.resolve()
    const query: SharedQuery = {
      hasBegun: false,
      answer: before
        .then(() => {
          query.hasBegun = true
          return decide(ip, Math.max(0, timeoutMs - (clock() - asked)))
        })
        .finally(() => {
          if (newest.get(ip) === query) newest.delete(ip)
        }),
    }
    newest.set(ip, query)
    return query.answer
  }
}

/** Returns the command of the real smtpd: `wrap.smtpd`, or the renamed qmail-smtpd. */
function smtpdCommand({ wrap }: Pick<Settings, 'wrap'>): readonly string[] {
  if (wrap.smtpd.length > 0) return wrap.smtpd
  const { qmaildir, qmail_smtpd_noauth } = wrap
  return [isAbsolute(qmail_smtpd_noauth) ? qmail_smtpd_noauth : join(qmaildir, 'bin', qmail_smtpd_noauth)]
}
