import { readFileSync, writeFileSync } from 'node:fs'
import { Command } from 'commander'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Action } from '../../src/auth-relay/verb.ts'
import { device } from '../../src/auth-relay/verbs/device.ts'
import { type Device, DeviceAdmin } from '../../src/grants/devices/device-admin.ts'
import { addressRulesOf, closedBy, decisionOfSender } from '../../src/grants/devices/mail-rules.ts'
import { NetworkFacts } from '../../src/grants/devices/network-facts.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { createStatusFeed } from '../../src/grants/status-feed.ts'
import { crypt } from '../../src/libc/accounts.ts'
import { parseSettings } from '../../src/settings/settings.ts'
import { decide } from '../../src/wrap/decision.ts'
import { ip, net } from '../harness/addresses.ts'
import { mmdb } from '../harness/mmdb.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database.remove())

const COPIER: Device = {
  name: 'copier-2',
  logins: ['Copier2@Example.org'],
  senders: ['scan@example.org'],
  networks: ['192.0.2.0/24'],
  places: [],
  recipientDomains: ['example.org', 'bücher.example'],
  messagesPerHour: 60,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 500,
  lineEndings: 'repair',
  hours: null,
  until: null,
  owner: 'ann',
  note: 'second floor, "left" \\ wing',
}

test('the command writes devices, and the gate reads their rules with the grant of each login', async () => {
  const admin = new DeviceAdmin(database.open('pop3authd'))
  const policy = grantPolicy({})
  const reader = createGrantReader(database.open('authwrap'), policy)
  const decision = (address: string) =>
    decide(ip(address), {
      ask: async asked => {
        const grant = await reader.lookup(asked)
        return grant === undefined
          ? undefined
          : { until: undefined, login: grant.login ?? undefined, device: grant.device ?? undefined }
      },
      refusal: () => undefined,
      timeoutMs: 10_000,
    })

  expect(await admin.store(COPIER, true)).toBeUndefined()
  expect(await admin.list()).toEqual([{ ...COPIER, logins: ['copier2@example.org'] }])
  expect(await admin.store(COPIER, true)).toEqual({ refused: 'exists' })
  expect(await admin.store({ ...COPIER, name: 'other' }, false)).toEqual({ refused: 'unknown' })
  expect(await admin.store({ ...COPIER, name: 'other', logins: ['COPIER2@example.org.'] }, true)).toEqual({
    refused: 'login',
    login: 'copier2@example.org',
  })

  await database.owner.script(`
    INSERT INTO grants (ip, until, daemon, username) VALUES
      ('192.0.2.7', now() + interval '10 min', 'popup', 'COPIER2@example.org'),
      ('198.51.100.7', now() + interval '10 min', 'popup', 'copier2@example.org'),
      ('192.0.2.8', now() + interval '10 min', 'popup', 'ann@example.org')`)
  expect(await decision('192.0.2.7')).toMatchObject({
    relay: true,
    device: { name: 'copier-2', senders: ['scan@example.org'], recipientsPerDay: 500, lineEndings: 'repair' },
  })
  expect(await decision('192.0.2.8')).toEqual({
    relay: true,
    until: undefined,
    login: 'ann@example.org',
    device: undefined,
  })
  expect(await decision('198.51.100.7')).toMatchObject({ relay: false, reason: 'device_network' })
  expect((await reader.current()).map(({ network }) => network.base)).toEqual(['192.0.2.7', '192.0.2.8'])

  expect(await admin.store({ ...COPIER, until: new Date(Date.now() - 1000) }, false)).toBeUndefined()
  expect(await decision('192.0.2.7')).toMatchObject({ relay: false, reason: 'device_ended' })
  expect((await reader.current()).map(({ network }) => network.base)).toEqual(['192.0.2.8'])

  for (const hours of [{ from: 420, to: 1140 }, { from: 1320, to: 360 }, null]) {
    expect(await admin.store({ ...COPIER, hours }, false)).toBeUndefined()
    expect(await admin.list('copier-2')).toMatchObject([{ hours }])
    expect((await reader.lookup(ip('192.0.2.7')))?.device?.hours).toEqual(hours)
  }

  expect(await admin.remove('copier-2')).toBe(true)
  expect(await admin.remove('copier-2')).toBe(false)
  expect(await decision('198.51.100.7')).toMatchObject({ relay: true, device: undefined })
})

