import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { isRoot, makeMaildir, OWNER, parseFile, stateOf } from '../../harness/pop3/maildir.ts'
import { NODE, PROGRAM } from '../../harness/pop3/pop3d.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const owner = isRoot ? OWNER : {}

/** Runs `pop3d ARGS` with this input on descriptor 0. */
function pop3d(
  args: readonly string[],
  input: string,
  env: Readonly<Record<string, string>> = {},
  ids: object = owner,
) {
  const { status, stdout, stderr } = spawnSync(NODE, [PROGRAM, ...args], {
    input,
    env: { PATH: process.env['PATH'] ?? '', AUTHRELAY_ANNOUNCED: '1', ...env },
    cwd: root.path,
    encoding: 'latin1',
    ...ids,
  })
  return { status, stdout, stderr }
}

const maildirOf = (...files: readonly string[]) => makeMaildir(root.path, files.map(parseFile))

describe('pop3d MAILDIR', () => {
  test('serves a session on pipes, and resolves a path from the current directory', () => {
    const maildir = maildirOf('new/A "x\\n"')
    const relative = maildir.slice(root.path.length + 1)
    expect(pop3d([relative], 'RETR 1\r\nQUIT\r\n')).toEqual({
      status: 0,
      stdout: '+OK \r\n+OK \r\nx\r\n.\r\n+OK \r\n',
      stderr: '',
    })
    expect(stateOf(maildir)).toEqual(['cur/A:2, "x\\n"'])
  })

  test('without QUIT ends with status 0 and removes nothing', () => {
    const maildir = maildirOf('new/A "x\\n"')
    expect(pop3d([maildir], 'DELE 1\r\n')).toEqual({ status: 0, stdout: '+OK \r\n+OK \r\n', stderr: '' })
    expect(stateOf(maildir)).toEqual(['new/A "x\\n"'])
  })

  test('answers -ERR for a user without a maildrop, with status 0', () => {
    const refused = { status: 0, stdout: '-ERR this user has no $HOME/Maildir\r\n', stderr: '' }
    expect(pop3d([], '')).toEqual(refused)
    expect(pop3d(['nonexistent'], '')).toEqual(refused)
  })

  test.runIf(isRoot)('serves no session as uid 0: status 111, because the set-up is wrong, and no reply', () => {
    expect(pop3d([maildirOf()], 'QUIT\r\n', {}, {})).toEqual({
      status: 111,
      stdout: '',
      stderr: 'qmail-pop3d invoked as uid 0, terminating\n',
    })
  })

  test('reads COMPAT, SIZES and EXTRA_BLANK from the environment, and names their faults', () => {
    const maildir = maildirOf('cur/A "x\\n"')
    const sizeWith = (env: Readonly<Record<string, string>>) => pop3d([maildir], 'STAT\r\n', env).stdout
    expect(sizeWith({})).toBe('+OK \r\n+OK 1 3\r\n')
    expect(sizeWith({ SIZES: 'file' })).toBe('+OK \r\n+OK 1 2\r\n')
    expect(sizeWith({ COMPAT: 'qmail' })).toBe('+OK \r\n+OK 1 2\r\n')
    expect(sizeWith({ COMPAT: 'qmail', SIZES: 'wire' })).toBe('+OK \r\n+OK 1 3\r\n')
    const readWith = (env: Readonly<Record<string, string>>) => pop3d([maildir], 'RETR 1\r\n', env).stdout
    const [plain, blank] = ['+OK \r\n+OK \r\nx\r\n.\r\n', '+OK \r\n+OK \r\nx\r\n\r\n.\r\n']
    expect(readWith({})).toBe(plain)
    expect(readWith({ EXTRA_BLANK: '1' })).toBe(blank)
    expect(readWith({ COMPAT: 'qmail' })).toBe(blank)
    expect(readWith({ COMPAT: 'qmail', EXTRA_BLANK: '0' })).toBe(plain)
    const wrong = pop3d([maildir], '', { SIZES: 'huge', COMPAT: 'courier' })
    expect(wrong.status).toBe(100)
    expect(wrong.stderr).toBe(
      'pop3d: environment COMPAT: must be one of "none", "qmail"\npop3d: environment SIZES: must be one of "wire", "file"\n',
    )
  })

  test('logs the login of a foreign popup before anything else, with or without messages', () => {
    const environment = {
      AUTHRELAY_ANNOUNCED: '',
      TCPREMOTEIP: '::ffff:192.0.2.7',
      AUTHRELAY_LOGIN: 'a b@example.org',
      AUTHRELAY_METHOD: 'apop',
      AUTHRELAY_TLS: '1',
      USER: 'ann',
    }
    const line =
      /^qmail-pop3d\[\d+\]: authrelay v=1 ev=login ip=192\.0\.2\.7 tls=1 method=apop user=a%20b@example\.org\n$/
    expect(pop3d([maildirOf()], 'QUIT\r\n', environment).stderr).toMatch(line)
    expect(pop3d(['nonexistent'], '', environment).stderr).toMatch(line)
    expect(pop3d([], '', { AUTHRELAY_ANNOUNCED: '', USER: 'ann' }).stderr).toMatch(
      / authrelay v=1 ev=login ip=unknown tls=0 method=pass user=ann\n$/,
    )
    expect(pop3d([], '', { ...environment, AUTHRELAY_ANNOUNCED: '1' }).stderr).toBe('')
  })

  test('ends when QUIT is answered, even if its input stays open', async () => {
    const child = spawn(NODE, [PROGRAM, maildirOf()], { ...owner, env: { AUTHRELAY_ANNOUNCED: '1' } })
    child.stdin.write('QUIT\r\n')
    const { promise, resolve } = Promise.withResolvers<number | null>()
    child.once('exit', resolve)
    expect(await promise).toBe(0)
  })

  test('answers --help and --version, and refuses unknown arguments', () => {
    expect(pop3d(['--help'], '').stdout).toMatch(/^Usage: pop3d MAILDIR/)
    expect(pop3d(['--version'], '')).toMatchObject({ status: 0, stderr: '' })
    expect(pop3d(['--nonsense'], '')).toMatchObject({ status: 100, stdout: '' })
  })

  test('the entry file is small, because it only starts the program', () => {
    const main = readFileSync(new URL('../../../src/pop3d/main.ts', import.meta.url), 'utf8')
    expect(main.split('\n').length).toBeLessThan(40)
  })
})
