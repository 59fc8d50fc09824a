import { mkdirSync, writeFileSync } from 'node:fs'
import { inspect } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import { checkPatroni } from '../../../src/auth-relay/check/check-cluster.ts'
import { formatSettings, type Overrides } from '../../../src/auth-relay/text/settings-text.ts'
import { recognizersFor } from '../../../src/authd/login-sources.ts'
import { UsageFault } from '../../../src/base/errors.ts'
import { addressRulesOf } from '../../../src/grants/devices/mail-rules.ts'
import { policyOf } from '../../../src/grants/grant-policy.ts'
import { checkerFingerprint } from '../../../src/popup/checkers/make-checker.ts'
import { FailureDelays } from '../../../src/popup/monitor/login-delays.ts'
import { loginSettings } from '../../../src/popup/monitor/login-settings.ts'
import { authdTimes } from '../../../src/popup/monitor/monitor.ts'
import { chainOptions, workerSettings } from '../../../src/popup/monitor/replaceable-authenticator.ts'
import { databaseConnection } from '../../../src/settings/database-connection.ts'
import { RESTART_FOR } from '../../../src/settings/reload.ts'
import { parseSettings, SECTIONS, type Settings } from '../../../src/settings/settings.ts'
import { nodeEngine } from '../../../src/sockets/node-engine.ts'
import { planOf } from '../../../src/sslwrap/plan.ts'
import { recognizerOptions } from '../../../src/syslog/login-recognizer.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { loginOctets, loginText } from '../../../src/wire/login-event.ts'
import { readExecSettings } from '../../../src/wrap/exec/exec-mode.ts'
import { ClientFaultTimes } from '../../../src/wrap/front/client-faults.ts'
import { GateSetup } from '../../../src/wrap/gate/gate-setup.ts'
import { MailCounts } from '../../../src/wrap/mail-counts.ts'
import { ip } from '../../harness/addresses.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

// Each program makes the same objects at a reload as at its start. For every setting whose row in
// the table has "reloaded", another value must make a different object.
// test/system/every-program/reload.test.ts shows that the programs use the new objects, with at
// least one setting of each object.

const { path, remove } = temporaryDirectory()
afterAll(remove)

const file = (name: string, text: string): string => {
  writeFileSync(`${path}/${name}`, text, { mode: 0o600 })
  return `${path}/${name}`
}
const { cert, key } = makeSelfSigned({ names: ['mx.example.org'], now: Date.now() })
const files = {
  cert: file('cert.pem', cert),
  key: file('key.pem', key),
  pair: file('pair.pem', cert + key),
  secret: file('secret', 'a secret of this test\n'),
  otherSecret: file('other-secret', 'another secret of this test\n'),
}

for (const name of ['qmail', 'qmail2']) {
  mkdirSync(`${path}/${name}/bin`, { recursive: true })
  writeFileSync(`${path}/${name}/bin/qmail-smtpd.noauth`, '#!/bin/sh\n', { mode: 0o755 })
}
const OLD_TLS = { listen: '127.0.0.1:1', backend: '127.0.0.1:2', tls: 'old' }

/** Settings that make other settings effective. */
const SITES: readonly Overrides[] = [
  { authd: { journal: true } },
  { popup: { checker: 'upstream', upstream: '127.0.0.1:1', upstream_tls: true } },
  { popup: { checker: 'sql' } },
  { popup: { checker: 'chain', checkpassword: ['/bin/true'], chain: ['/bin/true'] } },
  { popup: { ssl_hack_pass: files.secret, stls: true, stls_cert: files.cert, stls_key: files.key } },
  { sslwrap: { client_ca: '/ca' } },
  { sslwrap: { listener: [OLD_TLS], old_tls_nets: ['192.0.2.0/24'] } },
  { wrap: { smtpd: [], qmaildir: `${path}/qmail` } },
  { wrap: { front: true, reverse_dns: 'on' } },
  { database: { require_sync: true } },
]
const BASE: Overrides = { popup: { ssl_hack_pass: '' }, wrap: { smtpd: ['/bin/true'] } }

/**
 * A value other than the default, for settings where another number or the opposite flag does not
 * work.
 */
