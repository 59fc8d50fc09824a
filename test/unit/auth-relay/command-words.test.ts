import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { commandTree, readCommandLine } from '../../../src/auth-relay/command-line.ts'
import { formatTarget, readBlockTarget, readNetwork, readPeriod } from '../../../src/auth-relay/grant-target.ts'
import { programEnvironment } from '../../../src/auth-relay/stack/supervised-program.ts'
import { SHELLS, shellCompletion } from '../../../src/auth-relay/verbs/completion.ts'
import { UsageFault } from '../../../src/base/errors.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

describe('verbs', () => {
  test.each([
    [['shwo'], 'there is no verb shwo; did you mean show?'],
    [['help', 'shwo'], 'there is no verb shwo; did you mean show?'],
    [['xyzzy'], 'there is no verb xyzzy: see auth-relay --help'],
    [['show', '--jsno'], 'unknown option --jsno; did you mean --json?: see auth-relay show --help'],
    [['explain'], "missing required argument 'address': see auth-relay explain --help"],
    [['allow', '1.2.3.4', '5.6.7.8'], 'too many arguments'],
    [[], 'a verb is missing'],
    [['device'], 'an action of device is missing: auth-relay device --help'],
    [
      ['device', 'lst'],
      'device has no action lst: write add, set, show, list, remove or adopt; did you mean list?: see auth-relay device --help',
    ],
    [['alerts', 'tset'], 'alerts has no action tset: write list, test or run; did you mean test?'],
    [['alerts', '--days', '3', 'nothing'], 'alerts has no action nothing: write list, test or run'],
    [['device', 'list', '--per-hour', '5'], 'unknown option --per-hour: see auth-relay device list --help'],
    [['device', '--per-hour', '5', 'list'], 'unknown option --per-hour: see auth-relay device list --help'],
    [['device', 'show', 'x', '--password'], 'unknown option --password: see auth-relay device show --help'],
    [
      ['device', 'add', 'x', '--sendr', 'y'],
      'unknown option --sendr; did you mean --sender?: see auth-relay device add',
    ],
    [['device', 'adopt', 'x', '--login', 'y'], 'unknown option --login: see auth-relay device adopt --help'],
    [['device', 'adopt'], "missing required argument 'login': see auth-relay device adopt --help"],
    [['device', 'show'], "missing required argument 'name': see auth-relay device show --help"],
    [['device', 'list', 'x'], 'too many arguments'],
    [['disallow', '192.0.2.7', '--for', '1h'], 'unknown option --for: see auth-relay disallow --help'],
    [['disallow'], "missing required argument 'address': see auth-relay disallow --help"],
    [['disallow', '192.0.2.7/24'], 'did you mean 192.0.2.0/24?'],
    [['alerts', 'run', '--days', '3'], 'unknown option --days: see auth-relay alerts run --help'],
    [['alerts', 'test', '--rules'], 'unknown option --rules: see auth-relay alerts test --help'],
  ])('%j: %s', (words, message) => expect(readCommandLine(words, {})).rejects.toThrow(message))

  test.each([
    [['device', 'list'], 'command'],
    [['device', '--json', 'list'], 'command'],
    [['device', '--config', '/f', 'show', 'x'], 'command'],
    [['device', '--login', 'a', 'add', '--json', 'x'], 'command'],
    [['device', 'set', '--to', '', 'x', '--config=/f'], 'command'],
    [['device', 'adopt', 'ann', '--sender', 'ann@example.org'], 'command'],
    [['disallow', '192.0.2.0/28', '--json'], 'command'],
    [['allow', '192.0.2.7', '--end'], 'command'],
    [['alerts'], 'command'],
    [['alerts', '--rules'], 'command'],
    [['alerts', '--days', '3', '--json'], 'command'],
    [['alerts', 'list', '--days', '3'], 'command'],
    [['alerts', '--json', 'test'], 'command'],
    [['alerts', 'run', '--config', '/f'], 'daemon'],
    [['alerts', '--config', '/f', 'run'], 'daemon'],
  ])('%j is understood', async (words, type) => expect((await readCommandLine(words, {})).kind).toBe(type))

  test('options before and after an action have their values', async () => {
    for (const words of [
      ['device', '--config', '/not/there.toml', 'list'],
      ['device', 'list', '--config', '/not/there.toml'],
      ['alerts', '--config', '/not/there.toml'],
      ['alerts', 'test', '--config', '/not/there.toml'],
    ]) {
      const action = await readCommandLine(words, {})
      if (action.kind !== 'command') throw new Error('a command is expected')
      await expect(async () => action.run()).rejects.toThrow('cannot read the settings file /not/there.toml')
    }
  })

  test.each([
    ['device list', ['--config', '--json'], ['--per-hour', '--login']],
    ['device add', ['--login', '--per-hour', 'device add fax'], ['adopt', '--rules']],
    ['device adopt', ['--sender', 'last 30 days'], ['--login']],
    ['device', ['add', 'adopt', 'wrap.front'], ['--recipients-per-hour', '--login <names>']],
    ['alerts', ['--days', 'test', 'run'], []],
    ['alerts test', ['--json'], ['--days', '--rules']],
    ['alerts run', ['--config'], ['--json', '--days']],
  ])('the help of %s has its options and no other', async (words, present, absent) => {
    const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
    onTestFinished(() => write.mockRestore())
    await readCommandLine([...words.split(' '), '--help'], {})
    const help = write.mock.calls.map(([text]) => String(text)).join('')
    expect(help).toContain(`Usage: auth-relay ${words}`)
    for (const word of present) expect(help).toContain(word)
    for (const word of absent) expect(help).not.toContain(word)
  })

  test.each([
    ['block', 'ann', '--reason'],
    ['allow', '192.0.2.7', '--reason'],
  ])('%s: a reason that the database would refuse is a usage fault', async (...words) => {
    const tooLong = readCommandLine([...words, 'x'.repeat(501)], {})
    await expect(tooLong).rejects.toThrow('--reason is longer than 500 characters')
    expect((await readCommandLine([...words, 'x'.repeat(500)], {})).kind).toBe('command')
  })

  test('passwd refuses a login whose line popup would read as a comment', async () => {
    const comment = readCommandLine(['passwd', '#ann'], {})
    await expect(comment).rejects.toThrow('#ann is not a login name: write 1 to 255 characters')
    expect((await readCommandLine(['passwd', 'ann#1'], {})).kind).toBe('command')
  })

  test('replay of a file that cannot be read is a usage fault', async () => {
    const { path, remove } = temporaryDirectory()
    onTestFinished(remove)
    for (const [file, reason] of [
      [path, 'it is a directory'],
      [`${path}/missing.log`, 'ENOENT'],
    ] as const) {
      const action = await readCommandLine(['replay', file, '--shadow', '--dialect', 'all'], {})
      if (action.kind !== 'command') throw new Error('replay is a command')
      const fault = await action.run().catch((error: unknown) => error)
      expect(fault).toBeInstanceOf(UsageFault)
      expect(fault).toMatchObject({ message: expect.stringContaining(`cannot read ${file}: ${reason}`) })
    }
  })

  test('each verb is parsed, and does nothing before it is run', async () => {
    const commands = [['show'], ['allow', '192.0.2.7'], ['revoke', 'ann'], ['explain', '::1'], ['check'], ['migrate']]
    for (const words of commands) expect((await readCommandLine(words, {})).kind).toBe('command')
    expect((await readCommandLine(['up', '--demo'], {})).kind).toBe('daemon')
  })
})

