/** Checks of settings without the host: values that are unsafe or contradict each other. */

import { basename } from 'node:path'
import { trustListsOf } from '../../grants/grant-policy.ts'
import { formatSocketAddress, type SocketAddress } from '../../process/socket-address.ts'
import { checkerContradictions, tlsContradictions } from '../../settings/contradictions.ts'
import type { Settings } from '../../settings/settings.ts'
import { recognizerOptions } from '../../syslog/login-recognizer.ts'
import { familyOf, LOOPBACK, type NetworkSet, parseIpAddress } from '../../wire/ip-address.ts'
import { formatTarget } from '../grant-target.ts'
import { partsInUse } from '../stack/plan.ts'
import { omfwdRule } from './check-syslog.ts'
import { advice, type Finding, fine, unsafe, unsafeBecause } from './finding.ts'

/** Servers that accept a client on a socket pair on behalf of a local user. */
const NOT_BEHIND_THE_FRONT: ReadonlySet<string> = new Set(['exim', 'exim4', 'sendmail', 'postfix'])
/** The next word is an account: `setuidgid postfix`, `chpst -u postfix`. */
const BEFORE_ACCOUNT: ReadonlySet<string> = new Set(['setuidgid', 'envuidgid', '-u', '--user'])

/**
 * Returns the server of `wrap.smtpd` that may not stand behind the front, also behind `env` or
 * within `sh -c`. A path counts only in a directory of programs, so `/etc/postfix` does not.
 */
function serverOfLocalUsers(smtpd: readonly string[]): string | undefined {
  const words = smtpd.flatMap(argument => argument.split(/[\s;&|()]+/))
  return words.find(
    (word, n) =>
      NOT_BEHIND_THE_FRONT.has(basename(word)) &&
      (!word.includes('/') || /\/(?:s?bin|lib|libexec)\/[^/]+$/.test(word)) &&
      !BEFORE_ACCOUNT.has(basename(words[n - 1] ?? '')),
  )
}

function checkFront(wrap: Settings['wrap']): Finding[] {
  if (!wrap.front) return []
  if (wrap.listen.length === 0)
    return [
      advice(
        'wrap.front',
        'the gate accepts no SMTP connection, so that the front has no effect',
        'set wrap.listen, or remove wrap.front',
      ),
    ]
  const program = serverOfLocalUsers(wrap.smtpd)
  if (program === undefined) return []
  return [
    unsafe(
      'wrap.front',
      `${program} treats a client behind the front as a local user: its own rules for addresses do not apply`,
      'remove wrap.front, and let the server query the policy, socketmap or query service',
    ),
  ]
}

/** Reports rules for senders, recipients and limits that no service of the gate enforces. */
function checkMailRules(wrap: Settings['wrap']): Finding[] {
  const isEnforced = wrap.policy_listen.length + wrap.query_listen.length > 0 || (wrap.front && wrap.listen.length > 0)
  const isUsed = wrap.listen.length + wrap.socketmap_listen.length > 0 || wrap.tcprules_cdb !== ''
  if (isEnforced || !isUsed) return []
  const limits = [
    'messages_per_login',
    'messages_per_address',
    'recipients_per_login',
    'recipients_per_address',
  ] as const
  const rules = [
    ...(wrap.sender_binding === 'off' ? [] : ['sender_binding']),
    ...(wrap.recipient_domains.length === 0 ? [] : ['recipient_domains']),
    ...limits.filter(name => wrap[name] > 0),
  ]
  return rules.map(name =>
    advice(
      `wrap.${name}`,
      'no service of the gate reads the envelope of a mail, so that the setting has no effect',
      'set wrap.front (qmail-smtpd), wrap.policy_listen (Postfix) or wrap.query_listen (Exim)',
    ),
  )
}