test('the sweep of authd keeps the last login of a device, for the status page', async () => {
  const site = await createTestDatabase()
  try {
    const admin = new DeviceAdmin(site.open('pop3authd'))
    const writer = createGrantWriter(site.open('pop3authd'), grantPolicy({}))
    const feed = createStatusFeed(site.open('authstatus'))
    const lastLogin = async () => (await feed.devices(10)).map(each => each.lastLogin)
    await admin.store({ ...COPIER, logins: ['copier2@example.org', 'copier3@example.org'] }, true)
    await writer.sweep()
    expect(await lastLogin()).toEqual([null])
    const [at, older] = [new Date(Date.now() - 60_000), new Date(Date.now() - 600_000)]
    const grant = (address: string, last: Date, login: string) =>
      site.owner.script(`INSERT INTO grants (ip, until, last_auth, daemon, username)
        VALUES ('${address}', now() + interval '10 min', '${last.toISOString()}', 'popup', '${login}')`)
    await grant('192.0.2.7', older, 'COPIER2@example.org')
    await grant('192.0.2.8', at, 'copier3@example.org')
    await grant('192.0.2.9', new Date(), 'ann@example.org')
    await site.owner.script(`INSERT INTO grants (ip, until, last_auth, daemon, username)
      VALUES ('192.0.2.10', now() + interval '2 days', now() + interval '1 day', 'popup', 'copier2@example.org')`)
    // The sweep does not wait for a command that changes the device.
    await site.owner.transaction(async session => {
      await session.script('SELECT FROM device_logins FOR UPDATE')
      expect(await writer.sweep()).toEqual({ grants: 1 })
    })
    expect(await lastLogin()).toEqual([null])
    await writer.sweep()
    expect(await lastLogin()).toEqual([at])
    // The time outlives the grant, a change of the device, and a login that is read late.
    await site.owner.script('DELETE FROM grants')
    await grant('192.0.2.7', older, 'copier3@example.org')
    await admin.store({ ...COPIER, logins: ['copier2@example.org', 'copier3@example.org'], note: '' }, false)
    await writer.sweep()
    expect(await lastLogin()).toEqual([at])
  } finally {
    await site.remove()
  }
})

test('tables for mail servers respect the end and the networks of a device, and an allowance needs no device', async () => {
  await database.owner.script('TRUNCATE grants, allowances, devices, device_logins')
  const admin = new DeviceAdmin(database.open('pop3authd'))
  const reader = createGrantReader(database.open('authwrap'), grantPolicy({}))
  const listed = async (): Promise<readonly string[]> =>
    (await database.open('authwrap').query(RELAY_CLIENTS)).rows.map(({ network }) => network)
  await database.owner.script(`
    INSERT INTO grants (ip, embedded_ipv4, until, daemon, username) VALUES
      ('192.0.2.7', NULL, now() + interval '10 min', 'popup', 'Copier2@example.org.'),
      ('64:ff9b::c000:209', '192.0.2.9', now() + interval '10 min', 'popup', 'copier2@example.org'),
      ('198.51.100.7', NULL, now() + interval '10 min', 'popup', 'copier2@example.org')`)
  expect(await admin.store({ ...COPIER, name: 'copier-3' }, true)).toBeUndefined()
  expect(await listed()).toEqual(['192.0.2.7', '64:ff9b::c000:209'])

  expect(await admin.store({ ...COPIER, name: 'copier-3', until: new Date(Date.now() - 1000) }, false)).toBeUndefined()
  expect(await listed()).toEqual([])
  // The device ends before the grant.
  await database.owner.script(`
    INSERT INTO allowances (net, until, reason, owner) VALUES ('192.0.2.7', now() + interval '1 min', '', '')`)
  expect(await listed()).toEqual(['192.0.2.7'])
  expect(await reader.lookup(ip('192.0.2.7'))).toMatchObject({ source: 'allowance', device: null })
  expect(await admin.remove('copier-3')).toBe(true)
})