test.each([
  [['revoke', 'ann'], 'block'],
  [['revoke', 'ann', '--end'], 'unblock'],
])('%j prints one warning with the name to write, before it runs', async (words, name) => {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  onTestFinished(() => write.mockRestore())
  const action = await readCommandLine([...words, '--config', '/not/there.toml'], {})
  if (action.kind !== 'command') throw new Error('revoke is a command')
  expect(write.mock.calls).toEqual([])
  await expect(action.run()).rejects.toThrow('cannot read the settings file /not/there.toml')
  expect(write.mock.calls).toEqual([[`auth-relay: revoke is the older name: write ${name}\n`]])
})

describe('the target of a verb', () => {
  test.each([
    ['192.0.2.7', '192.0.2.7'],
    ['192.0.2.0/24', '192.0.2.0/24'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:DB8::/64', '2001:db8::/64'],
    ['2001:db8:0::7', '2001:db8::7'],
  ])('%s is %s', (text, target) => expect(formatTarget(readNetwork(text))).toBe(target))

  test.each(['192.0.2', '192.0.2.7/33', '192.0.2.7/24', 'example.org', '', '2001:db8::7/64'])(
    '%j is not a network',
    text => expect(() => readNetwork(text)).toThrow(text),
  )

  test('a login that the database would refuse is a usage fault', () => {
    for (const text of ['', 'x'.repeat(256)]) expect(() => readBlockTarget(text)).toThrow('1 to 255 characters')
    expect(readBlockTarget('x'.repeat(255))).toMatchObject({ kind: 'login' })
  })

  test.each([
    'ann@example.org',
    '4711x',
    '100234',
    '4930.123',
    '192.0.2',
    '1.2.3.4.5',
    'DOM:ann',
    'dead:beef',
    'ann/12',
  ])('%s is a login, because it does not look like an address', login =>
    expect(readBlockTarget(login)).toEqual({ kind: 'login', login }),
  )

  test.each([
    '192.0.2.7',
    '192.0.2.0/24',
    '2001:db8::7',
    '::1',
    '::ffff:192.0.2.7',
    '2001:db8::/64',
    '10:20:30:0:0:0:0:1',
  ])('%s is an address or a network, and with --login a login', text => {
    expect(readBlockTarget(text).kind).toBe('network')
    expect(readBlockTarget(text, true)).toEqual({ kind: 'login', login: text })
  })

  test.each([
    ['192.0.2.777', 'is neither an address nor a network'],
    ['192.0.2.7:25', 'is neither an address nor a network'],
    ['[2001:db8::7]:25', 'is neither an address nor a network'],
    ['fe80::1%eth0', 'is neither an address nor a network'],
    ['2001:db8:7', 'is neither an address nor a network'],
    ['192.0.2/24', 'is neither an address nor a network'],
    ['2001:db8/32', 'is neither an address nor a network'],
    ['192.0.2.7/24', 'did you mean 192.0.2.0/24?'],
    ['192.0.2.0/33', 'has a prefix longer than 32 bits'],
    ['2001:db8::/129', 'has a prefix longer than 128 bits'],
  ])('%s is a mistyped address: %s', (text, fault) => {
    expect(() => readBlockTarget(text)).toThrow(fault)
    expect(() => readBlockTarget(text)).toThrow('(the name of a login needs --login)')
  })

  test.each(['block', 'unblock', 'revoke'])('%s has the option --login', async verb => {
    await expect(readCommandLine([verb, '192.0.2.777'], {})).rejects.toThrow('needs --login')
    expect((await readCommandLine([verb, '--login', '192.0.2.777'], {})).kind).toBe('command')
  })

  test('a period', () => {
    expect(readPeriod(undefined)).toBeNull()
    expect(readPeriod('8h')).toBe(28_800)
    expect(() => readPeriod('soon')).toThrow('--for soon is not a duration')
  })
})

describe('the arguments and environment that up gives to its programs', () => {
  const environment = {
    PATH: '/bin',
    DBPASS: 'a',
    WRAP_DBPASS: 'b',
    NOTIFY_SOCKET: '/s',
    EXP_TIME: '60',
    GONE: undefined,
  }

  test('its environment, without the secrets of other programs and without variables of its supervisor', () => {
    expect(programEnvironment('popup', environment)).toEqual({ PATH: '/bin', EXP_TIME: '60' })
    expect(programEnvironment('authd', environment)).toEqual({ PATH: '/bin', EXP_TIME: '60', DBPASS: 'a' })
    expect(programEnvironment('wrap', environment)).toEqual({ PATH: '/bin', EXP_TIME: '60', WRAP_DBPASS: 'b' })
  })
})

test('a command line loads the verb that it names', async () => {
  const surroundings = { environment: {}, print: () => {}, isTerminal: false, columns: 80 }
  const { commands } = await commandTree(surroundings, () => {})
  const all = commands.map(command => command.name()).filter(name => name !== 'help')
  expect(all).toContain('up')
  for (const name of all) {
    const alone = await commandTree(surroundings, () => {}, [name])
    expect(alone.commands.map(command => command.name())).toEqual([name])
  }
})

test.each(SHELLS)('the completion of %s offers every verb with its options', async shell => {
  const surroundings = { environment: {}, print: () => {}, isTerminal: false, columns: 80 }
  const program = await commandTree(surroundings, () => {})
  const script = shellCompletion(shell, program)
  for (const { commands, options } of [
    program,
    ...program.commands,
    ...program.commands.flatMap(verb => verb.commands),
  ]) {
    for (const command of commands) expect(script).toContain(command.name())
    for (const { long } of options) expect(script).toContain(long?.replace('--', ''))
  }
})
