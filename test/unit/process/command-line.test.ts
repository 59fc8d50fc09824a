import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { UsageFault } from '../../../src/base/errors.ts'
import { parseDaemonWords } from '../../../src/process/command-line.ts'
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
  [['--confg', '/a'], 'unknown option --confg: see authd --help'],
])('%j is a fault', (args, fault) => {
  expect(() => parse(...args)).toThrow(new UsageFault(fault))
})

test('other arguments belong to the program; without a settings file --config is unknown', () => {
  expect(parse('host', '--help')).toEqual({ kind: 'own' })
  expect(parse('-P', 'host')).toEqual({ kind: 'own' })
  expect(parseDaemonWords('pop3d', '', undefined, [])).toEqual({ kind: 'own' })
  expect(() => parseDaemonWords('pop3d', '', undefined, ['--config', '/a'])).toThrow('unknown option --config')
})

// Each program is compiled once, not at each of its starts.
const compiled = temporaryDirectory()
afterAll(compiled.remove)

describe.each(['authd', 'popup', 'sslwrap', 'wrap', 'pop3d'])('%s', program => {
  const hasSettings = program !== 'pop3d'
  const run = (...args: readonly string[]) =>
    spawnSync(process.execPath, [join(import.meta.dirname, `../../../src/${program}/main.ts`), ...args], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: compiled.path },
    })

  test('help and version, in long and short form, on standard output', () => {
    for (const word of ['--help', '-h'])
      expect(run(word)).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(/^usage: /i) })
    for (const word of ['--version', '-V'])
      expect(run(word)).toMatchObject({
        status: 0,
        stderr: '',
        stdout: expect.stringMatching(new RegExp(`^${program} \\(auth-relay\\) \\d+\\.\\d+\\.\\d+`)),
      })
  })

  test('--config without a file, and with one that does not exist', () => {
    if (!hasSettings) {
      expect(run('--config', '/f')).toMatchObject({
        status: 100,
        stderr: 'pop3d: unknown option --config: see pop3d --help\n',
      })
      return
    }
    for (const args of [['--config'], ['--config=']])
      expect(run(...args)).toMatchObject({
        status: 100,
        stdout: '',
        stderr: `${program}: --config: the settings file is missing: write --config FILE, or see ${program} --help\n`,
      })
    for (const args of [['--config', '/nonexistent.toml'], ['--config=/nonexistent.toml']])
      expect(run(...args)).toMatchObject({
        status: 100,
        stdout: '',
        stderr: expect.stringMatching(new RegExp(`^${program}: .*/nonexistent\\.toml`)),
      })
  })

  test('an unknown option', () => {
    expect(run('--confg', 'x')).toMatchObject({
      status: 100,
      stdout: '',
      stderr: expect.stringMatching(new RegExp(`^${program}: .*--confg.* see ${program} --help\\n$`)),
    })
  })
})