const RELAY_CLIENTS = {
  text: 'SELECT network FROM relay_clients ORDER BY network',
  row: v.object({ network: v.string() }),
}

/** A POP3 login that was granted `ago` seconds ago. */
const loginEvent = (username: string, address: string, ago = '1 hour'): Promise<unknown> =>
  database.owner.script(
    `INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until)
     VALUES (now() - interval '${ago}', '${address}', '${address}', 'popup', 'pass', false, '${username}', '', now())`,
  )

/** Runs `auth-relay device` with these arguments, on the database of this file. */
const command = (...words: string[]) => commandWith('', ...words)

/** The same with additional lines in the settings file. */
async function commandWith(
  settings: string,
  ...words: string[]
): Promise<{ readonly status: number; readonly text: string }> {
  const directory = temporaryDirectory()
  const config = `${directory.path}/auth-relay.toml`
  const { hosts, database: name, user, password } = database.connection('pop3authd')
  const [{ host, port } = { host: '', port: 0 }] = hosts
  writeFileSync(
    config,
    `configured = true\n[database]\ndbhost = "${host}"\ndbport = ${port}\ndbname = "${name}"\ndbuser = "${user}"\ndbpass = "${password?.reveal() ?? ''}"\n${settings}`,
  )
  let text = ''
  let action: Action | undefined
  const program = new Command().exitOverride()
  const print = (piece: string): void => {
    text += piece
  }
  device(program, { environment: {}, print, isTerminal: false, columns: Number.POSITIVE_INFINITY }, chosen => {
    action = chosen
  })
  try {
    program.parse(['device', ...words, '--config', config], { from: 'user' })
    if (action?.kind !== 'command') throw new Error('no command')
    return { status: await action.run(), text }
  } finally {
    directory.remove()
  }
}

test('auth-relay device adds, changes, shows and removes', async () => {
  const added = await command(
    'add',
    'scanner',
    '--login',
    'scan,scan2',
    '--sender',
    'scan@example.org',
    '--to',
    'Bücher.example',
    '--from',
    '192.0.2.0/24',
    '--per-hour',
    '60',
    '--until',
    '2027-12-31',
    '--owner',
    'ann',
    '--json',
  )
  expect(added.status).toBe(0)
  expect(JSON.parse(added.text)).toMatchObject({
    name: 'scanner',
    logins: ['scan', 'scan2'],
    recipientDomains: ['xn--bcher-kva.example', 'bücher.example'],
    networks: ['192.0.2.0/24'],
    messagesPerHour: 60,
    until: '2028-01-01T00:00:00.000Z',
    owner: 'ann',
    warnings: [expect.stringContaining('nothing on this host enforces senders')],
  })
  expect((await command('show', 'scanner')).text).toContain('\n  until: 2027-12-31 (UTC)\n')
  expect((await command('set', 'scanner', '--to', '', '--until', 'never')).status).toBe(0)
  const { text } = await command('show', 'scanner', '--json')
  expect(JSON.parse(text)).toMatchObject({
    recipientDomains: [],
    until: null,
    senders: ['scan@example.org'],
    messagesPerHour: 60,
  })
  expect((await command('list')).text).toContain('scanner\n  logins: scan, scan2\n  senders: scan@example.org')
  await expect(command('add', 'scanner', '--login', 'x')).rejects.toThrow(
    'the device scanner exists: change it with device set scanner',
  )
  await expect(command('add', 'other', '--login', 'SCAN2')).rejects.toThrow('the login scan2 belongs to another device')
  await expect(command('set', 'scanner', '--login', '')).rejects.toThrow('would have no login')
  expect((await command('remove', 'scanner')).status).toBe(0)
  expect(await command('remove', 'scanner')).toEqual({ status: 1, text: 'There is no device scanner.\n' })
  expect((await command('show', 'scanner')).status).toBe(1)
})