/** Checks the settings without the host and its files. */
export function checkSettings(settings: Settings): readonly Finding[] {
  return [
    ...checkTop(settings),
    ...checkGrants(settings),
    ...checkTrust(settings),
    ...checkPopup(settings),
    ...checkAuthd(settings),
    ...checkWrap(settings),
    ...checkStatusPage(settings),
    ...checkDatabase(settings),
    ...checkStart(settings),
  ]
}

/** Settings with which a program in use does not start. */
function checkStart(settings: Settings): Finding[] {
  const parts = partsInUse(settings)
  const contradictions = [
    ...(parts.popup ? checkerContradictions(settings) : []),
    ...(parts.sslwrap ? tlsContradictions(settings) : []),
  ]
  const tags = parts.authd ? recognizerOptions(settings).faults : []
  const metrics = [
    ['authd.metrics_listen', parts.authd ? settings.authd.metrics_listen : undefined],
    ['sslwrap.metrics_listen', parts.sslwrap ? settings.sslwrap.metrics_listen : undefined],
  ] as const
  return [
    ...contradictions.map(({ setting, fact, remedy }) => unsafe(setting, fact, remedy)),
    ...unsafeBecause('authd.daemon_tags', { details: tags }),
    ...metrics.flatMap(([name, address]) =>
      address === undefined || isLoopback(address)
        ? []
        : [unsafe(name, `other hosts reach ${formatSocketAddress(address)}`, 'listen on 127.0.0.1')],
    ),
  ]
}

function checkTop({ top }: Settings): Finding[] {
  return top.configured
    ? [fine('configured', 'the administrator has read the file')]
    : [unsafe('configured', 'no daemon starts', 'read the file, then set configured = true')]
}

function checkGrants({ grants }: Settings): Finding[] {
  const found: Finding[] = []
  if (grants.grant_loopback) {
    found.push(
      unsafe(
        'grants.grant_loopback',
        'every program on this host can relay after one login',
        'remove it: it is for tests',
      ),
    )
  }
  if (grants.exp_time < 60) {
    found.push(
      unsafe(
        'grants.exp_time',
        `${grants.exp_time} s: clients that check mail each minute lose the relay`,
        'set "1min" or more; "30min" is usual',
      ),
    )
  }
  if (grants.alrm_time > grants.exp_time) {
    found.push(
      unsafe(
        'grants.alrm_time',
        `${grants.alrm_time} s is longer than exp_time (${grants.exp_time} s)`,
        'set alrm_time = "1min"',
      ),
    )
  }
  if (grants.exp_time > 14_400) {
    found.push(
      advice(
        'grants.exp_time',
        'within this time the provider may give the address to another customer',
        'set "30min" unless your clients need more',
      ),
    )
  }
  if (grants.ipv6_prefix === 64 && grants.nat64_prefixes.length === 0) {
    found.push(
      advice(
        'grants.ipv6_prefix',
        '64: behind a translator (NAT64, SIIT) with your own prefix, one login grants every IPv4 client; 64:ff9b::/96 is known',
        'name the prefixes of your translators in nat64_prefixes; without translators there is nothing to do',
      ),
    )
  }
  return found.length > 0 ? found : [fine('grants', `exp_time ${grants.exp_time} s, alrm_time ${grants.alrm_time} s`)]
}

/** A list of proxies with a shorter prefix than these probably holds clients as well. */
const NARROW = { 4: 24, 6: 64 } as const

/** Proxies and gateways are never granted. The finding lists them. */
function checkTrust(settings: Settings): Finding[] {
  return Object.entries(trustListsOf(settings)).flatMap(([name, { networks }]): Finding[] => {
    const peers = networks.filter(({ base }) => !LOOPBACK.has(base))
    if (peers.length === 0) return []
    const wide = peers.filter(({ base, prefixLength }) => prefixLength > 0 && prefixLength < NARROW[familyOf(base)])
    const text = (list: typeof peers): string => list.map(formatTarget).join(', ')
    return wide.length === 0
      ? [fine(name, `never granted, for each login from there: ${text(peers)}`)]
      : [
          advice(
            name,
            `no client in ${text(wide)} is ever granted, because a proxy's address does not identify its clients`,
            'list the addresses of your proxies alone',
          ),
        ]
  })
}

