/** Effect of a reload on each setting: the program applies it, or needs a restart. */
import type { Section } from './rows.ts'
import { SECTIONS, type Settings } from './settings.ts'

/** The programs that keep settings until a restart. `up` is the supervisor of `auth-relay up`. */
export type ReloadingProgram = 'up' | 'authd' | 'popup' | 'sslwrap' | 'wrap' | 'status-page' | 'alerts'

type RestartTable = {
  readonly [S in keyof typeof SECTIONS]: {
    readonly [Name in keyof (typeof SECTIONS)[S]['rows']]: readonly ReloadingProgram[]
  }
}

/** No program needs a restart: each one applies the change at SIGHUP. */
const RELOADED: readonly ReloadingProgram[] = []

/**
 * The programs that need a restart for a change of each setting. All other programs apply the
 * change at SIGHUP. The `settings_reloaded` line of a program names its changed settings that need
 * a restart. The type requires a row for each new setting.
 */
export const RESTART_FOR: RestartTable = {
  top: {
    configured: RELOADED,
    run_dir: ['up', 'authd', 'popup', 'wrap', 'status-page', 'alerts'],
    state_dir: ['up', 'authd', 'wrap', 'status-page', 'alerts'],
    log_level: ['authd', 'popup', 'sslwrap', 'status-page', 'alerts'],
    syslog: ['popup'],
  },
  database: {
    embedded: ['up', 'authd', 'wrap', 'status-page', 'alerts'],
    embedded_user: ['up'],
    dbhost: ['authd', 'status-page', 'alerts'],
    dbport: ['authd', 'status-page', 'alerts'],
    dbname: ['up', 'authd', 'status-page', 'alerts'],
    dbuser: ['up', 'authd', 'alerts'],
    dbpass: ['authd', 'alerts'],
    dbpass_file: ['authd', 'alerts'],
    wrap_dbuser: ['up'],
    wrap_dbpass: RELOADED,
    wrap_dbpass_file: RELOADED,
    status_dbuser: ['up', 'status-page'],
    status_dbpass: ['status-page'],
    status_dbpass_file: ['status-page'],
    dbtls: ['authd', 'status-page', 'alerts'],
    require_sync: ['authd', 'status-page', 'alerts'],
    standby_age: RELOADED,
    patroni_port: RELOADED,
    dbtls_ca: ['authd', 'status-page', 'alerts'],
  },
  grants: {
    exp_time: ['status-page'],
    alrm_time: ['authd'],
    max_lifetime: RELOADED,
    ipv6_prefix: RELOADED,
    nat64_prefixes: RELOADED,
    never_grant: RELOADED,
    mmdb_files: RELOADED,
    deny_private: RELOADED,
    grant_loopback: RELOADED,
    store_user: RELOADED,
    history_days: ['authd'],
  },
  popup: {
    // The status page and the alarms read these settings too, to find the certificates in use.
    listen: ['popup', 'status-page', 'alerts'],
    proxy_listen: ['popup', 'status-page', 'alerts'],
    tls_listen: ['popup', 'status-page', 'alerts'],
    hostname: RELOADED,
    apop: RELOADED,
    login_user: ['popup'],
    logins: ['popup'],
    engine: ['popup'],
    checker: ['popup'],
    checkpassword: RELOADED,
    chain: RELOADED,
    passwd_file: RELOADED,
    apop_file: RELOADED,
    sql_query: RELOADED,
    sql_dbhost: RELOADED,
    sql_dbport: RELOADED,
    sql_dbname: RELOADED,
    sql_dbuser: RELOADED,
    sql_dbpass_file: RELOADED,
    upstream: RELOADED,
    upstream_tls: RELOADED,
    upstream_ca: RELOADED,
    upstream_verify: RELOADED,
    upstream_proxy: RELOADED,
    maildir: RELOADED,
    ssl_hack_pass: RELOADED,
    ssl_hack_trust: RELOADED,
    ssl_reply: RELOADED,
    proxy_trust: RELOADED,
    proxy_tls: RELOADED,
    compat: RELOADED,
    require_tls: RELOADED,
    cleartext_nets: RELOADED,
    cleartext_logins: RELOADED,
    stls: RELOADED,
    stls_cert: RELOADED,
    stls_key: RELOADED,
    login_delay: RELOADED,
    grant_wait: RELOADED,
    auth_cache_time: RELOADED,
    check_timeout: RELOADED,
    checker_processes: RELOADED,
    max_connections: RELOADED,
    max_per_address: RELOADED,
    max_per_login: RELOADED,
    max_per_owner: RELOADED,
    login_time: RELOADED,
    max_failures: RELOADED,
    drain_time: ['up'],
    fail_delays: RELOADED,
  },
  pop3d: {
    sizes: RELOADED,
    extra_blank: RELOADED,
    lock: RELOADED,
    idle_time: RELOADED,
    engine: ['popup'],
    worker_idle: RELOADED,
  },
  sslwrap: {
    // sslwrap keeps only the addresses of its listeners (KEPT_PART).
    listener: ['sslwrap', 'status-page', 'alerts'],
    user: ['sslwrap'],
    workers: ['sslwrap'],
    cert: RELOADED,
    key: RELOADED,
    certificate: RELOADED,
    hostname: RELOADED,
    ciphers: RELOADED,
    alpn_strict: RELOADED,
    client_certificate: RELOADED,
    client_ca: RELOADED,
    old_tls_nets: RELOADED,
    handshake_time: RELOADED,
    connect_time: RELOADED,
    idle_time: RELOADED,
    drain_time: ['up'],
    max_connections: RELOADED,
    max_per_address: RELOADED,
    metrics_listen: ['sslwrap'],
  },
  authd: {
    user: ['authd'],
    socket: ['up', 'authd', 'popup'],
    socket_users: ['authd'],
    usage_socket: ['up', 'authd'],
    usage_users: ['authd'],
    commit_wait: ['authd'],
    syslog_fifo: ['authd'],
    syslog_listen: ['authd'],
    follow_files: ['authd'],
    journal: ['authd'],
    journal_users: RELOADED,
    journal_units: RELOADED,
    journal_command: ['authd'],
    syslog_hosts: RELOADED,
    max_lag: RELOADED,
    check_imap: RELOADED,
    check_daemon_ipop3d: RELOADED,
    check_daemon_vchkpw: RELOADED,
    check_daemon_hacked_qmailpop3d: RELOADED,
    check_daemon_dovecot: RELOADED,
    check_daemon_dovecot_proxy: RELOADED,
    check_daemon_courier: RELOADED,
    check_daemon_cyrus: RELOADED,
    check_daemon_qpopper: RELOADED,
    check_daemon_solid: RELOADED,
    check_daemon_solid_two_lines: RELOADED,
    check_daemon_teapop: RELOADED,
    check_daemon_tpop3d: RELOADED,
    check_daemon_gnu_pop3d: RELOADED,
    check_daemon_vm_pop3d: RELOADED,
    check_daemon_vm_pop3d_two_lines: RELOADED,
    check_daemon_perdition: RELOADED,
    check_daemon_cucipop: RELOADED,
    check_daemon_popa3d: RELOADED,
    vchkpw_tag: RELOADED,
    daemon_tags: RELOADED,
    metrics_listen: ['authd'],
  },
  wrap: {
    listen: ['wrap'],
    smtpd: RELOADED,
    user: ['authd', 'wrap'],
    smtpd_user: ['wrap'],
    qmaildir: RELOADED,
    qmail_smtpd_noauth: RELOADED,
    relayclient_value: RELOADED,
    wrap_timeout: RELOADED,
    ask: RELOADED,
    engine: ['wrap'],
    max_connections: RELOADED,
    max_per_address: RELOADED,
    front: RELOADED,
    front_auth: RELOADED,
    rules: RELOADED,
    reverse_dns: RELOADED,
    reverse_dns_timeout: RELOADED,
    proxy_trust: RELOADED,
    drain_time: ['up'],
    policy_listen: ['wrap'],
    socketmap_listen: ['wrap'],
    query_listen: ['wrap'],
    socket_mode: ['wrap'],
    socket_group: ['wrap'],
    max_service_connections: RELOADED,
    policy_users: RELOADED,
    sender_binding: RELOADED,
    sender_domains: RELOADED,
    recipient_domains: RELOADED,
    without_device: RELOADED,
    shared_addresses: RELOADED,
    shared_logins: RELOADED,
    messages_per_login: RELOADED,
    messages_per_address: RELOADED,
    recipients_per_login: RELOADED,
    recipients_per_address: RELOADED,
    tcprules_cdb: ['wrap'],
    tcprules_static: RELOADED,
    tcprules_interval: RELOADED,
  },
  statusPage: { listen: ['status-page'], user: ['status-page'] },
  alerts: {
    mail_to: ['up', 'alerts'],
    mail_from: ['alerts'],
    sendmail: ['alerts'],
    webhook_file: ['up', 'alerts'],
    program: ['up', 'alerts'],
    user: ['alerts'],
    every: ['alerts'],
    off: ['alerts'],
    close: ['alerts'],
    close_for: ['alerts'],
    login_addresses: ['alerts'],
    address_logins: ['alerts'],
    device_factor: ['alerts'],
    refusal_factor: ['alerts'],
    silent_days: ['alerts'],
    end_days: ['alerts'],
  },
}