test.each([
  [['add', 'x'], 'needs --login'],
  [['add', 'a b', '--login', 'x'], 'needs a name'],
  [['add', 'x', '--login', 'x', '--sender', 'scan'], 'is not an address'],
  [['add', 'x', '--login', 'x', '--from', '192.0.2.1/24'], 'did you mean 192.0.2.0/24'],
  [['add', 'x', '--login', 'x', '--to', 'u@example.org'], 'is not a domain'],
  [['add', 'x', '--login', 'x', '--per-hour', '-1'], 'is not a limit'],
  [['add', 'x', '--login', 'x', '--until', '2027-02-30'], 'is not a day'],
  [['add', 'x', '--login', 'x', '--line-endings', 'lf'], 'write strict or repair'],
  [['add', 'x', '--login', 'x', '--hours', '7-19'], 'write 07:00-19:00'],
  [['add', 'x', '--login', 'x', '--hours', '07:00-07:00'], 'is not a part of the day'],
  [['add', 'x', '--login', 'x', '--from', '127.0.0.0/8,::1'], 'no login from 127.0.0.0/8, ::1 is ever granted'],
  [['add', 'x', '--login', 'x,y', '--password'], 'has 2 logins'],
  [['adopt'], "missing required argument 'login'"],
  [['ad', 'x'], "unknown command 'ad'"],
])('%j is refused with the remedy', async (words, message) => {
  await expect(command(...words)).rejects.toThrow(message)
})

test('auth-relay device adopt makes a device from the history of a login', async () => {
  for (const address of ['192.0.2.7', '192.0.2.7', '198.51.100.1', '2001:db8:1::7', '2001:db8:1::8'])
    await loginEvent('Fax@example.org', address)
  await loginEvent('fax@example.org', '203.0.113.9', '40 days')
  const adopted = await command(
    'adopt',
    'fax@example.org',
    '--sender',
    'fax@example.org',
    '--hours',
    '22:00-06:00',
    '--json',
  )
  expect(JSON.parse(adopted.text)).toMatchObject({
    name: 'fax-example.org',
    logins: ['fax@example.org'],
    networks: ['192.0.2.7/32', '198.51.100.1/32', '2001:db8:1::/64'],
    senders: ['fax@example.org'],
    hours: { from: 1320, to: 360 },
    note: 'adopted: 5 logins',
  })
  expect((await command('show', 'fax-example.org')).text).toContain('hours: 22:00 to 06:00, local time')
  await expect(command('adopt', 'FAX@example.org')).rejects.toThrow('the login fax@example.org belongs to another')
  expect(await command('adopt', 'nobody', '--json')).toEqual({ status: 1, text: '{"login":"nobody","found":false}\n' })
  await command('remove', 'fax-example.org')
})

test('--password writes a password that an old control panel can store in passwd_file, and prints it once', async () => {
  const directory = temporaryDirectory()
  const file = `${directory.path}/passwd`
  const settings = `[popup]\npasswd_file = "${file}"\n`
  const words = ['add', 'panel', '--login', 'panel', '--password', '--json']
  await expect(commandWith(settings, ...words)).rejects.toThrow(/has no account panel: create it first/)
  await expect(commandWith(`${settings}listen = []\n`, ...words)).rejects.toThrow(
    'which popup does not read here (popup.listen is empty): give panel its password at the server that checks it',
  )
  await expect(commandWith(`${settings}checker = "system"\n`, ...words)).rejects.toThrow('(popup.checker is "system")')
  expect((await command('show', 'panel')).status).toBe(1)
  writeFileSync(file, 'panel:!:5000:5000:/var/vmail/panel:Maildir\n', { mode: 0o600 })
  const { password } = v.parse(
    v.object({ password: v.string() }),
    JSON.parse((await commandWith(settings, ...words)).text),
  )
  expect(password).toMatch(/^[A-Za-z0-9]{20}$/)
  const [line = ''] = readFileSync(file, 'utf8').split('\n')
  const [, hash = '', ...tail] = line.split(':')
  expect(tail).toEqual(['5000', '5000', '/var/vmail/panel', 'Maildir'])
  expect(await crypt(password, hash)).toBe(hash)
  expect((await command('show', 'panel', '--json')).text).not.toContain(password)
  await command('remove', 'panel')
  directory.remove()
})