/** True if the set holds the whole of the Internet's addresses of a family. */
const holdsEverybody = (set: NetworkSet): boolean => set.networks.some(({ prefixLength }) => prefixLength === 0)

function checkPopup({ popup }: Settings): Finding[] {
  const found: Finding[] = []
  const trusts = { ssl_hack_trust: popup.ssl_hack_trust, proxy_trust: popup.proxy_trust }
  for (const [name, set] of Object.entries(trusts)) {
    if (holdsEverybody(set)) {
      found.push(
        unsafe(`popup.${name}`, 'every client could name another address as its own', 'name your proxies alone'),
      )
    }
  }
  if (popup.proxy_listen.length > 0 && popup.proxy_trust.networks.length === 0) {
    found.push(unsafe('popup.proxy_trust', 'empty means no proxy: proxy_listen answers no client', 'name your proxies'))
  }
  if (popup.tls_listen.length > 0 && popup.stls_cert === '') {
    found.push(unsafe('popup.tls_listen', 'needs stls_cert and stls_key', 'set both, or leave port 995 to sslwrap'))
  }
  if (popup.stls && (popup.stls_cert === '' || popup.stls_key === '')) {
    found.push(unsafe('popup.stls', 'needs stls_cert and stls_key', 'set both, or stls = false'))
  }
  if (!popup.require_tls && popup.listen.some(address => !isLoopback(address))) {
    found.push(
      advice(
        'popup.require_tls',
        'passwords may pass in clear text on the plain port',
        'set require_tls = true and name the old devices in cleartext_nets',
      ),
    )
  }
  return found
}

function checkAuthd({ authd }: Settings): Finding[] {
  const found: Finding[] = []
  const dialects = Object.entries(authd)
    .filter(([name, value]) => name.startsWith('check_daemon_') && value === true)
    .map(([name]) => name)
  const sources =
    authd.syslog_fifo !== '' || authd.syslog_listen.length > 0 || authd.follow_files.length > 0 || authd.journal
  if (sources && dialects.length === 0) {
    found.push(
      unsafe(
        'authd.check_daemon_*',
        'logs are read, but no daemon is enabled: no line of a log opens the relay',
        'switch on the one that you run, e.g. check_daemon_dovecot = true',
      ),
    )
  }
  if (!sources && dialects.length > 0) {
    found.push(
      advice(
        `authd.${dialects[0]}`,
        'authd reads no log, so it has no effect',
        'set syslog_listen = ["127.0.0.1:6514"]',
      ),
    )
  }
  for (const address of authd.syslog_listen.filter(each => !isLoopback(each))) {
    found.push(
      unsafe(
        'authd.syslog_listen',
        `every client that reaches ${formatSocketAddress(address)} can grant any address`,
        'listen on 127.0.0.1',
      ),
    )
  }
  if (authd.syslog_fifo !== '') {
    found.push(
      advice(
        'authd.syslog_fifo',
        'rsyslog drops lines when many come at once into a FIFO',
        `set syslog_listen = ["127.0.0.1:6514"] and let rsyslog send there: ${omfwdRule(6514)}`,
      ),
    )
  }
  if (authd.check_daemon_vchkpw && authd.check_daemon_hacked_qmailpop3d) {
    found.push(
      advice(
        'authd.check_daemon_vchkpw',
        'vchkpw and the patched qmail-pop3d both log each login; behind a TLS proxy that changes no TCPREMOTEIP vchkpw names the proxy',
        'keep check_daemon_hacked_qmailpop3d alone behind such a proxy',
      ),
    )
  }
  return found
}