const OTHER: Readonly<Record<string, unknown>> = {
  hostname: 'other.example.org',
  nat64_prefixes: ['2001:db8:64::/96'],
  never_grant: ['198.51.100.7'],
  ipv6_prefix: 64,
  passwd_file: '/other',
  'popup.checkpassword': ['/bin/false'],
  'popup.chain': ['/bin/false'],
  upstream: '127.0.0.1:2',
  upstream_ca: files.cert,
  maildir: 'Mail',
  ssl_hack_pass: files.otherSecret,
  sql_dbpass_file: files.secret,
  sql_query: 'SELECT 1',
  ssl_hack_trust: ['198.51.100.7'],
  ssl_reply: 'none',
  proxy_trust: ['198.51.100.7'],
  compat: 'qmail',
  cleartext_nets: ['198.51.100.0/24'],
  cleartext_logins: ['ann'],
  'popup.stls_cert': files.pair,
  wrap_dbpass_file: files.secret,
  fail_delays: [3],
  sizes: 'file',
  lock: 'exclusive',
  certificate: [{ cert: files.pair }],
  client_certificate: 'optional',
  client_ca: '/other',
  old_tls_nets: ['198.51.100.0/24'],
  journal_users: ['daemon'],
  journal_units: ['other.service'],
  syslog_hosts: ['other'],
  daemon_tags: ['qpopper=other'],
  'wrap.smtpd': ['/bin/false'],
  qmaildir: `${path}/qmail2`,
  qmail_smtpd_noauth: '/bin/false',
  front_auth: 'hide',
  reverse_dns: 'paranoid',
  policy_users: ['daemon'],
  sender_binding: 'refuse',
  sender_domains: ['example.org'],
  recipient_domains: ['example.org'],
  without_device: 'refuse',
  shared_addresses: 'nobody',
  tcprules_static: '/other',
  ask: 'unix:/other.sock',
}

const probes = ['127.0.0.1', '10.1.1.1', '198.51.100.7', '2001:db8:1::5', '2001:db8:64::c633:6407'].map(ip)

const shown = (value: unknown): string => inspect(value, { depth: 12, maxArrayLength: null, maxStringLength: null })

/** Values that a login process keeps from the start of popup. */
const FIXED: Parameters<typeof loginSettings>[1] = {
  ids: undefined,
  directory: '/run',
  listeners: [],
  ticketKeys: [],
  engine: 'node',
  handoff: false,
}

/**
 * Everything that the programs make from their settings at a reload, as comparable text; undefined
 * if the settings contradict each other.
 */
async function madeOf(settings: Settings): Promise<string | undefined> {
  try {
    return await allOf(settings)
  } catch (error) {
    if (error instanceof UsageFault) return undefined
    throw error
  }
}

async function allOf(settings: Settings): Promise<string> {
  const login = loginSettings(settings, FIXED)
  const policy = policyOf(settings)
  const { senders } = recognizersFor(settings)
  const { password, ...database } = databaseConnection(settings, 'reader')
  const mailCounts = new MailCounts(settings.wrap, () => 0)
  const gate = new GateSetup(settings, {})
  try {
    const policyOptions = gate.policyOptions(mailCounts)
    return shown({
      popup: [
        login,
        checkerFingerprint(settings),
        workerSettings(settings),
        authdTimes(settings),
        chainOptions(settings, {}),
      ],
      sslwrap: planOf(settings),
      authd: [
        recognizerOptions(settings),
        senders,
        policy,
        probes.map(each => [policy.rowOf(each), policy.embeddedIpv4(each), policy.neverList.loginRefusal(each)]),
      ],
      wrap: [
        gate.gateOptions(nodeEngine, mailCounts, new ClientFaultTimes(() => 0)),
        policyOptions,
        policyOptions.counts(1),
        mailCounts,
        gate.cdbOptions(),
        addressRulesOf(settings),
        gate.serviceOptions('gate'),
        [database, password?.reveal()],
      ],
    })
  } finally {
    await gate.close()
  }
}

/** The settings of each site before a change, and the objects that the programs make of them. */
const atSites = Promise.all(
  [{}, ...SITES].map(async site => {
    const before = settingsOf(site)
    return { site, before, made: await madeOf(before) }
  }),
)

test('the same settings make the same objects, so that a difference shows a change', async () => {
  for (const { site, made } of await atSites) expect(await madeOf(settingsOf(site))).toBe(made)
})

function settingsOf(site: Overrides): Settings {
  const names = new Set([...Object.keys(BASE), ...Object.keys(site)])
  const all = Object.fromEntries([...names].map(name => [name, { ...BASE[name], ...site[name] }]))
  return parseSettings(formatSettings(all, { head: [], withDefaults: false }), 'test.toml').settings
}

/**
 * Settings whose values are in no such object: the effect of two values, which must differ. The
 * effect is the one for which a program reads the setting.
 */
const EFFECTS: Readonly<Record<string, readonly [() => Promise<unknown>, () => Promise<unknown>]>> = {
  // A reload calls `use` of the object that counts failures.
  'popup.fail_delays': [() => delayWith([3]), () => delayWith([5])],
  // Only the command reads it. Nothing listens on port 1.
  'database.patroni_port': [() => patroniFindingsWith(1), () => patroniFindingsWith(0)],
  // wrap in place of qmail-smtpd, which reads its settings for each connection.
  'wrap.ask': [() => socketOfExecMode('unix:/run/one.sock'), () => socketOfExecMode('unix:/run/other.sock')],
}

