import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, test } from 'vitest'
import { UsageFault } from '../../../src/base/errors.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { EXEC_DEFAULTS, parseExecLine, readExecSettings } from '../../../src/wrap/exec/exec-mode.ts'
import { parseCommandLine } from '../../../src/wrap/run-wrap.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

test.each<[readonly string[], string, unknown]>([
  [['smtpd', '-x', 'y'], 'wrap', { words: ['smtpd', '-x', 'y'], asQmailSmtpd: false }],
  [['/bin/smtpd'], 'wrap', { words: ['/bin/smtpd'], asQmailSmtpd: false }],
  [['--config', '/f', 'smtpd', 'a'], 'wrap', { words: ['smtpd', 'a'], asQmailSmtpd: false, config: '/f' }],
  [['host', 'checkpassword'], '/var/qmail/bin/qmail-smtpd', { words: ['host', 'checkpassword'], asQmailSmtpd: true }],
  [[], '/var/qmail/bin/auth-wrap', { words: [], asQmailSmtpd: true }],
  [['--as-qmail-smtpd', '--odd'], 'wrap', { words: ['--odd'], asQmailSmtpd: true }],
  [['--config=/f', 'smtpd', '-a'], 'wrap', { words: ['smtpd', '-a'], asQmailSmtpd: false, config: '/f' }],
  [['--config=/f'], 'wrap', undefined],
  [['--config=', 'smtpd'], 'wrap', undefined],
  [['--config=/f', '--listen', '*:25'], 'wrap', undefined],
  [[], 'wrap', undefined],
  [['--config', '/f'], 'wrap', undefined],
  [['--config', '/f', '--listen', '*:25'], 'wrap', undefined],
  [['--listen', '*:25', '--', 'smtpd'], 'wrap', undefined],
])('%j as %s', (args, script, expected) => {
  expect(parseExecLine(args, script)).toEqual(expected)
})

test('the resident gate without a section in the settings file', () => {
  const line = [
    '--listen',
    '127.0.0.1:0',
    '-x',
    '/r.cdb',
    '-c',
    '20',
    '--smtpd-user',
    'smtpd',
    '--',
    '/bin/sh',
    '-c',
    'x',
  ]
  expect(parseCommandLine(line)).toEqual({
    kind: 'daemon',
    config: undefined,
    overrides: {
      listen: [{ kind: 'tcp', host: '127.0.0.1', port: 0 }],
      smtpd: ['/bin/sh', '-c', 'x'],
      smtpd_user: 'smtpd',
      rules: '/r.cdb',
      max_connections: 20,
    },
    warnings: [],
  })
  expect(parseCommandLine(['--config', '/f'])).toEqual({ kind: 'daemon', config: '/f', overrides: {}, warnings: [] })
})

test('--smtpd-user and --gate-user set the settings of their names; --user is the older name of the first', () => {
  expect(parseCommandLine(['--smtpd-user', 'a', '--gate-user', 'b'])).toMatchObject({
    overrides: { smtpd_user: 'a', user: 'b' },
    warnings: [],
  })
  expect(parseCommandLine(['--user', 'a', '--gate-user', 'b'])).toMatchObject({
    overrides: { smtpd_user: 'a', user: 'b' },
    warnings: ['--user is the older name: write --smtpd-user'],
  })
  expect(parseCommandLine(['--smtpd-user=a'])).toMatchObject({ overrides: { smtpd_user: 'a' } })
})

test('the program prints the warning once, before it reads the settings', async () => {
  const main = resolve(import.meta.dirname, '../../../src/wrap/main.ts')
  const words = ['--config', '/not/there.toml', '--user', 'a']
  const { stderr } = spawnSync(process.execPath, [main, ...words], { encoding: 'utf8' })
  expect(stderr).toMatch(/^wrap: --user is the older name: write --smtpd-user\nwrap: .*\/not\/there\.toml.*\n$/)
})

