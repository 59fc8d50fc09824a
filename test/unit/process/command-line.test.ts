import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { readCommandLine } from '../../../src/auth-relay/command-line.ts'
import { UsageFault } from '../../../src/base/errors.ts'
import { parseDaemonWords } from '../../../src/process/command-line.ts'
import { parseCommandLine as parseSslwrap } from '../../../src/sslwrap/command-line.ts'
import { parseCommandLine as parseWrap } from '../../../src/wrap/run-wrap.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const parse = (...args: readonly string[]) => parseDaemonWords('authd', 'Usage: authd\n', '/etc/x.toml', args)

test('the settings file: the default, or the path after a blank or an equals sign, made absolute', () => {
  expect(parse()).toEqual({ kind: 'serve', config: '/etc/x.toml' })
  expect(parse('--config', '/a.toml')).toEqual({ kind: 'serve', config: '/a.toml' })
  expect(parse('--config=/a.toml')).toEqual({ kind: 'serve', config: '/a.toml' })
  expect(parse('--config', 'a.toml')).toEqual({ kind: 'serve', config: join(process.cwd(), 'a.toml') })
})

test.each([
  [['--config'], '--config: the settings file is missing: write --config FILE, or see authd --help'],
  [['--config='], '--config: the settings file is missing: write --config FILE, or see authd --help'],
  [['--config', ''], '--config: the settings file is missing: write --config FILE, or see authd --help'],
  [['--config', '/a', 'b'], 'b: nothing may follow --config FILE: see authd --help'],
  [['--config=/a', 'b'], 'b: nothing may follow --config FILE: see authd --help'],
  [['--config=/a', '--bogus'], 'unknown option --bogus: see authd --help'],
  [['--confg', '/a'], 'unknown option --confg: see authd --help'],
])('%j is a fault', (args, fault) => {
  expect(() => parse(...args)).toThrow(new UsageFault(fault))
})

test('other arguments belong to the program; without a settings file --config is unknown', () => {
  expect(parse('host', '--', '--help')).toEqual({ kind: 'own' })
  expect(parseDaemonWords('popup', '', '/f', ['host', '--help'], [])).toEqual({ kind: 'own' })
  expect(parse('-P', 'host')).toEqual({ kind: 'own' })
  expect(parseDaemonWords('pop3d', '', undefined, [])).toEqual({ kind: 'own' })
  expect(() => parseDaemonWords('pop3d', '', undefined, ['--config', '/a'])).toThrow('unknown option --config')
})

// Each program is compiled once, not at each of its starts.
const compiled = temporaryDirectory()
afterAll(compiled.remove)

type Outcome = { readonly status: number; readonly stdout: string; readonly stderr: string }

/** Runs a program to its end, for the command lines that its main module parses. */
const run = (program: string, args: readonly string[]): Outcome => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(import.meta.dirname, `../../../src/${program}/main.ts`), ...args],
    { encoding: 'utf8', env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: compiled.path } },
  )
  return { status: status ?? -1, stdout, stderr }
}

/** The outcome of a parser: the text of help or version, or the fault as the program prints it. */
const outcomeOf = async (program: string, parse: () => Promise<string> | string): Promise<Outcome> => {
  try {
    return { status: 0, stdout: await parse(), stderr: '' }
  } catch (error) {
    if (!(error instanceof UsageFault)) throw error
    return { status: 100, stdout: '', stderr: error.faults.map(fault => `${program}: ${fault}\n`).join('') }
  }
}

const textOf = (invocation: { readonly kind: string; readonly text?: string }): string =>
  invocation.text ?? invocation.kind

async function printedBy(args: readonly string[]): Promise<string> {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  try {
    const action = await readCommandLine(args, {})
    if (action.kind === 'command') await action.run()
    return write.mock.calls.map(([text]) => String(text)).join('')
  } finally {
    write.mockRestore()
  }
}

