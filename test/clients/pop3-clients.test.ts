import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { type PopupStack, startPopup } from '../harness/pop3/popup-stack.ts'
import { makeCertificate } from '../harness/pop3/sslwrap.ts'
import { type Program, run } from '../harness/processes/program.ts'
import { command, DEBIAN_PYTHON, describeWith, PYTHON } from '../harness/runner/describe-with.ts'
import { TEST_PASSWORD } from '../harness/stack.ts'

const NEEDS = [
  command('curl'),
  command('fetchmail'),
  command('mpop'),
  command('getmail', 'getmail6'),
  command('s-nail'),
  DEBIAN_PYTHON,
  command('openssl'),
]

/**
 * A message that exceeds one packet, with lines that begin with dots and a last line without an
 * end.
 */
const MESSAGE = `Subject: message\n\n${'.dots\n..\n.\nlong line '.repeat(400)}the end`
const isRoot = process.geteuid?.() === 0
/** getmail refuses to deliver as root. */
const NOBODY = { uid: 65_534, gid: 65_534 }
const asNobody = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : []

describeWith(NEEDS, 'POP3 clients of Debian', () => {
  let running: PopupStack
  let pop3: number
  let pop3s: number
  let home: string

  beforeAll(async () => {
    running = await startPopup(
      stack => {
        makeCertificate(`${stack.directory}/tls`, { names: ['mx.example.org'] })
        stack.account('post', [MESSAGE, MESSAGE])
        stack.account(
          'many',
          Array.from({ length: 10_000 }, (_, number) => `Subject: ${number}\n\nletter\n`),
        )
        return {
          apop_file: stack.secret('apop', ['ann', 'bob', 'post'].map(name => `${name}:${TEST_PASSWORD}`).join('\n')),
          stls: true,
          stls_cert: `${stack.directory}/tls.crt`,
          stls_key: `${stack.directory}/tls.key`,
        }
      },
      { grants: {} },
    )
    pop3 = running.stack.port('popup')
    running.stack.configure({
      sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: `127.0.0.1:${pop3}` }] },
    })
    await running.stack.start('sslwrap')
    pop3s = running.stack.port('sslwrap')
    home = `${running.stack.directory}/home`
    mkdirSync(home, { mode: 0o755 })
    if (isRoot) chownSync(home, NOBODY.uid, NOBODY.gid)
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterAll(() => running.stop())

  /** Runs a client until it ends; it must exit with status 0. */
  const client = async (...words: readonly string[]): Promise<Program> => {
    const ended = await run(words, { env: { HOME: home, LC_ALL: 'C.UTF-8' }, cwd: home })
    expect(ended.ending, ended.transcript()).toEqual({ code: 0, signal: null })
    return ended
  }
  /** A file that only its owner can read. */
  const settings = (name: string, lines: readonly string[], ownedByNobody = false): string => {
    const path = `${home}/${name}`
    writeFileSync(path, `${lines.join('\n')}\n`)
    chmodSync(path, 0o600)
    if (ownedByNobody && isRoot) chownSync(path, NOBODY.uid, NOBODY.gid)
    return path
  }
  /** The last login event that popup sent. */
  const lastEvent = () => running.authd.events.at(-1)

  test.each([
    ['plain', () => [`pop3://127.0.0.1:${pop3}/1`], { tls: false, method: 'sasl' }],
    ['APOP', () => [`pop3://127.0.0.1:${pop3}/1`, '--login-options', 'AUTH=+APOP'], { tls: false, method: 'apop' }],
    ['STLS', () => [`pop3://127.0.0.1:${pop3}/1`, '--ssl-reqd', '-k'], { tls: true }],
    ['pop3s through sslwrap', () => [`pop3s://127.0.0.1:${pop3s}/1`, '-k'], { tls: true }],
  ])('curl, %s', async (_, words, event) => {
    const { lines } = await client('curl', '-sS', '--max-time', '30', '-u', `post:${TEST_PASSWORD}`, ...words())
    expect(`${lines.join('\n').trimEnd()}`).toBe(MESSAGE)
    expect(lastEvent()).toMatchObject({ user: 'post', ...event })
  })

  test('curl lists 10,000 messages and reads one of them', async () => {
    const words = ['curl', '-sS', '--max-time', '30', '-u', `many:${TEST_PASSWORD}`]
    const { lines } = await client(...words, `pop3://127.0.0.1:${pop3}/`)
    expect(lines.filter(line => /^\d+ \d+$/.test(line))).toHaveLength(10_000)
    const ids = await client(...words, '-X', 'UIDL', `pop3://127.0.0.1:${pop3}/`)
    expect(new Set(ids.lines.map(line => line.split(' ')[1])).size).toBe(10_000)
    expect((await client(...words, `pop3://127.0.0.1:${pop3}/10000`)).lines).toContain('Subject: 9999')
  })

  test.each([
    ['plain', 'pop3', () => pop3, 'sslproto ""', false],
    ['APOP', 'apop', () => pop3, 'sslproto ""', false],
    ['STLS', 'pop3', () => pop3, 'sslproto "TLS1+" no sslcertck', true],
    ['pop3s through sslwrap', 'pop3', () => pop3s, 'ssl no sslcertck', true],
  ] as const)('fetchmail, %s', async (name, protocol, port, tls, isTls) => {
    const box = `${home}/fetchmail-${name.replaceAll(' ', '-')}`
    const rc = settings('fetchmailrc', [
      `poll 127.0.0.1 protocol ${protocol} port ${port()} user post password ${TEST_PASSWORD} keep fetchall ${tls}`,
    ])
    await client('fetchmail', '-f', rc, '--nosyslog', '-N', '--pidfile', `${home}/pid`, '--mda', `/bin/cat >> ${box}`)
    expect(readFileSync(box, 'utf8').match(/the end$/gm)).toHaveLength(2)
    expect(lastEvent()).toMatchObject({ user: 'post', tls: isTls, ...(protocol === 'apop' ? { method: 'apop' } : {}) })
  })

  test.each([
    ['pipelined, plain', () => [`port ${pop3}`, 'tls off', 'auth user'], 'pass'],
    ['pipelined, APOP', () => [`port ${pop3}`, 'tls off', 'auth apop'], 'apop'],
    [
      'pipelined, STLS, SASL',
      () => [`port ${pop3}`, 'tls on', 'tls_starttls on', 'tls_certcheck off', 'auth plain'],
      'sasl',
    ],
    [
      'pipelined, pop3s',
      () => [`port ${pop3s}`, 'tls on', 'tls_starttls off', 'tls_certcheck off', 'auth user'],
      'pass',
    ],
  ])('mpop, %s', async (name, lines, method) => {
    const box = `${home}/mpop-${name.replaceAll(/[ ,]+/g, '-')}`
    const rc = settings('mpoprc', [
      ...['account post', 'host 127.0.0.1', ...lines(), 'user post', `password ${TEST_PASSWORD}`],
      ...['pipelining on', 'keep on', 'only_new off', `uidls_file ${home}/uidls`, `delivery mbox ${box}`],
    ])
    await client('mpop', '-C', rc, 'post')
    expect(readFileSync(box, 'utf8').match(/the end$/gm)).toHaveLength(2)
    expect(lastEvent()).toMatchObject({ user: 'post', method })
  })

  test('getmail6', async () => {
    for (const folder of ['', '/new', '/cur', '/tmp']) {
      mkdirSync(`${home}/getmail${folder}`)
      if (isRoot) chownSync(`${home}/getmail${folder}`, NOBODY.uid, NOBODY.gid)
    }
    const rc = settings(
      'getmailrc',
      [
        ...['[retriever]', 'type = SimplePOP3Retriever', 'server = 127.0.0.1', `port = ${pop3}`],
        ...['username = post', `password = ${TEST_PASSWORD}`],
        ...['[destination]', 'type = Maildir', `path = ${home}/getmail/`],
        ...['[options]', 'delete = false', 'read_all = false'],
      ],
      true,
    )
    const words = [...asNobody, 'getmail', `--getmaildir=${home}`, `--rcfile=${rc}`]
    await client(...words)
    expect(readdirSync(`${home}/getmail/new`)).toHaveLength(2)
    // getmail recognizes the messages by their unique-ids, which are the same in each session.
    await client(...words)
    expect(readdirSync(`${home}/getmail/new`)).toHaveLength(2)
  })

  test('s-nail reads a message', async () => {
    const words = ['-:/', '-Sv15-compat', '-f', `pop3://post:${TEST_PASSWORD}@127.0.0.1:${pop3}`]
    const ended = await run(['s-nail', ...words], { env: { HOME: home }, cwd: home, input: 'type 1\nexit\n' })
    expect(
      ended.lines.some(line => line.endsWith('the end')),
      ended.transcript(),
    ).toBe(true)
  })

  test('poplib of Python: every command, in clear text and after STLS', async () => {
    const script = settings('session.py', [
      'import poplib, ssl, sys',
      'for tls in (False, True):',
      '    box = poplib.POP3("127.0.0.1", int(sys.argv[1]), timeout=20)',
      '    if tls:',
      '        context = ssl._create_unverified_context()',
      '        box.stls(context)',
      '    assert "PIPELINING" in box.capa(), box.capa()',
      '    box.user("bob"); box.pass_(sys.argv[2])',
      '    assert box.stat()[0] == 2',
      '    sizes = [int(line.split()[1]) for line in box.list()[1]]',
      '    assert box.retr(1)[2] == sizes[0], (box.retr(1), sizes)',
      '    assert box.top(2, 0)[1][0].startswith(b"Subject:")',
      '    assert len({line.split()[1] for line in box.uidl()[1]}) == 2',
      '    box.noop(); box.dele(1)',
      '    assert box.stat()[0] == 1',
      '    box.rset()',
      '    assert box.stat()[0] == 2',
      '    box.quit()',
      'box = poplib.POP3("127.0.0.1", int(sys.argv[1]), timeout=20)',
      'try: box.apop("bob", "wrong")',
      'except poplib.error_proto as error: assert b"[AUTH]" in error.args[0], error',
      'else: raise AssertionError("a wrong password was taken")',
      'box.apop("bob", sys.argv[2]); box.dele(2); box.quit()',
      'box = poplib.POP3_SSL("127.0.0.1", int(sys.argv[3]), timeout=20, context=ssl._create_unverified_context())',
      'box.user("bob"); box.pass_(sys.argv[2]); assert box.stat()[0] == 1; box.quit()',
    ])
    await client(PYTHON, script, `${pop3}`, TEST_PASSWORD, `${pop3s}`)
    await eventually('one file is removed', () => readdirSync(`${running.bob.maildir}/cur`).length === 1)
  })
})
