import { execFile } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { Demo } from '../../harness/processes/demo.ts'
import { descendantsOf, statusOf } from '../../harness/processes/process-status.ts'
import { commandOf } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = new URL('../../..', import.meta.url).pathname
const isRoot = process.geteuid?.() === 0

/** Runs a line in the shell, as a user who copied it from the screen. */
const shell = (line: string): Promise<{ status: number; output: string }> =>
  new Promise(resolve => {
    execFile('/bin/sh', ['-c', line], { cwd: root, timeout: 30_000 }, (error, stdout, stderr) =>
      resolve({
        status: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1,
        output: stdout + stderr,
      }),
    )
  })

const isOpen = (port: number): Promise<boolean> =>
  new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

const socketsBelow = (directory: string): readonly string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isSocket())
    .map(entry => entry.name)

describe('the demo', () => {
  const { path, remove } = temporaryDirectory()
  const directory = `${path}/var`
  let demo: Demo

  beforeAll(async () => {
    demo = new Demo(directory)
    await demo.ready()
  })
  afterAll(async () => {
    await demo.program.stop()
    remove()
  })

  test('the commands on its screen work when copied: refused, mailbox opened, relayed, shown', async () => {
    const before = await shell(demo.command('swaks'))
    expect(before.output).toContain('553')
    expect(before.status).not.toBe(0)

    const mail = await shell(demo.command('curl'))
    expect(mail.output).toContain('Subject: Your address may send mail now')
    expect(mail.status).toBe(0)

    const after = await shell(demo.command('swaks'))
    expect(after.output).toContain('250 ok: the demo has taken the message')
    expect(after.status).toBe(0)

    const shown = await shell(demo.command(/auth-relay$/))
    expect(shown.output).toMatch(/^127\.0\.0\.1 .* demo +popup +\S+ +yes /m)
    expect(shown.status).toBe(0)
  })

  test('mail for the demo user arrives in the demo maildrop', async () => {
    const send = demo.command('swaks').replace('somebody@example.org', 'demo@demo.example')
    expect((await shell(`${send} --header 'Subject: to myself'`)).status).toBe(0)
    // As with qmail-pop3d, a message is listed from the second after its delivery on.
    const count = async (): Promise<number> =>
      (await shell(demo.command('curl').replace(/\/1$/, '/'))).output.trim().split('\n').length
    const last = await eventually('the message is listed', async () => {
      const messages = await count()
      return messages > 3 && messages
    })
    const mail = await shell(demo.command('curl').replace(/\/1$/, `/${last}`))
    expect(mail.output).toContain('Subject: to myself')
  })

  test('a client that sends everything before it reads is served like any other', async () => {
    const socket = connect(demo.port('wrap'), '127.0.0.1').setEncoding('utf8')
    socket.write('EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<demo@demo.example>\r\nQUIT\r\n')
    let received = ''
    socket.on('data', (text: string) => {
      received += text
    })
    await once(socket, 'close')
    const codes = received.split('\r\n').flatMap(line => /^(\d{3}) /.exec(line)?.[1] ?? [])
    expect(codes).toEqual(['220', '250', '250', '250', '221'])
  })

  test('one session id leads from sslwrap through popup to pop3d, and popup logs the result of the grant', async () => {
    await shell(demo.command('curl'))
    const { log } = demo.program
    const id = log.findLast(line => line.program === 'sslwrap' && line.fields['event'] === 'client_connected')?.fields[
      'id'
    ]
    expect(id).toMatch(/^[0-9a-f]+\.\d+$/)
    await demo.program.waitFor(`every program logs session ${id}`, () =>
      ['sslwrap', 'popup', 'pop3d'].every(program =>
        demo.program.log.some(line => line.program === program && line.fields['id'] === id),
      ),
    )
    const login = demo.program.log.find(({ fields }) => fields['event'] === 'login_accepted' && fields['id'] === id)
    expect(login?.fields).toMatchObject({ grant: 'committed', until: expect.stringMatching(/^\d{10}$/) })
  })

  test.runIf(isRoot)('each program runs under separate ids', () => {
    const uids = new Map<string, Set<number>>()
    for (const { commandLine, uids: ids } of descendantsOf(demo.program.pid)) {
      const script = commandLine.find(word => word.endsWith('.js')) ?? ''
      const name = /dist\/([a-z-]+)\.js/.exec(script)?.[1] ?? (/postgres/.test(commandLine[0] ?? '') ? 'postgres' : '')
      uids.set(name, new Set([...(uids.get(name) ?? []), ...ids]))
    }
    expect(uids.get('wrap')).toEqual(new Set([61193]))
    expect(uids.get('smtpd-starter')).toEqual(new Set([61195]))
    expect(uids.get('postgres')).toEqual(new Set([61196]))
  })

  test('a program that crashes is started again', async () => {
    const [authd = ''] = demo.processes().filter(line => line.includes('dist/authd.js'))
    process.kill(Number(authd.split(' ')[0]), 'SIGKILL')
    await demo.program.waitFor(
      'authd is ready again',
      () => demo.program.lines.filter(line => line.startsWith('authd ready')).length === 2,
    )
    expect((await shell(demo.command('curl'))).status).toBe(0)
  })

  test('a second demo in the same directory is refused in one line', async () => {
    const second = new Demo(directory)
    expect(await second.program.ended).toEqual({ code: 111, signal: null })
    const faults = second.program.lines.filter(line => !line.includes('level='))
    expect(faults).toEqual([
      expect.stringMatching(/in use by another auth-relay up \(process \d+\): stop it, or choose another directory$/),
    ])
  })

  test('Ctrl-C stops everything, open sessions too: no process, no socket, no open port', async () => {
    const ports = [demo.port('popup'), demo.port('sslwrap'), demo.port('wrap')]
    const open = [demo.port('popup'), demo.port('wrap')].map(port => connect(port, '127.0.0.1'))
    await Promise.all(open.map(socket => once(socket, 'data')))
    for (const socket of open) socket.on('error', () => {})
    demo.program.signal('SIGINT')
    expect(await demo.program.ended).toEqual({ code: 0, signal: null })
    expect(demo.processes()).toEqual([])
    expect(socketsBelow(directory)).toEqual([])
    expect(await Promise.all(ports.map(isOpen))).toEqual([false, false, false])
  })

  test('the second start keeps the maildrop and makes no new files', async () => {
    demo = new Demo(directory)
    await demo.ready()
    expect(demo.program.lines.filter(line => line.includes('event=database_created'))).toEqual([])
    expect(demo.program.lines.filter(line => line.includes('event=schema_migrated'))).toEqual([])
    const list = await shell(demo.command('curl').replace(/\/1$/, '/'))
    expect(list.output.trim().split('\n').length).toBeGreaterThan(3)
  })

  test('kill -9 of up leaves no process and no open port', async () => {
    const ports = [demo.port('popup'), demo.port('sslwrap'), demo.port('wrap')]
    demo.program.signal('SIGKILL')
    await demo.program.ended
    await demo.ended()
    expect(await Promise.all(ports.map(isOpen))).toEqual([false, false, false])
  })

  test('the next start after kill -9 succeeds', async () => {
    demo = new Demo(directory)
    await demo.ready()
    expect((await shell(demo.command('curl'))).status).toBe(0)
  })
})