// A process takes 0.2 s, so the programs with a parsing function start no process.
const PROGRAMS: Readonly<Record<string, (args: readonly string[]) => Promise<Outcome>>> = {
  authd: async args => run('authd', args),
  popup: async args => run('popup', args),
  pop3d: async args => run('pop3d', args),
  sslwrap: args => outcomeOf('sslwrap', () => textOf(parseSslwrap(args, {}))),
  wrap: args => outcomeOf('wrap', () => textOf(parseWrap(args))),
  'auth-relay': args => outcomeOf('auth-relay', () => printedBy(args)),
}

const CONFIG_TWICE = ['--config', '/nonexistent/a', '--config=/nonexistent/b']

/** The command lines of each program that print the help, the version, or a fault. */
test.each<
  [string, readonly (readonly string[])[], readonly string[], readonly string[], readonly string[] | undefined]
>([
  ['authd', [['-h'], ['x', '--help']], ['--config', '/f', '--version'], ['-x'], CONFIG_TWICE],
  ['popup', [['-P', '--help', 'x']], ['-V', 'x'], ['--confg', 'x'], CONFIG_TWICE],
  ['pop3d', [['--help', 'x']], ['--bogus', '--version'], ['--config', '/f'], undefined],
  [
    'sslwrap',
    [['-port', '110', '--help'], ['-h', '-exec', 'x'], ['--help']],
    ['-cert', '--version'],
    ['-port', '110', '-what'],
    CONFIG_TWICE,
  ],
  [
    'wrap',
    [
      ['--help', 'x'],
      ['--rules', '-h'],
      ['--listen', 'nowhere', '--help', '--', 'smtpd'],
    ],
    ['--bogus', '-V'],
    ['--listen', '*:25', '--bogus', '--', 'smtpd', '--help'],
    [...CONFIG_TWICE, '-c', '20'],
  ],
  [
    'auth-relay',
    [
      ['--help', 'x'],
      ['xyzzy', '-h'],
      ['show', '--jsno', '--help'],
      ['block', '--reason', '--help'],
    ],
    ['show', '--version'],
    ['show', '--bogus'],
    ['show', ...CONFIG_TWICE],
  ],
])(
  '%s: help and version override all other words, and two faults have one wording',
  async (program, helps, version, unknown, twice) => {
    const outcome = async (args: readonly string[]) => PROGRAMS[program]?.(args)
    for (const args of helps)
      expect(await outcome(args), args.join(' ')).toEqual({
        status: 0,
        stderr: '',
        stdout: expect.stringMatching(/^usage: /i),
      })
    expect(await outcome(version)).toEqual({
      status: 0,
      stderr: '',
      stdout: expect.stringMatching(new RegExp(`^${program} (\\(auth-relay\\) )?\\d+\\.\\d+\\.\\d+[^\n]*\n$`)),
    })
    const option = unknown.find(word => /^-(-?bogus|-confg|-config|what|x)$/.test(word))
    const command = program === 'auth-relay' ? 'auth-relay show' : program
    expect(await outcome(unknown)).toEqual({
      status: 100,
      stdout: '',
      stderr: `${program}: unknown option ${option}: see ${command} --help\n`,
    })
    if (twice === undefined) return
    expect(await outcome(twice)).toEqual({
      status: 100,
      stdout: '',
      stderr: `${program}: --config is given twice: name one settings file\n`,
    })
  },
)

test('the words of another program are not those of popup, of sslwrap or of wrap', () => {
  expect(run('popup', ['host', 'checker', '--help']).stdout).not.toMatch(/^usage: popup \[/i)
  expect(parseSslwrap(['-exec', 'x', '--help'], {}).kind).toBe('inetd')
  expect(parseWrap(['--listen', '*:25', '--', 'smtpd', '--help']).kind).toBe('daemon')
})

test.each(['sslwrap', 'wrap', 'auth-relay'])('%s prints its version and a fault', program => {
  expect(run(program, ['--version']).stdout).toMatch(/\d+\.\d+\.\d+/)
  const fault = run(program, ['--config', '/nonexistent.toml', ...(program === 'auth-relay' ? ['show'] : [])])
  expect(fault).toMatchObject({ status: 100, stdout: '' })
})
