import { spawnSync } from 'node:child_process'
import { appendFileSync, chmodSync, copyFileSync, existsSync, renameSync, truncateSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import * as v from 'valibot'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { AuthdClient, loginFrom } from '../../harness/authd/authd-client.ts'
import { databaseSettings } from '../../harness/authd/authd-settings.ts'
import { bsdStamp } from '../../harness/authd/bsd-stamp.ts'
import { restartUnderLoad, startRsyslog } from '../../harness/authd/rsyslog-restart.ts'
import { eventually } from '../../harness/eventually.ts'
import { type StoredGrant, storedGrants } from '../../harness/postgres/stored-grants.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { command, describeWith, pathOf, ROOT } from '../../harness/runner/describe-with.ts'
import { commandOf, Stack, type TestSettings } from '../../harness/stack.ts'

const STATUS = v.object({
  sources: v.array(v.object({ source: v.string(), last: v.optional(v.string()), line: v.optional(v.string()) })),
})

let database: TestDatabase
let stack: Stack
let logDaemon: Program | undefined

beforeEach(async () => {
  database = await createTestDatabase()
  stack = new Stack()
  stack.showLogsOnFailure()
})
afterEach(async () => {
  await logDaemon?.stop()
  logDaemon = undefined
  await stack.stop()
  await database.remove()
})

async function start(authd: TestSettings[string] = {}): Promise<Program> {
  stack.configure({
    ...databaseSettings(database.connection('pop3authd')),
    '': { log_level: 'debug' },
    authd: {
      socket: `${stack.directory}/run/authd.sock`,
      usage_socket: '',
      check_daemon_ipop3d: true,
      ...authd,
    },
  })
  return stack.start('authd')
}

const granted = (ip: string): Promise<StoredGrant> =>
  eventually(`a grant for ${ip}`, async () => (await storedGrants(database.owner)).get(ip))

const login = (ip: string): string => `Login user=ann host=[${ip}] nmsgs=1/1`

/** rsyslogd with its own input socket and one action. */
async function startPrivateRsyslog(action: string): Promise<void> {
  logDaemon = await startRsyslog(stack.directory, `mail.* ${action}`)
}

/** Writes a line with logger(1), as a daemon does with syslog(3). */
async function log(tag: string, message: string): Promise<void> {
  const words = [pathOf('logger') ?? 'logger', '-u', `${stack.directory}/log`, '-t', tag, '-p', 'mail.info', '--id=77']
  const { ending, lines } = await run([...words, '--', message])
  expect(ending?.code, lines.join('\n')).toBe(0)
}

const RSYSLOG = [command('rsyslogd', 'rsyslog'), command('logger', 'bsdutils')]

describeWith(RSYSLOG, 'a real rsyslogd writes to the FIFO', () => {
  const fifoAction = (template: string): string =>
    `action(type="ompipe" Pipe="${stack.directory}/fifo" Template="${template}")`

  beforeEach(async () => {
    await run(['mkfifo', '-m', '600', `${stack.directory}/fifo`])
  })

  it('grants, and survives a restart of rsyslogd and of authd', async () => {
    await start({ syslog_fifo: `${stack.directory}/fifo` })
    await startPrivateRsyslog(fifoAction('RSYSLOG_TraditionalFileFormat'))
    await log('ipop3d', login('203.0.113.7'))
    expect(await granted('203.0.113.7')).toMatchObject({ daemon: 'ipop3d', username: 'ann' })
    await stack.waitForLog('authd', { event: 'grant_stored', ip: '203.0.113.7', source: 'fifo' })

    await logDaemon?.stop()
    await startPrivateRsyslog(fifoAction('RSYSLOG_FileFormat'))
    await log('ipop3d', login('203.0.113.8'))
    await granted('203.0.113.8')

    // Lines that rsyslogd writes while authd is down wait in the FIFO, which rsyslogd holds open.
    await stack.stopPrograms()
    await log('ipop3d', login('203.0.113.9'))
    await start({ syslog_fifo: `${stack.directory}/fifo` })
    await log('ipop3d', login('203.0.113.10'))
    await granted('203.0.113.10')
    await granted('203.0.113.9')
  })

  it('opens nothing for a line that a client forged with a line break in it', async () => {
    await start({ syslog_fifo: `${stack.directory}/fifo` })
    await startPrivateRsyslog(fifoAction('RSYSLOG_TraditionalFileFormat'))
    await log('ipop3d', `Login failed user=x\n${bsdStamp()} mx ipop3d[1]: ${login('198.51.100.66')}`)
    await log('postfix/smtpd', login('198.51.100.67'))
    await log('ipop3d', `x ${login('198.51.100.68')}`)
    await log('ipop3d', login('203.0.113.7'))
    await granted('203.0.113.7')
    expect([...(await storedGrants(database.owner)).keys()]).toEqual(['203.0.113.7'])
  })

  it('opens the FIFO again after it was made again', async () => {
    const fifo = `${stack.directory}/fifo`
    await start({ syslog_fifo: fifo })
    renameSync(fifo, `${fifo}.old`)
    await run(['mkfifo', '-m', '600', fifo])
    await stack.waitForLog('authd', { event: 'fifo_reopened' })
    const line = `${bsdStamp()} mx ipop3d[77]: ${login('203.0.113.7')}`
    await run(['sh', '-c', `echo '${line}' > ${fifo}`])
    await granted('203.0.113.7')
  })
})

describeWith(RSYSLOG, 'a real rsyslogd delivers by TCP', () => {
  const forward = (framing: string, template: string): string =>
    `action(type="omfwd" Target="127.0.0.1" Port="${stack.port('authd', 0, 'syslog')}" Protocol="tcp" ` +
    `TCP_Framing="${framing}" Template="${template}" action.resumeInterval="1" action.resumeRetryCount="-1")`

  it.each([
    ['traditional', 'RSYSLOG_TraditionalForwardFormat'],
    ['octet-counted', 'RSYSLOG_TraditionalForwardFormat'],
    ['traditional', 'RSYSLOG_ForwardFormat'],
    ['octet-counted', 'RSYSLOG_SyslogProtocol23Format'],
  ])('%s framing, %s', async (framing, template) => {
    await start({ syslog_listen: ['127.0.0.1:0'] })
    await startPrivateRsyslog(forward(framing, template))
    await log('ipop3d', login('203.0.113.7'))
    await granted('203.0.113.7')
    await stack.waitForLog('authd', { event: 'grant_stored', ip: '203.0.113.7', source: 'tcp' })
  })

  it('loses no line while authd restarts, with the action of the documents', async () => {
    await start({ syslog_listen: ['127.0.0.1:0'] })
    const port = stack.port('authd', 0, 'syslog')
    const logins = 10_000
    const { before, stored } = await restartUnderLoad({
      directory: stack.directory,
      database: database.owner,
      logins,
      port,
      stopAuthd: () => stack.stopPrograms(),
      startAuthd: () => start({ syslog_listen: [`127.0.0.1:${port}`] }),
    })
    expect(before, 'authd was stopped while lines arrived').toBeLessThan(logins)
    expect(stored).toBe(logins)
  })
})

describe('a followed file', () => {
  const stamp = (secondsAgo = 0): string => new Date(Date.now() - secondsAgo * 1000).toISOString()
  const line = (ip: string, secondsAgo = 0): string => `${stamp(secondsAgo)} mx ipop3d[77]: ${login(ip)}\n`
  let file: string

  beforeEach(() => {
    file = `${stack.directory}/mail.log`
    writeFileSync(file, line('203.0.113.1'))
  })

  it('is read from its end, and through rotation and truncation', async () => {
    await start({ follow_files: [file] })
    await stack.waitForLog('authd', { event: 'file_followed', path: file })
    appendFileSync(file, line('203.0.113.2').slice(0, 40))
    appendFileSync(file, line('203.0.113.2').slice(40))
    await granted('203.0.113.2')

    renameSync(file, `${file}.1`)
    writeFileSync(file, '')
    appendFileSync(`${file}.1`, line('203.0.113.3')) // the writer still has the old file open
    await granted('203.0.113.3')
    appendFileSync(file, line('203.0.113.4'))
    await granted('203.0.113.4')

    copyFileSync(file, `${file}.2`)
    truncateSync(file, 0)
    await stack.waitForLog('authd', { event: 'file_truncated' })
    appendFileSync(file, line('203.0.113.5'))
    await granted('203.0.113.5')
    expect([...(await storedGrants(database.owner)).keys()].sort()).toEqual([2, 3, 4, 5].map(n => `203.0.113.${n}`))
  })

  it('is continued after a restart, also with a rotation in between, and expired logins grant nothing', async () => {
    await start({ follow_files: [file] })
    await stack.waitForLog('authd', { event: 'file_followed', path: file })
    appendFileSync(file, line('203.0.113.2'))
    await granted('203.0.113.2')
    await stack.stopPrograms()

    appendFileSync(file, line('203.0.113.3', 600) + line('203.0.113.4', 7200))
    renameSync(file, `${file}.1`)
    writeFileSync(file, line('203.0.113.5'))
    await start({ follow_files: [file] })
    await granted('203.0.113.5')
    const stored = await storedGrants(database.owner)
    expect([...stored.keys()].sort()).toEqual([2, 3, 5].map(n => `203.0.113.${n}`))
    const age = Date.now() - (stored.get('203.0.113.3')?.last.getTime() ?? 0)
    expect(age, 'the stamp of the line counts').toBeGreaterThanOrEqual(599_000)
    expect(stored.get('203.0.113.2')?.hits).toBe(1)
  })

  it('may not exist yet', async () => {
    await start({ follow_files: [`${file}.later`] })
    await stack.waitForLog('authd', { event: 'file_unreadable' })
    writeFileSync(`${file}.later`, line('203.0.113.6'))
    await granted('203.0.113.6')
  })

  it('may come from a container runtime; no piece of a line is read as a line, also over a restart', async () => {
    const text = (ip: string): string =>
      `pop3-login: Info: Login: user=<ann>, method=PLAIN, rip=${ip}, lip=203.0.113.1, mpid=1, session=<x>`
    const cri = (ip: string, tag: 'F' | 'P', secondsAgo = 0): string =>
      `${stamp(secondsAgo)} stdout ${tag} Nov 28 08:00:00 ${text(ip)}\n`
    const docker = (ip: string): string =>
      `${JSON.stringify({ log: `Nov 28 08:00:00 ${text(ip)}\n`, stream: 'stdout', time: stamp() })}\n`
    await start({ follow_files: [file], check_daemon_dovecot: true })
    await stack.waitForLog('authd', { event: 'file_followed', path: file })
    appendFileSync(file, docker('203.0.113.2') + cri('203.0.113.3', 'F', 600))
    await granted('203.0.113.2')
    expect(Date.now() - (await granted('203.0.113.3')).last.getTime()).toBeGreaterThanOrEqual(599_000)
    appendFileSync(file, `${stamp()} stdout P auth: unknown user \n`)
    await stack.stopPrograms()
    appendFileSync(file, cri('203.0.113.4', 'F') + cri('203.0.113.5', 'F'))
    await start({ follow_files: [file], check_daemon_dovecot: true })
    await granted('203.0.113.5')
    expect([...(await storedGrants(database.owner)).keys()].sort()).toEqual([2, 3, 5].map(n => `203.0.113.${n}`))
    // A container runtime divides long lines. Such a line is dropped unread.
    appendFileSync(
      file,
      `${stamp()} stdout P ${'x'.repeat(140_000)}\n${cri('203.0.113.6', 'F')}${cri('203.0.113.7', 'F')}`,
    )
    await granted('203.0.113.7')
    expect((await storedGrants(database.owner)).has('203.0.113.6')).toBe(false)
  })

  it("may be Dovecot's own log", async () => {
    await start({ follow_files: [file], check_daemon_dovecot: true })
    await stack.waitForLog('authd', { event: 'file_followed', path: file })
    const now = stamp().slice(0, 19).replace('T', ' ')
    const text = 'user=<ann>, method=PLAIN, rip=203.0.113.7, lip=203.0.113.1, mpid=1, TLS, session=<x>'
    appendFileSync(file, `${now} pop3-login: Info: Logged in: ${text}\n`)
    expect(await granted('203.0.113.7')).toMatchObject({ daemon: 'dovecot' })
  })
})

describe('a line that is delivered late', () => {
  const late = (ip: string, minutes: number): string =>
    `<22>1 ${new Date(Date.now() - minutes * 60_000).toISOString()} mx ipop3d 77 - - ${login(ip)}\n`

  it('grants for the rest of its time, and the history has its time', async () => {
    await start({ syslog_listen: ['127.0.0.1:0'], metrics_listen: '127.0.0.1:0' })
    const socket = createConnection({ host: '127.0.0.1', port: stack.port('authd', 0, 'syslog') })
    socket.end(late('203.0.113.2', 300) + late('203.0.113.3', 20) + late('203.0.113.4', -60))
    const { last, until } = await granted('203.0.113.3')
    await granted('203.0.113.4')
    const age = Date.now() - last.getTime()
    expect(age).toBeGreaterThanOrEqual(1_200_000)
    expect(until.getTime() - last.getTime(), 'exp_time after the login').toBe(1_800_000)
    const stored = await storedGrants(database.owner)
    expect([...stored.keys()].sort()).toEqual(['203.0.113.3', '203.0.113.4'])
    expect(stored.get('203.0.113.4')?.until.getTime(), 'never more than from now').toBeLessThanOrEqual(
      Date.now() + 1_800_000,
    )
    const { rows } = await database.owner.query({
      row: v.object({ ip: v.string(), early: v.boolean() }),
      text: `SELECT host(ip) AS ip, at < now() - interval '19 minutes' AS early FROM login_event ORDER BY ip`,
    })
    expect(rows).toEqual([
      { ip: '203.0.113.3', early: true },
      { ip: '203.0.113.4', early: false },
    ])
    await stack.waitForLog('authd', {
      event: 'login_line_dropped',
      reason: 'expired',
      source: 'tcp',
      ip: '203.0.113.2',
    })
    await stack.waitForLog('authd', {
      event: 'stamp_ahead',
      source: 'tcp',
      ip: '203.0.113.4',
      reason: /lies in the future/,
    })
    const metrics = await (await fetch(`http://127.0.0.1:${stack.port('authd', 0, 'metrics')}/metrics`)).text()
    expect(metrics).toContain('authd_dropped_logins_total{source="tcp",reason="expired"} 1')
    expect(explain('203.0.113.3', 15)).toContain('"relay":true')
    expect(explain('203.0.113.3', 25), 'before the login').toContain('"relay":false')
    expect(explain('203.0.113.2', 1)).toContain('"relay":false')
  })

  /** `auth-relay explain IP --at TIME --json` for a time `minutes` ago. */
  function explain(ip: string, minutes: number): string {
    const at = new Date(Date.now() - minutes * 60_000).toISOString()
    const [program = '', ...words] = commandOf(
      'auth-relay',
      'explain',
      ip,
      '--at',
      at,
      '--json',
      '--config',
      stack.config,
    )
    return spawnSync(program, words, { encoding: 'utf8' }).stdout
  }

  it('in a followed file with stamps of another zone is a warning that names the cause', async () => {
    const file = `${stack.directory}/mail.log`
    writeFileSync(file, '')
    await start({ follow_files: [file] })
    await stack.waitForLog('authd', { event: 'file_followed', path: file })
    // The container writes UTC and the host's zone is two hours ahead, so each line looks two hours
    // old.
    appendFileSync(file, `${bsdStamp(new Date(Date.now() - 7_200_000))} mx ipop3d[77]: ${login('203.0.113.2')}\n`)
    const { fields } = await stack.waitForLog('authd', { event: 'login_line_dropped', path: file, reason: 'expired' })
    expect(fields['remedy']).toContain('another time zone')
    expect((await storedGrants(database.owner)).size).toBe(0)
  })
})

describe('every source at once', () => {
  it('grants from the socket, the FIFO, TCP, a file and the journal', async () => {
    const { directory } = stack
    const [fifo, file, entries] = [`${directory}/fifo`, `${directory}/mail.log`, `${directory}/entries`]
    expect((await run(['mkfifo', '-m', '600', fifo])).ending?.code).toBe(0)
    writeFileSync(file, '')
    const entry = {
      __CURSOR: 's=1',
      __REALTIME_TIMESTAMP: String(Date.now() * 1000),
      _HOSTNAME: 'mx',
      SYSLOG_IDENTIFIER: 'ipop3d',
      _UID: '0',
      _PID: '77',
      MESSAGE: login('203.0.113.5'),
    }
    writeFileSync(entries, `${JSON.stringify(entry)}\n`)
    await start({
      syslog_fifo: fifo,
      syslog_listen: ['127.0.0.1:0'],
      follow_files: [file],
      journal: true,
      journal_command: ['sh', '-c', `cat ${entries}; exec sleep 60`, 'journalctl'],
    })
    await stack.waitForLog('authd', { event: 'file_followed', path: file })
    const client = await AuthdClient.connect(`${directory}/run/authd.sock`)
    const line = (ip: string): string => `${new Date().toISOString()} mx ipop3d[77]: ${login(ip)}\n`
    appendFileSync(fifo, line('203.0.113.2'))
    appendFileSync(file, line('203.0.113.4'))
    createConnection({ host: '127.0.0.1', port: stack.port('authd', 0, 'syslog') }).end(line('203.0.113.3'))
    // A disk that stops for seconds delays the commit; the grants below are there in any case.
    expect(['committed', 'queued']).toContain((await client.announce(loginFrom('1.1', '203.0.113.1'))).verdict)
    for (const [n, source] of ['socket', 'fifo', 'tcp', 'file', 'journal'].entries()) {
      const ip = `203.0.113.${n + 1}`
      await granted(ip)
      await stack.waitForLog('authd', { event: 'grant_stored', ip, source })
    }
    const shown = await eventually('status has the newest line of each source', async () => {
      const { lines } = await stack.run('auth-relay', ['status', '--json', '--config', stack.config])
      const { sources } = v.parse(STATUS, JSON.parse(lines.join('\n')))
      return sources.every(({ line }) => line !== undefined) && sources
    })
    expect(shown.map(({ source, line }) => [source.replace(directory, ''), line])).toEqual([
      ['/mail.log', expect.stringContaining(login('203.0.113.4'))],
      ['syslog to 127.0.0.1:0', expect.stringContaining(login('203.0.113.3'))],
      ['FIFO /fifo', expect.stringContaining(login('203.0.113.2'))],
      ['journal', expect.stringContaining(login('203.0.113.5'))],
      ['login socket', 'popup: login of ann from 203.0.113.1'],
    ])
    for (const { last } of shown) expect(Math.abs(Date.now() - Date.parse(last ?? ''))).toBeLessThan(600_000)
    client.close()
  })
})

/** journald in the foreground, with a separate /run and machine id. */
const JOURNALD = `set -e
run=$1
mkdir -p "$run/systemd/journal" "$run/log/journal"
echo 0123456789abcdef0123456789abcdef > "$run/machine-id"
mount --bind "$run/machine-id" /etc/machine-id
mount --bind "$run" /run
exec /lib/systemd/systemd-journald`

describeWith([ROOT, command('journalctl', 'systemd'), ...RSYSLOG], 'a real journald', () => {
  it('is read, also entries from a time without authd; octets that are not text and accounts that do not count open nothing', async () => {
    const runDirectory = `${stack.directory}/j`
    const socket = `${runDirectory}/systemd/journal/dev-log`
    // Without --id, because journald would take the account of the process with this number.
    const words = [pathOf('logger') ?? 'logger', '-u', socket, '-t', 'ipop3d', '-p', 'mail.info', '--']
    const say = async (message: string, uid = 0): Promise<void> => {
      const sender = uid === 0 ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups']
      expect((await run([...sender, ...words, message])).ending?.code).toBe(0)
    }
    logDaemon = new Program('journald', ['unshare', '--mount', 'sh', '-c', JOURNALD, 'journald', runDirectory])
    await logDaemon.waitFor('journald listens', () => existsSync(socket))
    const settings = {
      journal: true,
      journal_command: ['journalctl', `--directory=${runDirectory}/log/journal`, '--merge'],
    }
    await start(settings)
    // The first start begins at the end of the journal, and journalctl decides where that is. The
    // entry is repeated until it is read.
    await eventually('a grant for 203.0.113.1', async () => {
      await say(login('203.0.113.1'))
      return (await storedGrants(database.owner)).has('203.0.113.1')
    })
    await stack.stopPrograms()
    await say(`${login('203.0.113.9')}\u0001`)
    // journald names the account that sent an entry, independent of the fields of the entry.
    await say(login('203.0.113.10'), 61_250)
    await say(login('203.0.113.11'), 61_251)
    await say(login('203.0.113.2'))
    await start({ ...settings, journal_users: ['61251'] })
    expect(await granted('203.0.113.2')).toMatchObject({ daemon: 'ipop3d' })
    // journald writes entries of this account into another file, which journalctl may read later.
    await granted('203.0.113.11')
    expect([...(await storedGrants(database.owner)).keys()].sort()).toEqual([1, 11, 2].map(n => `203.0.113.${n}`))
    await stack.waitForLog('authd', {
      event: 'login_line_dropped',
      reason: 'sender',
      uid: '61250',
      ip: '203.0.113.10',
    })
  })
})

describe('the journal', () => {
  it('is followed from the saved place, also after journalctl has ended', async () => {
    const { directory } = stack
    const entries = `${directory}/entries`
    const entry = (n: number): string =>
      `${JSON.stringify({
        __CURSOR: `s=${n}`,
        __REALTIME_TIMESTAMP: String(Date.now() * 1000),
        _HOSTNAME: 'mx',
        SYSLOG_IDENTIFIER: 'ipop3d',
        _UID: '0',
        _PID: '77',
        MESSAGE: login(`203.0.113.${n}`),
      })}\n`
    // A double of journalctl: logs its arguments, prints its text, and ends after a while.
    writeFileSync(
      `${directory}/journalctl`,
      `#!/bin/sh\necho "$@" >> ${directory}/calls\ncat ${entries}\nexec sleep 2\n`,
    )
    chmodSync(`${directory}/journalctl`, 0o755)
    writeFileSync(entries, entry(1))
    const settings = { journal: true, journal_command: [`${directory}/journalctl`, '--merge'] }
    await start(settings)
    await granted('203.0.113.1')
    writeFileSync(entries, `${entry(2)}not json\n${entry(3)}`)
    await stack.waitForLog('authd', { event: 'journal_ended' })
    await granted('203.0.113.3')
    await stack.waitForLog('authd', { event: 'grant_stored', ip: '203.0.113.2', source: 'journal' })
    await stack.stopPrograms()
    await start(settings)
    await granted('203.0.113.3')
    const { lines } = await eventually('journalctl was started three times', async () => {
      const calls = await run(['cat', `${directory}/calls`])
      return calls.lines.length >= 3 && calls
    })
    const common = '--merge --follow --output=json --quiet'
    expect(lines.slice(0, 2)).toEqual([`${common} --lines=0`, `${common} --after-cursor=s=1`])
    expect(lines.at(-1)).toBe(`${common} --after-cursor=s=3`)
  })
})