test('a rule that no program enforces and a sender of a foreign domain cause a warning with the remedy', async () => {
  const add = [
    'add',
    'w',
    '--login',
    'w',
    '--sender',
    'w@foreign.example',
    '--per-hour',
    '1',
    '--hours',
    '07:00-19:00',
    '--json',
  ]
  const warningsWith = async (settings: string): Promise<unknown> => {
    const { warnings } = v.parse(
      v.object({ warnings: v.unknown() }),
      JSON.parse((await commandWith(settings, ...add)).text),
    )
    await command('remove', 'w')
    return warnings
  }
  expect(await warningsWith('[wrap]\ntcprules_cdb = "/x.cdb"\nsender_domains = ["example.org"]\n')).toEqual([
    expect.stringContaining('enforces senders, limits: set wrap.front'),
    expect.stringContaining('wrap.tcprules_cdb cannot express the hours'),
    expect.stringContaining('w@foreign.example: the domain is none of wrap.sender_domains'),
  ])
  // On a host with qmail the query service enforces nothing, because only `explain` asks there.
  expect(await warningsWith('[wrap]\nlisten = ["127.0.0.1:25"]\nquery_listen = ["127.0.0.1:10042"]\n')).toEqual([
    expect.stringContaining('nothing on this host enforces senders, limits'),
  ])
  expect(await warningsWith('[wrap]\npolicy_listen = ["127.0.0.1:10040"]\n')).toEqual([])
  const both = '[wrap]\npolicy_listen = ["127.0.0.1:10040"]\nsocketmap_listen = ["127.0.0.1:10041"]\n'
  expect(await warningsWith(both)).toEqual([
    expect.stringContaining('uses wrap.socketmap_listen checks neither senders'),
  ])
  const withGate = '[wrap]\npolicy_listen = ["127.0.0.1:10040"]\nlisten = ["127.0.0.1:25"]\n'
  expect(await warningsWith(withGate)).toEqual([
    expect.stringContaining('uses wrap.listen without wrap.front checks neither senders'),
  ])
  expect(await warningsWith(`${withGate}front = true\n`)).toEqual([])
})

