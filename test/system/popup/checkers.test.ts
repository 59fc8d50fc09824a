import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { stringify } from 'smol-toml'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { createLog } from '../../../src/base/log.ts'
import { CheckQueue } from '../../../src/popup/checkers/check-queue.ts'
import type { CheckRequest } from '../../../src/popup/checkers/checker.ts'
import { AuthenticationCache } from '../../../src/popup/checkers/password-hash.ts'
import { sqlChecker } from '../../../src/popup/checkers/sql.ts'
import { ClientDisconnect } from '../../../src/popup/client-disconnect.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { loginOctets } from '../../../src/wire/login-event.ts'
import { eventually } from '../../harness/eventually.ts'
import { PASS, type PopupStack, startPopup } from '../../harness/pop3/popup-stack.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { DEBIAN_PYTHON, describeWith } from '../../harness/runner/describe-with.ts'
import { commandOf, type Stack, TEST_PASSWORD } from '../../harness/stack.ts'

const CHECKER = new URL('../../harness/pop3/checkpassword.py', import.meta.url).pathname
const uid = (offset: number): number => (process.geteuid?.() === 0 ? 61221 + offset : (process.getuid?.() ?? 0))
const home = (stack: Stack, user: string): string => `${stack.directory}/mail/${user}`

/** Command line of the test's checker, with the accounts that it knows. */
const checker = (stack: Stack): string[] => [
  CHECKER,
  [
    `ann:${TEST_PASSWORD}:${uid(0)}:${home(stack, 'ann')}`,
    `bob:${TEST_PASSWORD}:${uid(1)}:${home(stack, 'bob')}`,
    `root:${TEST_PASSWORD}:0:${home(stack, 'ann')}`,
  ].join(','),
]

/** Tests for every checker that is a program. `start` starts popup with a `check_timeout` (s). */
function refusals(running: () => PopupStack, start: (checkTimeout: number) => Promise<PopupStack>): void {
  const refuse = async (stack: PopupStack, user: string, password: string, answer: RegExp, reason: string) => {
    const session = stack.client()
    await session.expect(/^\+OK </)
    await session.ask(`USER ${user}`, /^\+OK/)
    await session.ask(`PASS ${password}`, answer)
    await stack.stack.waitForLog('popup', { event: 'login_failed', user, reason })
  }

  test.each([
    ['a wrong password', 'ann', 'wrong', /^-ERR \[AUTH\] authorization failed$/, 'badauth'],
    ['exit status 111', 'temporary', 'x', /^-ERR \[SYS\/TEMP\] temporary authentication failure$/, 'temp'],
    ['exit status 2', 'misuse', 'x', /^-ERR \[SYS\/TEMP\] temporary authentication failure$/, 'temp'],
    ['more than 512 octets', 'ann', 'x'.repeat(490), /^-ERR \[AUTH\] authorization failed$/, 'toolong'],
    ['a checker that is killed', 'crash', 'x', /^-ERR \[SYS\/TEMP\] aack, child crashed$/, 'crash'],
  ])('%s', (_, user, password, answer, reason) => refuse(running(), user, password, answer, reason))

  test('a checker that does not answer', async () => {
    const impatient = await start(1)
    try {
      await refuse(impatient, 'sleep', 'x', /^-ERR \[SYS\/TEMP\]/, 'temp')
    } finally {
      impatient.closeClients()
      await impatient.stop()
    }
  })
}

