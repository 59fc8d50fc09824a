import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createConnection } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openDatabase } from '../../../src/database/database.ts'
import { StatementRefused } from '../../../src/database/errors.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { eventually } from '../../harness/eventually.ts'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { descendantsOf, internetSocketsOf, type ProcessStatus } from '../../harness/processes/process-status.ts'
import { run } from '../../harness/processes/program.ts'
import { command, describeWith, ROOT } from '../../harness/runner/describe-with.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS, TEST_PASSWORD, type TestAccount } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

/** Ids of a process that dropped root permanently. */
const only = (id: number) => [id, id, id, id]

describeWith([ROOT, command('psql', 'postgresql')], 'each process has only its privileges', () => {
  let stack: Stack
  let ann: TestAccount
  let bob: TestAccount
  let session: Pop3Conversation
  let processes: readonly ProcessStatus[]

  const portOf = (program: string): number => {
    const ready = stack.program('auth-relay').lines.find(line => line.startsWith('auth-relay ready')) ?? ''
    return Number(new RegExp(` ${program}\\.listen=\\S*:(\\d+)`).exec(ready)?.[1])
  }

  beforeAll(async () => {
    stack = new Stack()
    const { cert, key } = makeSelfSigned({ names: ['localhost'], now: Date.now() })
    stack.configure({
      '': { log_level: 'debug' },
      database: { embedded: true },
      grants: { grant_loopback: true },
      popup: {
        listen: ['127.0.0.1:0'],
        tls_listen: ['127.0.0.1:0'],
        stls_cert: stack.secret('popup.crt', cert),
        stls_key: stack.secret('popup.key', key),
      },
      sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:9' }] },
      authd: { user: `${TEST_IDS.authd}` },
      wrap: { listen: ['127.0.0.1:0'] },
      'status-page': { listen: '127.0.0.1:0', user: `${TEST_IDS.status}` },
      alerts: { program: ['/bin/true'], user: `${TEST_IDS.alerts}` },
    })
    ann = stack.account('ann', ['Subject: for ann\n\nsecret of ann\n'])
    bob = stack.account('bob', ['Subject: for bob\n\nsecret of bob\n'])
    await stack.start('auth-relay', { args: ['up', '--config', stack.config] })
    session = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
    await session.login('ann', TEST_PASSWORD)
    processes = descendantsOf(stack.program('auth-relay').pid)
  })
  beforeEach(() => stack.showLogsOnFailure())
  afterAll(async () => {
    session?.close()
    await stack?.stop()
  })

  /** The only process of that program, and whether it is a worker. */
  const find = (program: string, worker?: string): ProcessStatus => {
    const found = processes.filter(({ commandLine }) => {
      const at = commandLine.findIndex(word => word.endsWith(`/dist/${program}.js`))
      return at >= 0 && (worker === undefined ? commandLine[at + 1] === '--config' : commandLine[at + 1] === worker)
    })
    const [only] = found
    if (found.length !== 1 || only === undefined)
      throw new Error(`${found.length} processes of ${program} ${worker ?? ''}`)
    return only
  }

  /** The output of a command that runs with the ids of a process, and with nothing else of it. */
  const runAs = async (id: number, ...command: readonly string[]) => {
    const ids = ['setpriv', '--reuid', `${id}`, '--regid', `${id}`, '--clear-groups', '--']
    const { ending, lines } = await run([...ids, ...command], { env: { LC_ALL: 'C' } })
    return { status: ending?.code, text: lines.join('\n') }
  }
  const cannotRead = async (id: number, path: string): Promise<void> => {
    const { status, text } = await runAs(id, 'cat', path)
    expect([path, text]).toEqual([path, expect.stringContaining('Permission denied')])
    expect(status).toBe(1)
  }
  const cannotList = async (id: number, path: string): Promise<void> => {
    expect([path, (await runAs(id, 'ls', path)).text]).toEqual([path, expect.stringContaining('Permission denied')])
  }
  const CONNECT = `use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, pack_sockaddr_un($ARGV[0])) or die "no: $!\\n";
    my $n = sysread($s, my $x, 1); print defined $n && $n > 0 ? "received\\n" : "silence\\n"`
  /** Either the file system or the server at the other end refuses the caller. */
  const expectRefused = async (id: number, path: string): Promise<void> => {
    const { text } = await runAs(id, 'timeout', '5', 'perl', '-e', CONNECT, path)
    expect([path, text]).toEqual([path, expect.stringMatching(/^(no: Permission denied|silence)$/)])
  }
  const messageOf = ({ maildir }: TestAccount) => `${maildir}/new/1700000000.M0.mx`
  const file = (name: string): string => `${stack.directory}/${name}`
  /** Passwords of the database, which only root and authd may read. */
  const databaseSecrets = () => [file('state/dbpass'), file('state/wrap-dbpass')]

  /**
   * The directory of its socket is closed, so that the account can neither try a password nor use a
   * slot of the server.
   */
  const cannotUseDatabase = async (id: number): Promise<void> => {
    const directory = readFileSync(file('state/database-socket'), 'utf8').trim()
    const { text } = await runAs(id, 'psql', '-w', '-h', directory, '-U', 'postgres', '-c', 'SELECT 1', 'pop3authd')
    expect(text).toContain('Permission denied')
  }
  /**
   * No core file, and no ptrace by another process of the same account, because /proc gives its
   * files to root.
   */
  const cannotBeDumped = ({ pid }: ProcessStatus): void => expect(statSync(`/proc/${pid}/environ`).uid).toBe(0)

  /**
   * Without the right to trace a process its memory, environment and descriptors are closed.
   * `signalled` is the result of kill, if kill is refused too.
   */
  const cannotTouch = async (id: number, pid: number, signalled?: string): Promise<void> => {
    for (const name of ['environ', 'mem', 'maps']) await cannotRead(id, `/proc/${pid}/${name}`)
    await cannotList(id, `/proc/${pid}/fd`)
    const attached = await runAs(
      id,
      'perl',
      '-e',
      'syscall(101, 16, $ARGV[0] + 0, 0, 0) == -1 and print "no: $!\\n"',
      `${pid}`,
    )
    expect(attached.text).toBe('no: Operation not permitted')
    if (signalled === undefined) return
    for (const signal of ['0', 'USR1', 'TERM'])
      expect((await runAs(id, 'kill', '-s', signal, `${pid}`)).text).toContain(signalled)
  }

  const hasGivenUpRoot = (
    { uids, gids, groups, capabilities }: ProcessStatus,
    id: number,
    ...group: readonly number[]
  ): void => {
    expect({ uids, gids, groups, capabilities }).toEqual({
      uids: only(id),
      gids: only(id),
      groups: group,
      capabilities: 0n,
    })
  }

  describe('popup monitor', () => {
    test('binds the ports and reads nothing from the network: none of its sockets belongs to a client', () => {
      const sockets = internetSocketsOf(find('popup').pid)
      expect(sockets.map(({ state }) => state)).toEqual(['listening', 'listening'])
    })
  })

  describe('popup login', () => {
    test('runs under a separate account, and cannot become root again', () => {
      const login = find('popup', '--login')
      hasGivenUpRoot(login, TEST_IDS.login)
      expect(login.noNewPrivileges).toBe(true)
    })
    test('holds no socket of a client after the login', () => {
      const states = internetSocketsOf(find('popup', '--login').pid).map(({ state }) => state)
      expect(states).toEqual(['listening', 'listening'])
    })
    test('cannot read mail', async () => {
      await cannotList(TEST_IDS.login, ann.maildir)
      await cannotRead(TEST_IDS.login, messageOf(ann))
    })
    test('cannot read secrets', async () => {
      for (const name of ['passwd', 'sslhack.pass', 'tls.key', 'popup.key'])
        await cannotRead(TEST_IDS.login, file(name))
    })
    test('cannot use the database', async () => {
      for (const path of databaseSecrets()) await cannotRead(TEST_IDS.login, path)
    })
    test('cannot reach the socket of the database', () => cannotUseDatabase(TEST_IDS.login))
    test('leaves no core file', () => cannotBeDumped(find('popup', '--login')))
    test('cannot announce logins', () => expectRefused(TEST_IDS.login, file('run/authd.sock')))
  })

  describe('pop3d worker', () => {
    test('runs as the owner of the messages, and cannot become root again', () => {
      hasGivenUpRoot(find('pop3d', '--worker'), ann.uid)
    })
    test('has the connection that was handed over, and neither listens nor connects', async () => {
      const ofWorker = () => internetSocketsOf(find('pop3d', '--worker').pid)
      const port = portOf('popup').toString(16).toUpperCase().padStart(4, '0')
      expect(ofWorker()).toEqual([{ state: 'connected', local: expect.stringMatching(`:${port}$`) }])
    })
    test("cannot read other owners' mail", async () => {
      await cannotList(ann.uid, bob.maildir)
      await cannotRead(ann.uid, messageOf(bob))
      expect((await runAs(ann.uid, 'cat', messageOf(ann))).text).toContain('secret of ann')
    })
    test('cannot read secrets, nor use the database', async () => {
      for (const name of ['passwd', 'sslhack.pass', 'tls.key']) await cannotRead(ann.uid, file(name))
      for (const path of databaseSecrets()) await cannotRead(ann.uid, path)
    })
    test('cannot reach the socket of the database', () => cannotUseDatabase(ann.uid))
    test('leaves no core file', () => cannotBeDumped(find('pop3d', '--worker')))
    test('is reachable for the login process only', async () => {
      const { text } = await runAs(0, 'find', file('run'), '-type', 's')
      const sockets = text.split('\n').filter(path => path.includes('pop3d'))
      expect(sockets.length).toBeGreaterThan(0)
      for (const path of sockets) {
        for (const id of [bob.uid, TEST_IDS.tls, TEST_IDS.gate, TEST_IDS.authd]) await expectRefused(id, path)
      }
    })
    test('each owner has a separate worker', async () => {
      const second = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
      await second.login('bob', TEST_PASSWORD)
      second.say('RETR 1')
      await second.expect(/^\+OK/)
      expect(await second.expectLinesToDot()).toContain('secret of bob')
      const owners = descendantsOf(stack.program('auth-relay').pid)
        .filter(
          ({ commandLine }) => commandLine.includes('--worker') && commandLine.some(word => word.endsWith('pop3d.js')),
        )
        .map(({ uids }) => uids)
      expect(owners).toEqual(expect.arrayContaining([only(ann.uid), only(bob.uid)]))
      await second.quit()
    })
  })

  describe('sslwrap', () => {
    test('the parent binds the ports and reads nothing from the network', () => {
      expect(internetSocketsOf(find('sslwrap').pid).map(({ state }) => state)).toEqual(['listening'])
    })
    test('workers cannot use the database without a password, and leave no core file', async () => {
      await cannotUseDatabase(TEST_IDS.tls)
      cannotBeDumped(find('sslwrap', '--worker'))
    })
    test('workers run under a separate account, and cannot become root again', () => {
      hasGivenUpRoot(find('sslwrap', '--worker'), TEST_IDS.tls)
    })
    test('workers cannot read mail, keys on disk, secrets, nor use the database', async () => {
      await cannotList(TEST_IDS.tls, ann.maildir)
      await cannotRead(TEST_IDS.tls, messageOf(ann))
      for (const path of [file('tls.key'), file('passwd'), ...databaseSecrets()]) await cannotRead(TEST_IDS.tls, path)
      await expectRefused(TEST_IDS.tls, file('run/authd.sock'))
    })
  })

  describe('authd', () => {
    test('runs under a separate account, and cannot become root again', () =>
      hasGivenUpRoot(find('authd'), TEST_IDS.authd, TEST_IDS.database))
    test('listens only on its Unix sockets', () => expect(internetSocketsOf(find('authd').pid)).toEqual([]))
    test('cannot read mail, passwords of users, keys', async () => {
      await cannotList(TEST_IDS.authd, ann.maildir)
      for (const name of ['tls.key', 'passwd', 'sslhack.pass']) await cannotRead(TEST_IDS.authd, file(name))
    })
    test('leaves no core file', () => cannotBeDumped(find('authd')))
    test('accepts logins from the monitor only', async () => {
      for (const id of [TEST_IDS.login, TEST_IDS.tls, TEST_IDS.gate, ann.uid]) {
        await expectRefused(id, file('run/authd.sock'))
      }
    })
  })

  describe('wrap gate', () => {
    let client: SmtpConversation
    let smtpd: ProcessStatus
    beforeAll(async () => {
      client = SmtpConversation.over(createConnection(portOf('wrap'), '127.0.0.1'))
      await client.expectSmtp(/^220/)
      smtpd = await eventually('the smtpd runs', () =>
        descendantsOf(find('wrap').pid).find(({ commandLine }) => commandLine.some(word => word.endsWith('smtpd.sh'))),
      )
    })
    afterAll(() => client?.quit())

    test('runs under a separate account, and cannot become root again', () =>
      hasGivenUpRoot(find('wrap'), TEST_IDS.gate, TEST_IDS.database))
    test('the smtpd has another account, no database connection and no listening socket', () => {
      hasGivenUpRoot(smtpd, TEST_IDS.smtpd)
      expect(internetSocketsOf(smtpd.pid).map(({ state }) => state)).toEqual(['connected'])
      const environment = readFileSync(`/proc/${smtpd.pid}/environ`, 'utf8')
      expect(environment).toContain('TCPREMOTEIP=127.0.0.1')
      expect(environment).not.toMatch(/PASS|AUTHRELAY_SUPERVISED/)
    })
    test('leaves no core file', () => cannotBeDumped(find('wrap')))
    test("the smtpd's account can neither signal nor trace the gate, nor read its memory", async () => {
      const { pid } = find('wrap')
      await cannotTouch(TEST_IDS.smtpd, pid, 'Operation not permitted')
    })
    test('cannot read mail, secrets, keys', async () => {
      for (const id of [TEST_IDS.gate, TEST_IDS.smtpd]) {
        await cannotList(id, ann.maildir)
        for (const path of [file('tls.key'), file('passwd'), ...databaseSecrets()]) await cannotRead(id, path)
        await expectRefused(id, file('run/authd.sock'))
      }
    })
    test("the smtpd's account cannot report the use of a grant", () =>
      expectRefused(TEST_IDS.smtpd, file('run/usage.sock')))
    test('its role in the database can only read', async () => {
      const socket = readFileSync(file('state/database-socket'), 'utf8').trim()
      const secret = readFileSync(file('state/wrap-dbpass'), 'utf8').trim()
      const database = openDatabase({
        hosts: [{ host: socket, port: 5432 }],
        database: 'pop3authd',
        user: 'authwrap',
        password: { reveal: () => secret },
        applicationName: 'privileges test',
        max: 1,
      })
      try {
        for (const text of [
          "INSERT INTO grants (ip, until, daemon) VALUES ('192.0.2.7', now() + interval '1 hour', 'evil')",
          "UPDATE grants SET until = now() + interval '1 year'",
          'DELETE FROM blocks',
          'SELECT username FROM login_event',
          'CREATE TABLE mine (x integer)',
        ]) {
          await expect(database.script(text)).rejects.toThrow(StatementRefused)
        }
      } finally {
        await database.close()
      }
    })
  })

  describe('wrap starter', () => {
    const starters = () =>
      processes.filter(({ commandLine }) => commandLine.some(word => word.endsWith('/dist/smtpd-starter.js')))

    test("runs under the smtpd's account, and cannot become root again", () => {
      expect(starters()).toHaveLength(2)
      for (const starter of starters()) hasGivenUpRoot(starter, TEST_IDS.smtpd)
    })
    test('leaves no core file, and no other process of its account can trace it or read its memory', async () => {
      for (const starter of starters()) {
        cannotBeDumped(starter)
        await cannotTouch(TEST_IDS.smtpd, starter.pid)
      }
    })
    test('has no environment, no socket in the network, and only the connection to the gate', () => {
      for (const { pid } of starters()) {
        expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toBe('')
        expect(internetSocketsOf(pid)).toEqual([])
        const sockets = readdirSync(`/proc/${pid}/fd`).filter(fd =>
          readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:'),
        )
        // Standard error may be a socket: the log of the smtpds.
        expect(sockets.filter(fd => fd !== '2')).toEqual(['3'])
      }
    })
    test('has no secret of the database in its memory', () => {
      const secrets = databaseSecrets().map(path => readFileSync(path, 'utf8').trim())
      expect(memoryOf(find('wrap').pid, secrets)).toBe(true)
      for (const { pid } of starters()) expect(memoryOf(pid, secrets)).toBe(false)
    })
  })

  describe('embedded PostgreSQL', () => {
    const server = (): ProcessStatus => {
      const found = processes.find(
        ({ commandLine: [program = '', first] }) => /\/postgres$/.test(program) && first === '-D',
      )
      if (found === undefined) throw new Error('no server runs')
      return found
    }

    test('runs under a separate account, and cannot become root again', () =>
      hasGivenUpRoot(server(), TEST_IDS.database))
    test('has no socket in the network', () => expect(internetSocketsOf(server().pid)).toEqual([]))
    test('cannot read mail, secrets, keys, nor the password of the superuser', async () => {
      await cannotList(TEST_IDS.database, ann.maildir)
      const secrets = ['passwd', 'sslhack.pass', 'tls.key', 'popup.key', 'state/postgresql/superuser.secret'].map(file)
      for (const path of [...secrets, ...databaseSecrets()]) await cannotRead(TEST_IDS.database, path)
    })
  })

  /** The only process of `auth-relay` with this verb. */
  const ofVerb = (verb: string): ProcessStatus => {
    const found = processes.filter(({ commandLine }) => {
      const at = commandLine.findIndex(word => word.endsWith('/dist/auth-relay.js'))
      return at >= 0 && commandLine[at + 1] === verb
    })
    const [only] = found
    if (found.length !== 1 || only === undefined) throw new Error(`${found.length} processes of ${verb}`)
    return only
  }

  describe('status page', () => {
    test('runs under a separate account, and cannot become root again', () =>
      hasGivenUpRoot(ofVerb('status-page'), TEST_IDS.status, TEST_IDS.database))
    test('listens on loopback alone', () => {
      const listening = internetSocketsOf(ofVerb('status-page').pid).filter(({ state }) => state === 'listening')
      expect(listening.map(({ local }) => local)).toEqual([expect.stringMatching(/^0100007F:/)])
    })
    test('cannot read mail, secrets, keys, nor the passwords of other roles', async () => {
      await cannotList(TEST_IDS.status, ann.maildir)
      for (const name of ['passwd', 'sslhack.pass', 'tls.key', 'popup.key'])
        await cannotRead(TEST_IDS.status, file(name))
      for (const path of databaseSecrets()) await cannotRead(TEST_IDS.status, path)
    })
  })

  describe('alerts', () => {
    test('run under their account, and cannot become root again', () =>
      hasGivenUpRoot(ofVerb('alerts'), TEST_IDS.alerts, TEST_IDS.database))
    test('listen on nothing', () =>
      expect(internetSocketsOf(ofVerb('alerts').pid).filter(({ state }) => state === 'listening')).toEqual([]))
    test('cannot read mail, passwords of users, keys', async () => {
      await cannotList(TEST_IDS.alerts, ann.maildir)
      for (const name of ['passwd', 'sslhack.pass', 'tls.key', 'popup.key'])
        await cannotRead(TEST_IDS.alerts, file(name))
    })
  })

  describe('a secret is only in its own file', () => {
    /** Files that hold secrets, below the directory of the stack. */
    const HOLDERS = ['state/dbpass', 'state/wrap-dbpass', 'sslhack.pass', 'tls.key']
    /**
     * Passwords that clients send in this test, right and wrong, at expected and unexpected places.
     */
    const SENT = [
      'wrong-s3cret-one',
      'wrong-s3cret-two',
      'wrong-s3cret-three',
      'wrong-s3cret-four',
      'wrong-s3cret-five',
    ]
    const base64 = (text: string): string => Buffer.from(text).toString('base64')
    const replies: string[] = []

    beforeAll(async () => {
      const [pass = '', plain = '', typed = '', preamble = '', long = ''] = SENT
      const client = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
      const ask = async (line: string): Promise<void> => {
        client.say(line)
        replies.push((await client.expect(/^/)).text)
      }
      await client.expect(/^\+OK/)
      await ask('USER ann')
      await ask(`PASS ${pass}`)
      await ask(`AUTH PLAIN ${base64(`\0ann\0${plain}`)}`)
      await ask(typed)
      await ask(`PASS ${long}${'x'.repeat(600)}`)
      client.close()
      const proxy = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
      await proxy.expect(/^\+OK/)
      proxy.say(`SSL 192.0.2.7:${preamble}`)
      replies.push((await proxy.expect(/^-ERR/)).text)
      proxy.close()
    })

    const secrets = (): readonly string[] => {
      const stored = HOLDERS.flatMap(name => readFileSync(file(name), 'utf8').split('\n')).filter(
        line => line.length > 12,
      )
      const words = [TEST_PASSWORD, ...SENT]
      return [
        ...stored.filter(line => !line.startsWith('-----')),
        ...words,
        ...words.map(base64),
        base64('\0ann\0wrong-s3cret-two'),
      ]
    }
    const expectNoneIn = (where: string, text: string): void => {
      for (const secret of secrets()) expect(text.includes(secret), `a secret in ${where}`).toBe(false)
    }

    test('not in an environment, and not on a command line', () => {
      for (const { pid, commandLine } of descendantsOf(stack.program('auth-relay').pid)) {
        expectNoneIn(`environment of ${commandLine.join(' ')}`, readFileSync(`/proc/${pid}/environ`, 'latin1'))
        expectNoneIn('a command line', commandLine.join(' '))
      }
    })
    test('not in the log, at the level debug', () => {
      expect(stack.transcript()).toContain('level=debug')
      expectNoneIn('the log', stack.transcript())
    })
    test('not in replies to clients', () => expectNoneIn('a reply', replies.join('\n')))
    test('not in another file, including the files of the database', async () => {
      const { path, remove } = temporaryDirectory()
      writeFileSync(`${path}/secrets`, secrets().join('\n'))
      const found = await run(['grep', '-rlaF', '-f', `${path}/secrets`, stack.directory])
      remove()
      expect([...found.lines].sort()).toEqual(HOLDERS.map(file).sort())
    })
  })

  test('only processes that need root are root', () => {
    const rooted = processes
      .filter(({ uids }) => uids.includes(0))
      .map(({ commandLine }) => /(\w[\w-]*)\.js$/.exec(commandLine.find(word => word.endsWith('.js')) ?? '')?.[1])
    expect(rooted.sort()).toEqual(['auth-relay', 'popup', 'sslwrap'])
  })

  test('no auth-relay program can be traced or dumped by another process of its account, not even as root', () => {
    const ours = processes.filter(({ commandLine }) => commandLine.some(word => /\/dist\/[\w-]+\.js$/.test(word)))
    expect(ours.length).toBeGreaterThan(8)
    for (const process of ours) {
      cannotBeDumped(process)
    }
  })
})

/** True if one of the texts is in the writable memory of a process. */
function memoryOf(pid: number, texts: readonly string[]): boolean {
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  try {
    return readFileSync(`/proc/${pid}/maps`, 'utf8')
      .split('\n')
      .flatMap(line => {
        const [, from, to, name] = /^([0-9a-f]+)-([0-9a-f]+) rw.. \S+ \S+ \S+ *(.*)$/.exec(line) ?? []
        return from === undefined || to === undefined || name === '[vvar]'
          ? []
          : [[BigInt(`0x${from}`), BigInt(`0x${to}`)] as const]
      })
      .some(([from, to]) => holds(memory, from, Number(to - from), texts))
  } finally {
    closeSync(memory)
  }
}

const PIECE = 1_048_576

function holds(memory: number, from: bigint, size: number, texts: readonly string[]): boolean {
  const piece = Buffer.alloc(PIECE)
  for (let at = 0; at < size; at += PIECE) {
    try {
      const octets = piece.subarray(0, readSync(memory, piece, 0, Math.min(PIECE, size - at), from + BigInt(at)))
      if (texts.some(text => octets.includes(text))) return true
    } catch {
      return false // EIO: the memory is reserved and was never used
    }
  }
  return false
}