function checkWrap({ wrap }: Settings): Finding[] {
  const services = {
    policy_listen: wrap.policy_listen,
    socketmap_listen: wrap.socketmap_listen,
    query_listen: wrap.query_listen,
  }
  const reached = Object.entries(services).flatMap(([name, addresses]) =>
    addresses
      .filter(address => !isLoopback(address))
      .map(address =>
        unsafe(
          `wrap.${name}`,
          `every client that reaches ${formatSocketAddress(address)} can find out which addresses may relay`,
          'listen on 127.0.0.1 or a Unix socket',
        ),
      ),
  )
  return [...reached, ...checkAskers(wrap), ...checkFront(wrap), ...checkMailRules(wrap)]
}

/** The accounts of the host that may query the service and count mail of others. */
function checkAskers(wrap: Settings['wrap']): Finding[] {
  const found: Finding[] = []
  const services = [...wrap.policy_listen, ...wrap.socketmap_listen, ...wrap.query_listen]
  if (wrap.socket_mode === '0666' && services.some(({ kind }) => kind === 'unix')) {
    found.push(
      advice(
        'wrap.socket_mode',
        'every account of this host can read which login came from which address',
        'set socket_mode = "0660" and socket_group to the group of the mail server',
      ),
    )
  }
  const limits = [
    wrap.messages_per_login,
    wrap.messages_per_address,
    wrap.recipients_per_login,
    wrap.recipients_per_address,
  ]
  if (limits.some(limit => limit > 0) && wrap.policy_listen.some(({ kind }) => kind === 'tcp')) {
    found.push(
      advice(
        'wrap.policy_listen',
        'every account of this host can query a port, and its requests count for the limits of others',
        'let Postfix query a Unix socket',
      ),
    )
  }
  return found
}

function checkStatusPage({ statusPage: { listen } }: Settings): Finding[] {
  if (listen === undefined) return []
  if (!isLoopback(listen)) {
    return [
      unsafe(
        'status-page.listen',
        `every client that reaches ${formatSocketAddress(listen)} can read logins and addresses`,
        'listen on 127.0.0.1; from elsewhere: ssh -L',
      ),
    ]
  }
  return listen.kind === 'tcp'
    ? [
        advice(
          'status-page.listen',
          'every account of this host can read the page',
          'unix:/run/auth-relay/status/page.sock is for root alone',
        ),
      ]
    : [fine('status-page.listen', 'for root alone')]
}

function checkDatabase({ database }: Settings): Finding[] {
  const found: Finding[] = []
  const users = { dbpass: 'dbuser', wrap_dbpass: 'wrap_dbuser', status_dbpass: 'status_dbuser' } as const
  for (const name of ['dbpass', 'wrap_dbpass', 'status_dbpass'] as const) {
    const password = database[name]
    if (password !== '' && password === database[users[name]]) {
      found.push(unsafe(`database.${name}`, 'attackers try it first', `write a random one: openssl rand -base64 24`))
    }
  }
  for (const [name, who] of [
    ['wrap_dbpass', 'the gate'],
    ['status_dbpass', 'the status page'],
  ] as const) {
    if (database.dbpass !== '' && database.dbpass === database[name]) {
      found.push(unsafe(`database.${name}`, `${who} has the password that writes grants`, 'give each role its own'))
    }
  }
  const isRemote = !database.embedded && database.dbhost.split(',').some(host => !isLocalHost(host.trim()))
  if (isRemote && database.dbtls === 'off') {
    found.push(
      advice('database.dbtls', 'login names and addresses cross the network in clear text', 'set dbtls = "verify"'),
    )
  }
  return found
}

const isLocalHost = (host: string): boolean => host === 'localhost' || host.startsWith('/') || isLoopbackText(host)

function isLoopbackText(host: string): boolean {
  const ip = parseIpAddress(host)
  return ip !== undefined && LOOPBACK.has(ip)
}

const isLoopback = (address: SocketAddress): boolean => address.kind !== 'tcp' || isLocalHost(address.host)
