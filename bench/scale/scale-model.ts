/** Measured costs with which docs/SCALE.md calculates. CPU in microseconds. */
export type Costs = {
  /**
   * Database CPU of a login: with one commit for each login, and in the batches of several busy
   * hosts.
   */
  readonly loginAlone: number
  readonly loginBatched: number
  /** Database CPU of a query of the gate. */
  readonly query: number
  /** Octets of WAL for a login soon after a checkpoint. */
  readonly wal: number
  /** Octets of a grant with its indexes, and of a login in the history. */
  readonly grant: number
  readonly history: number
  /** CPU of its POP3 host for a session: TLS, the session itself, its login event. */
  readonly session: number
  /** CPU of a gate's host for a connection, the start of a tiny smtpd included. */
  readonly connection: number
  /** Octets of the primary's memory for the connections of a host. */
  readonly hostMemory: number
  /** Database CPU of one query for the answers of the synchronous standbys. */
  readonly proof: number
}

/** A site in its busiest hour. */
export type SiteSize = {
  readonly loginsPerHour: number
  readonly queriesPerLogin: number
  /** `exp_time`, seconds. */
  readonly life: number
  /** `history_days`; a day has the logins of BUSY_HOURS busiest hours. */
  readonly historyDays: number
}

export type Needs = {
  readonly loginsPerSecond: number
  readonly popHosts: number
  readonly gates: number
  /** Minimum: all logins in large batches. Maximum: each login alone. */
  readonly databaseCores: { readonly least: number; readonly most: number }
  readonly walPerSecond: number
  /** Grants in force if no two logins are from one address; real sites have fewer. */
  readonly grants: number
  readonly grantsOctets: number
  readonly historyOctets: number
  readonly connections: number
}

/** A host of two cores, of which half is left free for peaks. */
const BUDGET = 1e6
/** authd and wrap open at most four connections each. */
const CONNECTIONS = 4
export const BUSY_HOURS = 10
/** Number of checks a second that a gate of a cluster makes of the standbys' answers. */
const PROOFS = 2

/** Resources of a site, on hosts with two cores of which half is left free. */
export function needsOf(site: SiteSize, costs: Costs): Needs {
  const logins = site.loginsPerHour / 3600
  const queries = logins * site.queriesPerLogin
  const cores = (login: number): number => (logins * login + queries * costs.query) / 1e6
  const popHosts = Math.ceil((logins * costs.session) / BUDGET)
  const gates = Math.ceil((queries * costs.connection) / BUDGET)
  const grants = logins * site.life
  return {
    loginsPerSecond: logins,
    popHosts,
    gates,
    databaseCores: { least: cores(costs.loginBatched), most: cores(costs.loginAlone) },
    walPerSecond: logins * costs.wal,
    grants,
    grantsOctets: grants * costs.grant,
    historyOctets: site.loginsPerHour * BUSY_HOURS * site.historyDays * costs.history,
    connections: (popHosts + gates) * CONNECTIONS,
  }
}

/** Load of the primary with this number of hosts, half of them POP3 hosts and half gates. */
export type HostLoad = {
  readonly connections: number
  readonly memory: number
  /** Cores without any client. */
  readonly idleCores: number
  /** Cores when every host is at its limit: with logins in batches, and with each login alone. */
  readonly fullCores: { readonly batched: number; readonly alone: number }
}

export function loadOfHosts(hosts: number, costs: Costs): HostLoad {
  const each = hosts / 2
  const logins = (each * BUDGET) / costs.session
  const queries = (each * BUDGET) / costs.connection
  const full = (login: number): number => (logins * login + queries * costs.query) / 1e6
  return {
    connections: hosts * CONNECTIONS,
    memory: hosts * costs.hostMemory,
    idleCores: (each * PROOFS * costs.proof) / 1e6,
    fullCores: { batched: full(costs.loginBatched), alone: full(costs.loginAlone) },
  }
}

/** Load of one such host that runs everything, the database too. */
export type OneHost = {
  /** Logins a second, each with its SMTP connections. */
  readonly loginsPerSecond: number
  /** Shares of the processor, 0 to 1. */
  readonly pop3: number
  readonly gate: number
  readonly database: number
}

export function oneHost(costs: Costs, queriesPerLogin: number): OneHost {
  const gate = queriesPerLogin * costs.connection
  const database = costs.loginAlone + queriesPerLogin * costs.query
  const all = costs.session + gate + database
  return { loginsPerSecond: BUDGET / all, pop3: costs.session / all, gate: gate / all, database: database / all }
}