test('a device may be in a country or an AS besides its networks; only files of this host define the places', async () => {
  const directory = temporaryDirectory()
  const [countries, systems] = [`${directory.path}/country.mmdb`, `${directory.path}/asn.mmdb`]
  const built = new Date('2026-10-01T00:00:00Z')
  writeFileSync(countries, mmdb([[net('192.0.2.0/24'), { country: { iso_code: 'DE' } }]], built))
  writeFileSync(systems, mmdb([[net('2001:db8:5::/48'), { autonomous_system_number: 64500 }]], built))
  const facts = new NetworkFacts([countries, systems])
  expect(['192.0.2.7', '2001:db8:5::1', '198.51.100.1', '::ffff:1'].map(text => facts.placesOf(ip(text)))).toEqual([
    ['DE'],
    ['AS64500'],
    [],
    [],
  ])
  expect([...facts.built.values()]).toEqual([built, built])
  expect(() => new NetworkFacts([`${directory.path}/none`]).placesOf(ip('192.0.2.7'))).toThrow('grants.mmdb_files')

  const words = ['add', 'roaming', '--login', 'roaming', '--from', 'DE,AS64500,203.0.113.0/24']
  await expect(command(...words)).rejects.toThrow('this host has no list of the addresses of DE, AS64500')
  const settings = `[grants]\nmmdb_files = ["${countries}", "${systems}"]\n`
  expect((await commandWith(settings, ...words)).text).toContain('from: 203.0.113.0/24, DE, AS64500')
  const reader = createGrantReader(database.open('authwrap'), grantPolicy({}))
  await database.owner.script(`DELETE FROM grants; DELETE FROM allowances; INSERT INTO grants (ip, until, daemon, username)
    SELECT ip::inet, now() + interval '10 min', 'popup', 'roaming'
    FROM unnest(ARRAY['192.0.2.7', '2001:db8:5::1', '198.51.100.1', '203.0.113.9']) AS ip`)
  const closedAt = async (text: string, mmdb_files: readonly string[]) => {
    const device = (await reader.lookup(ip(text)))?.device ?? undefined
    const wrap = { without_device: 'relay', shared_addresses: 'devices', shared_logins: 3 } as const
    return closedBy(ip(text), { login: 'roaming', device }, addressRulesOf({ wrap, grants: { mmdb_files } }))
  }
  for (const text of ['192.0.2.7', '2001:db8:5::1', '203.0.113.9'])
    expect(await closedAt(text, [countries, systems])).toBeUndefined()
  expect(await closedAt('198.51.100.1', [countries, systems])).toBe('device_network')
  // Without a file only the networks count.
  expect(await closedAt('192.0.2.7', [])).toBe('device_network')
  expect(await closedAt('203.0.113.9', [])).toBeUndefined()
  expect((await reader.current()).map(({ network: { base } }) => base)).toEqual(['203.0.113.9'])
  await command('remove', 'roaming')
  directory.remove()
})

