import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { formatProxyLocal } from '../../../src/wire/preamble.ts'
import { AuthdDouble } from '../../harness/authd/authd-double.ts'
import { installBlock } from '../../harness/hosts/install-recipe.ts'
import { dial, MESSAGE, PASS, PopupClient } from '../../harness/pop3/popup-stack.ts'
import { Program } from '../../harness/processes/program.ts'
import { command, DEBIAN_PYTHON, describeWith } from '../../harness/runner/describe-with.ts'
import { commandOf, Stack, TEST_PASSWORD, type TestAccount } from '../../harness/stack.ts'

const CHECKER = new URL('../../harness/pop3/checkpassword.py', import.meta.url).pathname
const UCSPI = {
  PROTO: 'TCP',
  TCPLOCALIP: '192.0.2.1',
  TCPLOCALPORT: '110',
  TCPREMOTEIP: '192.0.2.7',
  TCPREMOTEPORT: '40000',
  SYSLOG: '0',
}

describeWith([DEBIAN_PYTHON], 'popup HOST CHECKER PROG… on descriptors 0 and 1', () => {
  let stack: Stack
  let ann: TestAccount
  let words: readonly string[]
  beforeAll(() => {
    stack = new Stack()
    ann = stack.account('ann', [MESSAGE])
    const accounts = `ann:${TEST_PASSWORD}:${ann.uid}:${ann.maildir.replace(/\/Maildir$/, '')}`
    words = [CHECKER, accounts, ...commandOf('pop3d', 'Maildir')]
  })
  afterAll(() => stack.stop())

  /**
   * Everything that popup answers to an input, with the msg-id replaced by a fixed one, and its
   * exit status.
   */
  const converse = (
    input: string,
    env: Readonly<Record<string, string>> = {},
    args: readonly string[] = ['pop.example.org', ...words],
  ) => {
    const [node = '', ...rest] = commandOf('popup', ...args)
    const { stdout, stderr, status } = spawnSync(node, rest, {
      input: Buffer.from(input, 'latin1'),
      env: { PATH: process.env['PATH'], ...UCSPI, ...env },
      timeout: 30_000,
    })
    return {
      replies: stdout.toString('latin1').replace(/<[^>]*@pop\.example\.org>/, '<ID>'),
      status,
      log: stderr.toString(),
    }
  }
  const qmail = { COMPAT: 'qmail' }

  test('a session with everything in one packet', () => {
    const { replies, status, log } = converse(`USER ann\r\n${PASS}\r\nSTAT\r\nQUIT\r\n`)
    expect(replies).toMatch(/^\+OK <ID>\r\n\+OK \r\n\+OK \r\n\+OK 1 \d+\r\n\+OK \r\n$/)
    expect(status).toBe(1)
    expect(log).toMatch(/event=login_accepted id=\S+ ip=192\.0\.2\.7 user=ann method=pass tls=0/)
  })

  // docs/spec/popup.md §3 and §4, octet for octet.
  test.each([
    ['QUIT', 'QUIT\r\n', '+OK \r\n'],
    ['end of input', '', ''],
    ['bare LF, any case', 'user ann\nnoop\nquit\n', '+OK \r\n+OK \r\n+OK \r\n'],
    ['no name', 'USER\r\n', '-ERR syntax error\r\n'],
    ['no USER', 'PASS x\r\n', '-ERR USER first\r\n'],
    ['no password', 'USER ann\r\nPASS\r\n', '+OK \r\n-ERR syntax error\r\n'],
    ['APOP without digest', 'APOP ann\r\n', '-ERR syntax error\r\n'],
    [
      'the commands that qmail-popup does not have',
      'CAPA\r\nAUTH\r\nSTLS\r\nSTAT\r\n\r\n QUIT\r\n',
      '-ERR authorization first\r\n'.repeat(6),
    ],
    ['a wrong password, once', 'USER ann\r\nPASS wrong\r\nUSER ann\r\n', '+OK \r\n-ERR authorization failed\r\n'],
    [
      'a temporary failure has the text of a wrong password',
      'USER temporary\r\nPASS x\r\n',
      '+OK \r\n-ERR authorization failed\r\n',
    ],
    ['a crash', 'USER crash\r\nPASS x\r\n', '+OK \r\n-ERR aack, child crashed\r\n'],
  ])('compat = "qmail": %s', (_, input, answer) => {
    const { replies, status } = converse(input, qmail)
    expect(replies).toBe(`+OK <ID>\r\n${answer}`)
    expect(status).toBe(1)
  })

  test('a crash after the login is logged with its cause', () => {
    const crashing = ['pop.example.org', 'sh', '-c', 'echo "+OK welcome"; kill -KILL $$']
    const { log } = converse(`USER ann\r\n${PASS}\r\n`, {}, crashing)
    expect(log).toMatch(/event=login_aborted id=\S+ ip=192\.0\.2\.7 reason="program killed by SIG[A-Z]+"/)
  })

  test('compat = "qmail": the greeting has the process id and the time', () => {
    const [node = '', ...rest] = commandOf('popup', 'pop.example.org', ...words)
    const { stdout, pid } = spawnSync(node, rest, { input: '', env: { PATH: process.env['PATH'], ...UCSPI, ...qmail } })
    const [, id, seconds] = /^\+OK <(\d+)\.(\d+)@pop\.example\.org>\r\n$/.exec(stdout.toString()) ?? []
    expect(Number(id)).toBe(pid)
    expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(120)
  })

  test('compat = "qmail": a program that exits 0 without output closes the connection without a reply', () => {
    const { replies } = converse('USER ann\r\nPASS x\r\n', qmail, ['pop.example.org', 'true'])
    expect(replies).toBe('+OK <ID>\r\n+OK \r\n')
  })

  test('a program that exits 0 without output is not a login', () => {
    const { replies, log } = converse('USER ann\r\nPASS x\r\n', {}, ['pop.example.org', 'true'])
    expect(replies).toContain('-ERR [SYS/TEMP]')
    expect(log).not.toContain('event=login_accepted')
  })

  test('a program whose first line is not +OK is not a login, and the log has the line', () => {
    const chatty = ['pop.example.org', 'sh', '-c', 'echo "Last login: today"; echo "+OK welcome"']
    const { replies, log } = converse(`USER ann\r\n${PASS}\r\n`, {}, chatty)
    expect(replies).toContain('Last login: today\n+OK welcome\n')
    expect(log).toMatch(
      /event=login_failed .*reason=temp detail="the first line from checker and program is no \+OK: Last login: today"/,
    )
    expect(log).not.toContain('event=login_accepted ')
  })

  test('wrong usage is reported to the client', () => {
    expect(converse('', {}, ['pop.example.org'])).toMatchObject({
      replies: '-ERR usage: popup hostname subprogram\r\n',
      status: 1,
    })
  })

  test('a second try after a wrong password', () => {
    const { replies } = converse(`USER ann\r\nPASS wrong\r\nUSER ann\r\n${PASS}\r\nQUIT\r\n`)
    expect(replies).toBe('+OK <ID>\r\n+OK \r\n-ERR [AUTH] authorization failed\r\n+OK \r\n+OK \r\n+OK \r\n')
  })

  describe('the variables of the program', () => {
    const environmentOf = (input: string, env: Readonly<Record<string, string>>, args: readonly string[] = []) => {
      mkdirSync(`${stack.directory}/record`, { recursive: true, mode: 0o777 })
      const file = `${stack.directory}/record/${Math.random().toString(36).slice(2)}`
      const show = ['sh', '-c', `tr '\\0' '\\n' < /proc/self/environ > ${file}; echo "+OK "`]
      // Not the checker of the tests, which needs the right to write in the directory.
      writeFileSync(`${stack.directory}/yes.sh`, '#!/bin/sh\ncat <&3 >/dev/null\nexec "$@"\n', { mode: 0o755 })
      converse(input, env, [...args, 'pop.example.org', `${stack.directory}/yes.sh`, ...show])
      return Object.fromEntries(
        readFileSync(file, 'utf8')
          .split('\n')
          .filter(line => line.includes('='))
          .map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
      )
    }

    test('the login as typed, the method, and that it is announced', () => {
      const seen = environmentOf('USER Ann@Example.org\r\nPASS x\r\n', { TCPREMOTEHOST: 'client.example.org' })
      expect(seen).toMatchObject({
        AUTHRELAY_LOGIN: 'Ann@Example.org',
        AUTHRELAY_METHOD: 'pass',
        AUTHRELAY_ANNOUNCED: '1',
        TCPREMOTEIP: '192.0.2.7',
        TCPREMOTEHOST: 'client.example.org',
      })
      expect(seen).not.toHaveProperty('AUTHRELAY_TLS')
    })

    test('the client that a proxy named with the SSL command', () => {
      const env = {
        SSL_HACK_PASS: `${stack.directory}/sslhack.pass`,
        SSL_HACK_TRUST: '192.0.2.7',
        TCPREMOTEHOST: 'proxy.example.org',
        TCPREMOTEINFO: 'root',
      }
      const seen = environmentOf('SSL [2001:db8::9]:preamble of this test\r\nUSER ann\r\nPASS x\r\n', env)
      expect(seen).toMatchObject({
        TCPREMOTEIP: '2001:db8::9',
        AUTHRELAY_TLS: '1',
        AUTHRELAY_PROXYIP: '192.0.2.7',
        TCPLOCALIP: '192.0.2.1',
        TCPLOCALPORT: '110',
      })
      for (const name of ['TCPREMOTEHOST', 'TCPREMOTEINFO', 'TCPREMOTEPORT']) expect(seen).not.toHaveProperty(name)
    })

    test('the client that a PROXY header named (-P)', () => {
      const header = 'PROXY TCP4 198.51.100.4 198.51.100.1 50000 995\r\n'
      const seen = environmentOf(`${header}USER ann\r\nPASS x\r\n`, { PROXY_TRUST: '192.0.2.0/24' }, ['-P'])
      expect(seen).toMatchObject({
        TCPREMOTEIP: '198.51.100.4',
        TCPREMOTEPORT: '50000',
        TCPLOCALIP: '198.51.100.1',
        TCPLOCALPORT: '995',
        AUTHRELAY_PROXYIP: '192.0.2.7',
      })
    })
  })

  test('a PROXY header from a peer that is not listed does not count', () => {
    const { replies, log } = converse('PROXY TCP4 198.51.100.4 198.51.100.1 50000 995\r\n', {}, [
      '-P',
      'pop.example.org',
      ...words,
    ])
    expect(replies).toBe('')
    expect(log).toContain('event=proxy_refused')
  })

  test.each<[string, string, Readonly<Record<string, string>>, readonly string[]]>([
    ['PROXY LOCAL', formatProxyLocal().toString('latin1'), { PROXY_TRUST: '192.0.2.7' }, ['-P']],
    [
      'a header that names the proxy',
      'PROXY TCP4 192.0.2.7 192.0.2.1 50000 110\r\n',
      { PROXY_TRUST: '192.0.2.0/24' },
      ['-P'],
    ],
    ['no preamble from a proxy that may send one', '', { SSL_HACK_TRUST: '127.0.0.0/8, 192.0.2.7' }, []],
    ['the mapped form of its address', '', { SSL_HACK_TRUST: '192.0.2.7', TCPREMOTEIP: '::ffff:192.0.2.7' }, []],
  ])('%s: the session continues, and the login is not announced', (_, header, env, options) => {
    const authd = { AUTHD_SOCKET: `${stack.directory}/run/nobody-listens.sock`, GRANT_WAIT: '10000' }
    const { replies, log } = converse(`${header}USER ann\r\n${PASS}\r\nSTAT\r\nQUIT\r\n`, { ...env, ...authd }, [
      ...options,
      'pop.example.org',
      ...words,
    ])
    expect(replies).toMatch(/^\+OK <ID>\r\n\+OK \r\n\+OK \r\n\+OK 1 \d+\r\n\+OK \r\n$/)
    expect(log).toMatch(
      /event=login_accepted id=\S+ ip=192\.0\.2\.7 user=ann method=pass tls=0 grant=refused reason=proxy\n/,
    )
    // An event would have been kept for authd, and lost at the end of the process.
    expect(log).not.toContain('login_events_lost')
  })

  test('AUTHD_SOCKET: the login is announced there, and +OK waits', async () => {
    const authd = await AuthdDouble.listen(`${stack.directory}/run/authd.sock`)
    authd.answer = () => undefined
    const program = new Program('popup', commandOf('popup', 'pop.example.org', ...words), {
      env: { ...UCSPI, AUTHD_SOCKET: `${stack.directory}/run/authd.sock` },
    })
    program.child.stdin?.write(`USER ann\r\n${PASS}\r\n`)
    const { id, ip } = await authd.event('ann')
    expect(ip).toBe('192.0.2.7')
    expect(program.lines.filter(line => line.startsWith('+OK'))).toHaveLength(2)
    authd.say({ verdict: 'committed', id, until: 2_000_000_000 })
    await program.waitFor(
      'popup sends the third +OK',
      () => program.lines.filter(line => line.startsWith('+OK')).length === 3,
    )
    program.child.stdin?.end('QUIT\r\n')
    expect(await program.ended).toEqual({ code: 1, signal: null })
    await authd.stop()
  })

  test('without an address no login is announced', () => {
    const { replies, log } = converse(`USER ann\r\n${PASS}\r\nQUIT\r\n`, { TCPREMOTEIP: 'localhost' })
    expect(replies).toMatch(/\+OK \r\n\+OK \r\n$/)
    expect(log).toContain('ip=unknown')
  })

  test('the login line goes to syslog with the tag that the recognizer expects', () => {
    mkdirSync(`${stack.directory}/bin`, { recursive: true })
    writeFileSync(
      `${stack.directory}/bin/logger`,
      `#!/bin/sh\nwhile IFS= read -r line; do printf '%s|%s\\n' "$*" "$line" >> ${stack.directory}/logged; done\n`,
      { mode: 0o755 },
    )
    converse(`USER ann\r\nPASS wrong\r\nUSER ann\r\n${PASS}\r\nQUIT\r\n`, {
      SYSLOG: '1',
      PATH: `${stack.directory}/bin:${process.env['PATH']}`,
    })
    const lines = readFileSync(`${stack.directory}/logged`, 'utf8').trim().split('\n').sort()
    expect(lines).toEqual([
      expect.stringMatching(
        /^-t qmail-pop3d -p mail\.info --id=\d+\|authrelay v=1 ev=login ip=192\.0\.2\.7 tls=0 method=pass user=ann$/,
      ),
      expect.stringMatching(
        /^-t qmail-popup -p mail\.notice --id=\d+\|authrelay v=1 ev=fail ip=192\.0\.2\.7 tls=0 method=pass reason=badauth user=ann$/,
      ),
    ])
  })

  describeWith([command('tcpserver', 'ucspi-tcp')], 'under a real tcpserver', () => {
    test('serves connections with the run script of INSTALL', async () => {
      const recipe = { section: 'qmail and notqmail', language: 'sh', marker: 'exec tcpserver' }
      const quoted = (all: readonly string[]): string => all.map(word => `'${word}'`).join(' ')
      const script = installBlock(recipe, {
        'tcpserver -v -R 0 110 popup': `tcpserver -1 -v -H -R -l0 127.0.0.1 0 ${quoted(commandOf('popup'))}`,
        'checkpassword pop3d Maildir': quoted(words),
      })
      const server = new Program('tcpserver', ['sh', '-c', script], { env: { SYSLOG: '0' } })
      const port = Number(await server.waitForLine(/^\d+$/))
      for (let round = 0; round < 2; round++) {
        const session = new PopupClient(dial(port))
        await session.login('ann')
        await session.ask('STAT', /^\+OK 1 /)
        await session.quit()
      }
      await server.stop()
    })
  })
})