/** The part of a setting that needs a restart. The program applies the other parts at SIGHUP. */
const KEPT_PART: Readonly<Record<string, (settings: Settings) => unknown>> = {
  'sslwrap sslwrap.listener': ({ sslwrap }) => sslwrap.listener.map(({ listen }) => listen),
}

/**
 * Names of the settings that need a restart of the program, because their values in `next` differ
 * from those of its start.
 */
export function restartFor(program: ReloadingProgram, started: Settings, next: Settings): readonly string[] {
  return Object.entries<Section>(SECTIONS).flatMap(([key, { name: section }]) => {
    const programs = entriesOf(RESTART_FOR, key)
    const [before, after] = [entriesOf(started, key), entriesOf(next, key)]
    return [...programs]
      .filter(([, list]) => Array.isArray(list) && list.includes(program))
      .map(([name]) => ({ name, full: section === '' ? name : `${section}.${name}` }))
      .filter(({ name, full }) => {
        const part = KEPT_PART[`${program} ${full}`]
        const values = part === undefined ? [before.get(name), after.get(name)] : [part(started), part(next)]
        return JSON.stringify(values[0]) !== JSON.stringify(values[1])
      })
      .map(({ full }) => full)
  })
}

/** The names of restartFor as fields of the `settings_reloaded` line. */
export function restartFields(
  program: ReloadingProgram,
  started: Settings,
  next: Settings,
): { readonly restart_for?: string } {
  const names = restartFor(program, started, next)
  return names.length === 0 ? {} : { restart_for: names.join(' ') }
}

const entriesOf = (
  table: Readonly<Record<string, Readonly<Record<string, unknown>>>>,
  key: string,
): ReadonlyMap<string, unknown> => new Map(Object.entries(table[key] ?? {}))