/** The purpose of the demo in three commands: closed, opened by reading mail, open. */
async function relayOpensByReadingMail(demo: Demo): Promise<void> {
  expect((await shell(demo.command('swaks'))).output).toContain('553')
  expect((await shell(demo.command('curl'))).output).toContain('Subject: Your address may send mail now')
  expect((await shell(demo.command('swaks'))).output).toContain('250 ok: the demo has taken the message')
}

describe.runIf(isRoot)('started as root', () => {
  test('from a checkout and into a directory that are closed to other accounts', async () => {
    const { path, remove } = temporaryDirectory()
    const closed = `${path}/closed`
    mkdirSync(closed)
    for (const part of ['dist', 'sql', 'bin', 'package.json'])
      cpSync(`${root}${part}`, `${closed}/${part}`, { recursive: true })
    symlinkSync(`${root}node_modules`, `${closed}/node_modules`)
    chmodSync(closed, 0o700)
    const demo = new Demo(`${closed}/var`, { command: [process.execPath, `${closed}/dist/auth-relay.js`] })
    await demo.ready()
    const runtime = readFileSync(`${closed}/var/runtime-directory`, 'utf8').trim()
    await relayOpensByReadingMail(demo)
    expect(await demo.program.stop()).toEqual({ code: 0, signal: null })

    const again = new Demo(`${closed}/var`, { command: [process.execPath, `${closed}/dist/auth-relay.js`] })
    await again.ready()
    expect(readFileSync(`${closed}/var/runtime-directory`, 'utf8').trim()).toBe(runtime)
    expect((await shell(again.command('curl'))).status).toBe(0)
    await again.program.stop()
    rmSync(runtime, { recursive: true })
    remove()
  })

  test('and without root everything runs as the one user, and up reports it', async () => {
    const { path, remove } = temporaryDirectory()
    chownSync(path, 65_534, 65_534)
    // A change of the account resets the parent-death signal, so the program sets it again.
    const account = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--pdeathsig', 'KILL']
    const command = ['setpriv', ...account, ...commandOf('auth-relay')]
    const demo = new Demo(`${path}/var`, { command })
    await demo.ready()
    expect(demo.program.log.map(line => line.fields['event'])).toContain('privileges_shared')
    await relayOpensByReadingMail(demo)
    // Some processes end at any time; the ones that still exist are checked.
    const living = demo.processes().map(line => statusOf(Number(line.split(' ')[0])))
    const ids = living.flatMap(status => status?.uids ?? [])
    expect([...new Set(ids)]).toEqual([65_534])
    // No auth-relay program can be traced or dumped by another process of that user, because /proc
    // gives its files to root.
    const ours = living.filter(status =>
      status?.commandLine.some(word => /\/dist\/(?!demo-smtpd)[\w-]+\.js$/.test(word)),
    )
    expect(ours.length).toBeGreaterThanOrEqual(6)
    expect(ours.map(status => [status?.commandLine.join(' '), statSync(`/proc/${status?.pid}/environ`).uid])).toEqual(
      ours.map(status => [status?.commandLine.join(' '), 0]),
    )
    expect(await demo.program.stop()).toEqual({ code: 0, signal: null })
    expect(demo.processes()).toEqual([])
    remove()
  })
})
