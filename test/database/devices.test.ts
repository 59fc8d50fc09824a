import { writeFileSync } from 'node:fs'
import { Command } from 'commander'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Action } from '../../src/auth-relay/verb.ts'
import { device } from '../../src/auth-relay/verbs/device.ts'
import { type Device, DeviceAdmin } from '../../src/grants/device-admin.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import { decide } from '../../src/wrap/decision.ts'
import { ip } from '../harness/addresses.ts'
import { grantPolicy } from '../harness/grant-policy.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { createTestDatabase, type TestDatabase } from '../harness/test-database.ts'

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
  recipientDomains: ['example.org', 'bücher.example'],
  messagesPerHour: 60,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 500,
  lineEndings: 'repair',
  until: null,
  owner: 'ann',
  note: 'second floor, "left" \\ wing',
}

test('the command writes devices, and the gate has their rules with the grant of each login', async () => {
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
  expect(await decision('198.51.100.7')).toEqual({ relay: false, reason: 'device_network' })
  expect((await reader.current()).map(({ network }) => network.base)).toEqual(['192.0.2.7', '192.0.2.8'])

  expect(await admin.store({ ...COPIER, until: new Date(Date.now() - 1000) }, false)).toBeUndefined()
  expect(await decision('192.0.2.7')).toEqual({ relay: false, reason: 'device_ended' })
  expect((await reader.current()).map(({ network }) => network.base)).toEqual(['192.0.2.8'])

  expect(await admin.remove('copier-2')).toBe(true)
  expect(await admin.remove('copier-2')).toBe(false)
  expect(await decision('198.51.100.7')).toMatchObject({ relay: true, device: undefined })
})

test('the tables of mail servers mind the end and the networks of a device, and an allowance needs no device', async () => {
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
  // It ends before the grant.
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

/** `auth-relay device` with these words, against the database of this file. */
async function command(...words: string[]): Promise<{ readonly status: number; readonly text: string }> {
  const directory = temporaryDirectory()
  const config = `${directory.path}/auth-relay.toml`
  const { hosts, database: name, user, password } = database.connection('pop3authd')
  const [{ host, port } = { host: '', port: 0 }] = hosts
  writeFileSync(
    config,
    `configured = true\n[database]\ndbhost = "${host}"\ndbport = ${port}\ndbname = "${name}"\ndbuser = "${user}"\ndbpass = "${password?.reveal() ?? ''}"\n`,
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
    if (action?.type !== 'command') throw new Error('no command')
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
  [['add', 'x', '--login', 'x', '--sender', 'scan'], 'is no address'],
  [['add', 'x', '--login', 'x', '--from', '192.0.2.1/24'], 'did you mean 192.0.2.0/24'],
  [['add', 'x', '--login', 'x', '--to', 'u@example.org'], 'is no domain'],
  [['add', 'x', '--login', 'x', '--per-hour', '-1'], 'is no limit'],
  [['add', 'x', '--login', 'x', '--until', '2027-02-30'], 'is no day'],
  [['add', 'x', '--login', 'x', '--line-endings', 'lf'], 'write strict or repair'],
  [['ad', 'x'], 'write add, set, show, list or remove'],
])('%j is refused with the remedy', async (words, message) => {
  await expect(command(...words)).rejects.toThrow(message)
})

test('the gate writes no device', async () => {
  const admin = new DeviceAdmin(database.open('authwrap'))
  await expect(admin.store(COPIER, true)).rejects.toThrow()
  await expect(admin.remove('copier-2')).rejects.toThrow()
})