/** The delay of a login after one failure, in milliseconds. */
async function delayWith(seconds: number[]): Promise<number> {
  const customers = new CustomerNetworks()
  const delays = new FailureDelays([], () => 0, customers)
  delays.use(settingsOf({ popup: { fail_delays: seconds } }).popup.fail_delays, customers)
  delays.failed(ip('192.0.2.1'), loginText(loginOctets('ann')), 'a proof')
  return delays.delayFor(ip('198.51.100.1'), loginText(loginOctets('ann')))
}

const patroniFindingsWith = (port: number) =>
  checkPatroni(settingsOf({ database: { require_sync: true, dbhost: '127.0.0.1', patroni_port: port } }))

async function socketOfExecMode(ask: string): Promise<string> {
  const file = `${path}/exec.toml`
  writeFileSync(file, formatSettings({ wrap: { ask } }, { head: [], withDefaults: false }))
  return (await readExecSettings(file, {})).ask
}

/**
 * Settings whose values are not visible in the new objects. The test shows only that they are read
 * for these objects.
 */
const READ: Readonly<Record<string, () => Promise<ReadonlySet<string>>>> = {
  // The value is inside a function.
  'wrap.front_auth': () => namesReadByGate(),
  'wrap.reverse_dns_timeout': () => namesReadByGate(),
  // Another file would have to be a database of networks.
  'grants.mmdb_files': () => Promise.resolve(namesReadForAddresses()),
  // Another file would have to contain the only key that belongs to the certificate.
  'popup.stls_key': () => namesReadForLogin(),
}

/** The object, with a record of the members that are read from now on. */
function watched<T extends object>(object: T): { readonly proxy: T; readonly names: ReadonlySet<string> } {
  const names = new Set<string>()
  const proxy = new Proxy(object, {
    get: (target, name, receiver): unknown => {
      names.add(String(name))
      return Reflect.get(target, name, receiver)
    },
  })
  return { proxy, names }
}

async function namesReadByGate(): Promise<ReadonlySet<string>> {
  const settings = settingsOf({ wrap: { front: true, reverse_dns: 'on' } })
  const { proxy, names } = watched(settings.wrap)
  const gate = new GateSetup({ ...settings, wrap: proxy }, {})
  try {
    gate.gateOptions(nodeEngine, new MailCounts(settings.wrap, () => 0), new ClientFaultTimes(() => 0))
    return names
  } finally {
    await gate.close()
  }
}

async function namesReadForLogin(): Promise<ReadonlySet<string>> {
  const settings = settingsOf({ popup: { stls: true, stls_cert: files.cert, stls_key: files.key } })
  const { proxy, names } = watched(settings.popup)
  loginSettings({ ...settings, popup: proxy }, FIXED)
  return names
}

function namesReadForAddresses(): ReadonlySet<string> {
  const settings = settingsOf({})
  const { proxy, names } = watched(settings.grants)
  addressRulesOf({ ...settings, grants: proxy })
  return names
}

describe('a reloaded setting changes an object that a program makes at a reload', () => {
  const rows = Object.entries(SECTIONS).flatMap(([key, section]) =>
    Object.keys(section.rows).flatMap(name => {
      const part: unknown = Reflect.get(RESTART_FOR, key)
      const waiting: unknown = typeof part === 'object' && part !== null ? Reflect.get(part, name) : undefined
      return Array.isArray(waiting) && waiting.length === 0 && name !== 'configured'
        ? [{ key, section: section.name, name, full: `${section.name}.${name}` }]
        : []
    }),
  )

  test.each(rows)('$full', async ({ key, section, name, full }) => {
    const effects = EFFECTS[full]
    if (effects !== undefined) {
      const [one, other] = effects
      expect(await one()).not.toEqual(await other())
      return
    }
    const read = READ[full]
    if (read !== undefined) {
      expect(await read()).toContain(name)
      return
    }
    let isChanged = false
    for (const { site, before, made } of await atSites) {
      if (isChanged || made === undefined) continue
      const part: unknown = Reflect.get(before, key)
      const value: unknown = typeof part === 'object' && part !== null ? Reflect.get(part, name) : undefined
      const changed =
        OTHER[full] ??
        OTHER[name] ??
        (typeof value === 'boolean' ? !value : typeof value === 'number' ? value + 1 : '/other')
      const after = settingsOf({ ...site, [section]: { ...site[section], [name]: changed } })
      const madeAfter = await madeOf(after)
      isChanged = madeAfter !== undefined && madeAfter !== made
    }
    expect(isChanged).toBe(true)
  })
})