describe('logins of one address', () => {
  const policy = grantPolicy({ expTime: 1800 })
  const at = (text: string) => new Date(`2026-03-02T${text}Z`)
  const received = async (...logins: readonly (readonly [string, string])[]): Promise<readonly string[]> => {
    let now = at('08:00:00')
    const writer = createGrantWriter(database.owner, policy, { now: () => now })
    const reader = createGrantReader(database.owner, policy, { now: () => now })
    await database.owner.script('DELETE FROM grants; DELETE FROM neighbours')
    // Logins at the same time are stored by one statement.
    for (const [moment, group] of Map.groupBy(logins, ([moment]) => moment)) {
      now = at(moment)
      await writer.record(
        group.map(([, user], index) => ({
          event: { id: `1.${index}`, ip: ip('192.0.2.77'), daemon: 'popup', tls: false, method: 'pass', user },
          at: null,
        })),
      )
    }
    return (await reader.lookup(ip('192.0.2.77')))?.logins ?? []
  }

  test('one login writes no row, in upper or lower case', async () => {
    expect(await received(['08:00:00', 'ann@example.org'], ['08:10:00', 'Ann@Example.ORG'])).toEqual([])
  })
  test('several logins are stored, from one statement and from several', async () => {
    expect(await received(['08:00:00', 'ann'], ['08:05:00', 'bob'], ['08:05:00', 'eve'])).toEqual(['bob', 'eve', 'ann'])
  })
  test('the lookup has the devices of all of them in any order', async () => {
    const admin = new DeviceAdmin(database.owner)
    await admin.store(
      { ...COPIER, name: 'neighbour', logins: ['copier-9'], until: new Date('2026-03-31T12:00:00Z') },
      true,
    )
    const reader = createGrantReader(database.open('authwrap'), policy, { now: () => at('08:06:00') })
    await received(['08:00:00', 'copier-9'], ['08:05:00', 'ann'])
    const after = await reader.lookup(ip('192.0.2.77'))
    expect(after).toMatchObject({ login: 'ann', device: null, logins: ['ann', 'copier-9'] })
    expect(after?.devices).toMatchObject([
      { login: 'copier-9', device: { name: 'neighbour', until: '2026-03-31', ended: false, senders: COPIER.senders } },
    ])
    await received(['08:00:00', 'ann'], ['08:05:00', 'copier-9'])
    const before = await reader.lookup(ip('192.0.2.77'))
    expect(before).toMatchObject({ login: 'copier-9', device: { name: 'neighbour' }, logins: ['copier-9', 'ann'] })
    expect(before?.devices).toEqual(after?.devices)
    await received(['08:00:00', 'copier-9'])
    expect((await reader.lookup(ip('192.0.2.77')))?.devices).toEqual([])
    await admin.remove('neighbour')
  })
  /** Whether mail of a sender is relayed at a site where only devices open the relay. */
  const relays = async (moment: string, sender: string): Promise<boolean> => {
    const reader = createGrantReader(database.open('authwrap'), policy, { now: () => at(moment) })
    const { wrap } = parseSettings('[wrap]\nwithout_device = "refuse"\n', 'test', {}).settings
    const decision = await decide(ip('192.0.2.77'), {
      ask: async asked => {
        const grant = await reader.lookup(asked)
        return (
          grant && { ...grant, until: undefined, login: grant.login ?? undefined, device: grant.device ?? undefined }
        )
      },
      refusal: () => undefined,
      timeoutMs: 10_000,
      rules: addressRulesOf({ wrap: { ...wrap, shared_logins: 9 }, grants: { mmdb_files: [] } }),
    })
    expect(decision).toMatchObject({ relay: false, reason: 'no_device' })
    return decisionOfSender(decision, sender, []).relay
  }

  test('a device whose address a later login closes is relayed within the time of its grant', async () => {
    const admin = new DeviceAdmin(database.owner)
    await admin.store({ ...COPIER, name: 'neighbour', logins: ['copier-9'] }, true)
    await received(['08:00:00', 'copier-9'], ['08:05:00', 'ann'])
    expect(await relays('08:06:00', 'ceo@example.org')).toBe(false)
    expect(await relays('08:06:00', 'scan@example.org')).toBe(true)
    expect(await relays('08:31:00', 'scan@example.org')).toBe(false)
    await database.owner.script(
      `INSERT INTO blocks (login, since, until, reason, owner) VALUES ('copier-9', '2026-03-02T08:05:30Z', 'infinity', 'test', 'test')`,
    )
    expect(await relays('08:06:00', 'scan@example.org')).toBe(false)
    await database.owner.script('DELETE FROM blocks')
    // A block of the address removes its grant. Only logins after that count.
    await database.owner.script('DELETE FROM grants')
    const writer = createGrantWriter(database.owner, policy, { now: () => at('08:07:00') })
    const event = { id: '1.1', ip: ip('192.0.2.77'), daemon: 'popup', tls: false, method: 'pass' } as const
    await writer.record([{ event: { ...event, user: 'bob' }, at: null }])
    expect(await relays('08:08:00', 'scan@example.org')).toBe(false)
    await admin.remove('neighbour')
  })
  test('a blocked login is none of them', async () => {
    await received(['08:00:00', 'ann'], ['08:05:00', 'bob'], ['08:05:00', 'eve'])
    await database.owner.script(
      `INSERT INTO blocks (login, since, until, reason, owner) VALUES ('ann', '2026-03-02T08:05:30Z', 'infinity', 'test', 'test')`,
    )
    const reader = createGrantReader(database.open('authwrap'), policy, { now: () => at('08:06:00') })
    expect((await reader.lookup(ip('192.0.2.77')))?.logins).toEqual(['bob', 'eve'])
    expect((await reader.current()).map(({ logins }) => logins)).toEqual([['bob', 'eve']])
    await database.owner.script('DELETE FROM blocks')
  })
  test('expired logins do not count', async () => {
    expect(await received(['08:00:00', 'ann'], ['08:20:00', 'bob'], ['08:40:00', 'bob'])).toEqual(['bob'])
    expect(await received(['08:00:00', 'ann'], ['08:31:00', 'bob'])).toEqual([])
  })
})

test('the gate cannot write devices', async () => {
  const admin = new DeviceAdmin(database.open('authwrap'))
  await expect(admin.store(COPIER, true)).rejects.toThrow()
  await expect(admin.remove('copier-2')).rejects.toThrow()
})