describeWith([DEBIAN_PYTHON], 'checker = "checkpassword"', () => {
  let running: PopupStack
  const start = (checkTimeout: number): Promise<PopupStack> =>
    startPopup(stack => ({
      checker: 'checkpassword',
      checkpassword: checker(stack),
      check_timeout: checkTimeout,
    }))
  beforeAll(async () => {
    running = await start(60)
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())

  test('the maildrop is the directory in which the checker would have run the server', async () => {
    for (const [user, count] of [
      ['ann', 1],
      ['bob', 2],
    ] as const) {
      const session = running.client()
      await session.login(user)
      await session.ask('STAT', new RegExp(`^\\+OK ${count} `))
      await session.quit()
    }
  })

  test('a checker that keeps uid 0 opens no session', async () => {
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask('USER root', /^\+OK/)
    await session.ask(PASS, /^-ERR \[AUTH\]/)
  })

  refusals(() => running, start)
})

describeWith([DEBIAN_PYTHON], 'checker = "chain"', () => {
  let running: PopupStack
  const start = (checkTimeout: number): Promise<PopupStack> =>
    startPopup(stack => ({
      checker: 'chain',
      checkpassword: checker(stack),
      chain: ['env', `RECORD=${stack.directory}/mail/record`, ...commandOf('pop3d', 'Maildir')],
      check_timeout: checkTimeout,
    }))
  beforeAll(async () => {
    running = await start(60)
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(() => running.stop())

  test('the server behind the checker serves, and receives the octets that the client sent ahead', async () => {
    const session = running.client()
    session.write(`USER bob\r\n${PASS}\r\nSTAT\r\nQUIT\r\n`)
    for (const pattern of [/^\+OK </, /^\+OK $/, /^\+OK $/, /^\+OK 2 /, /^\+OK/]) await session.expect(pattern)
    await session.expectEnd()
    expect(running.authd.events.filter(({ user }) => user === 'bob')).toHaveLength(1)
  })

  test('its +OK is held back until the grant is committed', async () => {
    running.authd.answer = () => undefined
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask('USER ann', /^\+OK/)
    session.say(PASS)
    const { id } = await running.authd.event('ann')
    const committed = performance.now()
    running.authd.say({ verdict: 'committed', id, until: 2_000_000_000 })
    expect((await session.expect(/^\+OK/)).at).toBeGreaterThan(committed)
    running.authd.answer = event => ({ verdict: 'committed', id: event.id, until: 2_000_000_000 })
    await session.ask('STAT', /^\+OK 1 /)
    await session.quit()
  })

  test('many sessions at once do not mix', async () => {
    const sessions = Array.from({ length: 8 }, (_, i) => ({
      session: running.client(),
      user: i % 2 === 0 ? 'ann' : 'bob',
    }))
    await Promise.all(
      sessions.map(async ({ session, user }) => {
        await session.login(user)
        await session.ask('STAT', user === 'ann' ? /^\+OK 1 / : /^\+OK 2 /)
        await session.quit()
      }),
    )
  })

  refusals(() => running, start)
})

describe('checker = "upstream"', () => {
  let behind: PopupStack
  let running: PopupStack
  beforeAll(async () => {
    behind = await startPopup({ listen: ['127.0.0.1:0'] })
    running = await startPopup({
      checker: 'upstream',
      upstream: `127.0.0.1:${behind.stack.port('popup', 0, 'proxy_listen')}`,
      upstream_proxy: true,
    })
  })
  beforeEach(() => {
    running.stack.showLogsOnFailure()
    behind.stack.showLogsOnFailure()
  })
  afterEach(() => running.closeClients())
  afterAll(async () => {
    await running.stop()
    await behind.stop()
  })

  test('the server behind popup decides and serves, and receives the address of the client', async () => {
    const session = running.client('127.0.0.9')
    session.write(`USER bob\r\n${PASS}\r\nSTAT\r\nRETR 1\r\nQUIT\r\n`)
    for (const pattern of [/^\+OK </, /^\+OK $/, /^\+OK $/, /^\+OK 2 /, /^\+OK/]) await session.expect(pattern)
    expect(await session.expectLinesToDot()).toContain('At noon?')
    await session.expect(/^\+OK/)
    await session.expectEnd()
    const [seenBehind, seen] = [await behind.authd.event('bob'), await running.authd.event('bob')]
    expect(seenBehind).toMatchObject({ ip: '127.0.0.9', id: seen.id })
  })

  test('AUTH PLAIN reaches the server as USER and PASS; a password with a line break is refused', async () => {
    const session = running.client()
    await session.expect(/^\+OK </)
    const plain = (secret: string): string => Buffer.from(`\0ann\0${secret}`).toString('base64')
    await session.ask(`AUTH PLAIN ${plain('wrong\r\nQUIT')}`, /^-ERR \[AUTH\]/)
    await session.ask(`AUTH PLAIN ${plain('wrong')}`, /^-ERR \[AUTH\]/)
    await session.ask(`AUTH PLAIN ${plain(TEST_PASSWORD)}`, /^\+OK/)
    await session.ask('STAT', /^\+OK 1 /)
    await session.quit()
  })

  test('an unreachable server is a temporary failure', async () => {
    const port = behind.stack.port('popup', 0, 'proxy_listen')
    await behind.stack.stopPrograms()
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask('USER ann', /^\+OK/)
    await session.ask(PASS, /^-ERR \[SYS\/TEMP\]/)
    expect(port).toBeGreaterThan(0)
  })
})

describe('checker = "sql"', () => {
  let database: TestDatabase
  let running: PopupStack
  beforeAll(async () => {
    database = await createTestDatabase({ empty: true })
    const { host, port } = inject('postgres')
    running = await startPopup(stack => {
      stack.secret('dbpass', 'authwrap')
      return {
        checker: 'sql',
        sql_dbhost: host,
        sql_dbport: port,
        sql_dbname: database.name,
        sql_dbuser: 'authwrap',
        sql_dbpass_file: `${stack.directory}/dbpass`,
        sql_query: 'select password, uid, gid, home, mail as maildir, clear from users where userid = $1',
      }
    })
    const hash = readFileSync(`${running.stack.directory}/passwd`, 'utf8').split(':')[1] ?? ''
    const rows = [
      ['ann', hash, uid(0), home(running.stack, 'ann'), '', 'tanstaaf'],
      ['bob', `{CRYPT}${hash}`, uid(1), home(running.stack, 'bob'), 'maildir:~/Maildir:INDEX=/x', ''],
      ['plain', `{PLAIN}${TEST_PASSWORD}`, uid(0), home(running.stack, 'ann'), 'Maildir', ''],
      ['locked', '!', uid(0), home(running.stack, 'ann'), '', ''],
    ]
    const values = rows.map(
      ([name, password, owner, where, mail, clear]) =>
        `('${name}', '${password}', ${owner}, ${owner}, '${where}', '${mail}', '${clear}')`,
    )
    await database.owner.script(
      `create table users (userid text, password text, uid int, gid bigint, home text, mail text, clear text);
       insert into users values ${values.join(', ')};
       grant select on users to authwrap`,
    )
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterEach(() => running.closeClients())
  afterAll(async () => {
    await running.stop()
    await database.remove()
  })

  test.each([
    ['ann', 1],
    ['bob', 2],
    ['plain', 1],
  ])('%s logs in with the row of the login', async (user, count) => {
    const session = running.client()
    await session.login(user)
    await session.ask('STAT', new RegExp(`^\\+OK ${count} `))
    await session.quit()
  })

  test.each(['locked', "nobody' or 'a'='a", 'ann '])('%j does not log in', async user => {
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask(`USER ${user}`, /^\+OK/)
    await session.ask(PASS, /^-ERR \[AUTH\]/)
  })

  test('a query that the server refuses is a temporary failure', async () => {
    await database.owner.script('revoke select on users from authwrap')
    const session = running.client()
    await session.expect(/^\+OK </)
    await session.ask('USER ann', /^\+OK/)
    await session.ask(PASS, /^-ERR \[SYS\/TEMP\]/)
    await eventually('the reason is logged', () =>
      running.stack.log('popup').some(({ fields }) => /permission denied|refused/i.test(fields['detail'] ?? '')),
    )
  })

  /** The query of docs/INSTALL.md for that table, and the checker's answers with it. */
  const checkerFor = (table: string) => {
    const text = readFileSync(new URL('../../../docs/INSTALL.md', import.meta.url), 'utf8')
    const line = text.split('\n').find(each => each.startsWith('sql_query = ') && each.includes(` FROM ${table} `))
    const { host, port } = inject('postgres')
    const popup = {
      sql_dbhost: host,
      sql_dbport: port,
      sql_dbname: database.name,
      sql_dbuser: 'authwrap',
      sql_dbpass_file: `${running.stack.directory}/dbpass`,
    }
    const { settings } = parseSettings(`[popup]\n${stringify(popup)}\n${line}\n`, 'test')
    const hashing = new CheckQueue({ atOnce: 2, mostWaiting: 10 })
    const passwords = new AuthenticationCache(0, systemClock)
    return sqlChecker(settings.popup, passwords, hashing, createLog('test', { level: 'error' }))
  }
  const requestOf = (login: string, secret: string, method: 'pass' | 'apop' = 'pass'): CheckRequest => {
    const ip = parseIpAddress('192.0.2.7')
    if (ip === undefined) throw new Error('an address')
    const applicant = { networks: [ip], isKnown: false, disconnect: new ClientDisconnect() }
    return { login: loginOctets(login), secret, method, timestamp: '<1.1@mx>', ip, tls: false, applicant }
  }
  const hashed = () => readFileSync(`${running.stack.directory}/passwd`, 'utf8').split(':')[1] ?? ''

  test.each(['varchar', 'char'])("vpopmail's table, its columns %s", async type => {
    await database.owner.script(
      `drop table if exists vpopmail;
       create table vpopmail (pw_name ${type}(32), pw_domain ${type}(96), pw_passwd ${type}(128), pw_uid int, pw_gid int,
         pw_gecos ${type}(48), pw_dir ${type}(160), pw_shell ${type}(20), pw_clear_passwd ${type}(16),
         primary key (pw_name, pw_domain));
       insert into vpopmail values ('ann', 'example.org', '${hashed()}', 0, 0, 'Ann', '/mail/ann', 'NOQUOTA', 'tanstaaf');
       grant select on vpopmail to authwrap`,
    )
    const checker = checkerFor('vpopmail')
    const maildrop = { uid: 89, gid: 89, maildir: '/mail/ann/Maildir' }
    const digest = createHash('md5').update('<1.1@mx>tanstaaf').digest('hex')
    expect(await checker.check(requestOf('Ann@Example.org', TEST_PASSWORD))).toEqual({ kind: 'yes', maildrop })
    expect(await checker.check(requestOf('ann@example.org', digest, 'apop'))).toEqual({ kind: 'yes', maildrop })
    for (const [login, secret] of [
      ['ann@example.org', 'wrong'],
      ['ann@example.com', TEST_PASSWORD],
      ['ann', TEST_PASSWORD],
    ] as const) {
      expect(await checker.check(requestOf(login, secret))).toMatchObject({ kind: 'no' })
    }
    await checker.close()
  })

  test("the table of Dovecot's manual", async () => {
    await database.owner.script(
      `alter table users rename to accounts;
       create table users (username varchar(128) not null, domain varchar(128) not null, password varchar(128) not null,
         home varchar(255) not null, uid integer not null, gid integer not null, active char(1) default 'Y' not null);
       insert into users values ('ann', 'example.org', '{CRYPT}${hashed()}', '/mail/ann', 61221, 61222);
       grant select on users to authwrap`,
    )
    const checker = checkerFor('users')
    const maildrop = { uid: 61_221, gid: 61_222, maildir: '/mail/ann/Maildir' }
    expect(await checker.check(requestOf('ann@example.org', TEST_PASSWORD))).toEqual({ kind: 'yes', maildrop })
    expect(await checker.check(requestOf('ann@example.org', 'wrong'))).toMatchObject({ kind: 'no' })
    await checker.close()
  })
})

describe('invalid settings', () => {
  test.each([
    ['no command', { checker: 'checkpassword' }, /popup\.checkpassword must name a program/],
    ['no upstream server', { checker: 'upstream' }, /popup\.upstream: .*: name the POP3 server behind popup/],
    [
      'no query',
      { checker: 'sql', sql_dbname: 'x', sql_dbuser: 'x' },
      /popup\.sql_query: empty, and popup\.checker is "sql": set sql_query/,
    ],
    ['no passwd file', { passwd_file: '/nonexistent/passwd' }, /cannot read \/nonexistent\/passwd/],
    ['no certificate', { stls: true, stls_cert: '/nonexistent/cert.pem' }, /\/nonexistent\/cert\.pem/],
  ])('%s: one clear line, exit status 100, and no process is left', async (_, popup, message) => {
    const { Stack } = await import('../../harness/stack.ts')
    const stack = new Stack({ popup })
    const program = stack.launch('popup')
    expect(await program.ended).toEqual({ code: 100, signal: null })
    expect(program.lines.filter(line => line.startsWith('popup: '))).toEqual([expect.stringMatching(message)])
    expect(readdirSync(`${stack.directory}/run`).filter(name => name.endsWith('.sock'))).toEqual([])
    await stack.stop()
  })
})