test.each([
  [['--config', 'here.toml']],
  [['--config=here.toml']],
  [['--config', 'here.toml', '-c', '20']],
  [['-c', '20', '--config=here.toml']],
])('%j names the settings file of the working directory by its absolute path', args => {
  expect(parseCommandLine(args)).toMatchObject({ config: resolve('here.toml') })
})

test.each([
  [['--config=', '-c', '20']],
  [['--config=', 'smtpd']],
  [['--bogus']],
  [['--listen', 'nowhere']],
  [['--listen', '*:25', '-c', 'many']],
  [['--user', 'x', 'smtpd']],
  [['--smtpd-user', 'x', 'smtpd']],
  [['--smtpd-user', 'x', '--user', 'x']],
])('%j is a fault with its remedy', args => {
  expect(() => parseCommandLine(args)).toThrow(UsageFault)
})

test.each([
  [['--rules', '--connections', '5'], '--rules: its value is missing: see wrap --help'],
  [['-c'], '-c: its value is missing: see wrap --help'],
  [['-x', '-c', '5'], '-x: its value is missing: see wrap --help'],
  [['--config'], '--config: the settings file is missing: write --config FILE, or see wrap --help'],
  [['--config', '--listen', '*:25'], '--config: the settings file is missing: write --config FILE, or see wrap --help'],
  [['--bogus=1', 'x'], 'unknown option --bogus: see wrap --help'],
  [['-c', '5', '-z'], 'unknown option -z: see wrap --help'],
])('%j is one line: %s', (args, fault) => {
  expect(() => parseCommandLine(args)).toThrow(new UsageFault(fault))
})

test('exec mode has the same defaults as the table of settings that it does not load', () => {
  const { settings } = parseSettings('', '/none')
  const table = new Map<string, unknown>(Object.entries({ ...settings.wrap, ask: settings.wrap.ask ?? '' }))
  for (const [name, value] of Object.entries(EXEC_DEFAULTS)) expect(table.get(name), name).toBe(value)
})

test('its settings come from the environment; an invalid one is a fault', async () => {
  expect(await readExecSettings(undefined, {})).toEqual(EXEC_DEFAULTS)
  const environment = { WRAP_ASK: 'unix:/run/q.sock', WRAP_TIMEOUT: '7', RELAYCLIENT_VALUE: '@x', QMAILDIR: '/q' }
  expect(await readExecSettings('/not/read', environment)).toEqual({
    ...EXEC_DEFAULTS,
    ask: '/run/q.sock',
    wrap_timeout: 7,
    relayclient_value: '@x',
    qmaildir: '/q',
  })
  expect((await readExecSettings(undefined, { WRAP_TIMEOUT: '8s' })).wrap_timeout).toBe(8)
  for (const wrong of [
    { WRAP_TIMEOUT: '0' },
    { WRAP_TIMEOUT: '800ms' },
    { WRAP_TIMEOUT: 'x' },
    { WRAP_ASK: 'localhost:1' },
    { QMAILDIR: Uint8Array.of(255) },
  ])
    await expect(readExecSettings(undefined, wrong)).rejects.toThrow(UsageFault)
  await expect(readExecSettings('/nonexistent', {})).rejects.toThrow(UsageFault)
})

test('the fault of a settings file that exec mode cannot read has the reason, in one line', async () => {
  await expect(readExecSettings('/not/there.toml', {})).rejects.toThrow(
    /^cannot read the settings file \/not\/there\.toml: ENOENT.*$/,
  )
  const directory = temporaryDirectory()
  try {
    const file = `${directory.path}/broken.toml`
    writeFileSync(file, '[wrap\nask = ')
    const fault = await readExecSettings(file, {}).catch((error: unknown) => error)
    expect(fault).toBeInstanceOf(UsageFault)
    expect(String(fault)).toMatch(/broken\.toml: Invalid TOML document: .+$/)
    expect(String(fault)).not.toContain('\n')
  } finally {
    directory.remove()
  }
})
