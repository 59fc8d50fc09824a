import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { GateDatabase } from '../../harness/postgres/gate-database.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { ENGINE_OF_RUN } from '../../harness/processes/engines.ts'
import { descendantsOf, type ProcessStatus } from '../../harness/processes/process-status.ts'
import type { Program } from '../../harness/processes/program.ts'
import { describeWith, ROOT } from '../../harness/runner/describe-with.ts'
import { Stack, TEST_IDS, type TestSettings } from '../../harness/stack.ts'

describeWith([ROOT], 'the smtpd under a separate account', () => {
  let stack: Stack
  let grants: GateDatabase
  /** Prints its ids, environment and descriptors, then answers `bye` to each line until QUIT. */
  let smtpd: string
  const sockets: Socket[] = []

  beforeAll(async () => {
    stack = new Stack()
    grants = await GateDatabase.create()
    smtpd = `${stack.directory}/who.sh`
    writeFileSync(
      smtpd,
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's, not ours
      '#!/bin/sh\necho "220 $$ uid=$(id -u) gid=$(id -g) groups=$(id -G) relay=${RELAYCLIENT-unset} x=${X-unset} $*"\nwhile read -r word; do case $word in quit*) exit 7;; esac; echo "250 $word"; done\n',
      { mode: 0o755 },
    )
  })
  afterEach(async () => {
    // An smtpd that waits for its client keeps the log of the gate open.
    for (const socket of sockets.splice(0)) socket.destroy()
    await stack.stopPrograms()
    await grants.database.owner.script('DELETE FROM grants')
  })
  afterAll(async () => {
    await stack.stop()
    await grants.remove()
  })

  const start = async (
    wrap: TestSettings[string] = {},
    env: Readonly<Record<string, string>> = {},
  ): Promise<Program> => {
    stack.configure({
      '': { log_level: 'debug' },
      ...grants.settings,
      wrap: { listen: ['127.0.0.1:0'], smtpd: [smtpd], ...wrap },
    })
    const gate = await stack.start('wrap', { env: { LC_ALL: 'C', ...env } })
    await stack.waitForEngine('wrap', 'wrap.engine')
    expect(starters(gate).map(({ commandLine }) => commandLine.at(-1))).toEqual([ENGINE_OF_RUN, ENGINE_OF_RUN])
    return gate
  }
  const session = (): Conversation => {
    const socket = connect(stack.port('wrap'), '127.0.0.1')
    sockets.push(socket)
    return new Conversation('client', socket)
  }
  const banner = async (client = session()) => {
    // With many at once the last client waits until all others have their smtpd.
    const { text } = await client.expect(/^\d{3} /, 60_000)
    return { client, text, pid: Number(/^220 (\d+)/.exec(text)?.[1]) }
  }
  const starters = (gate: Program): readonly ProcessStatus[] =>
    descendantsOf(gate.pid).filter(({ commandLine }) => commandLine.some(word => word.endsWith('/smtpd-starter.js')))
  const ends = (pid: number) => stack.waitForLog('wrap', { event: 'smtpd_ended', pid: `${pid}` })

  test('a starter changes no id, signal, descriptor or limit of the smtpd', async () => {
    await grants.grant('127.0.0.1', 'ann')
    const gate = await start({ smtpd: [smtpd, 'an argument', ''], max_connections: 20 }, { X: 'plain' })
    const { client, text, pid } = await banner()
    const { smtpd: id } = TEST_IDS
    expect(text).toMatch(new RegExp(`^220 \\d+ uid=${id} gid=${id} groups=${id} relay= x=plain an argument $`))
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    for (const set of ['SigIgn', 'SigBlk', 'SigPnd', 'CapEff', 'CapPrm'])
      expect(status).toMatch(new RegExp(`^${set}:\\s+0+$`, 'm'))
    expect(status).toMatch(/^NoNewPrivs:\s+0$/m)
    // The socket is blocking, as with tcpserver.
    const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/0`, 'utf8'))?.[1] ?? ''
    expect(Number.parseInt(flags, 8) & 0o4000).toBe(0)
    const open = readdirSync(`/proc/${pid}/fd`).map(fd => [fd, readlinkSync(`/proc/${pid}/fd/${fd}`)] as const)
    const links = Object.fromEntries(open)
    expect(links['0']).toMatch(/^socket:/)
    expect(links['1']).toBe(links['0'])
    expect(links['2']).toBe(readlinkSync(`/proc/${gate.pid}/fd/2`))
    // The shell keeps its script open, and a descriptor of the test's parent may be inherited. No
    // other descriptor is open.
    const inherited = new Set(readdirSync('/proc/self/fd').map(fd => linkOf(`/proc/self/fd/${fd}`)))
    expect(open.filter(([fd, target]) => Number(fd) > 2 && target !== smtpd && !inherited.has(target))).toEqual([])
    expect(readlinkSync(`/proc/${pid}/cwd`)).toBe(readlinkSync(`/proc/${gate.pid}/cwd`))
    const group = (of: number) =>
      readFileSync(`/proc/${of}/stat`, 'latin1')
        .replace(/^.*\) /s, '')
        .split(' ')[2]
    expect(group(pid)).toBe(group(gate.pid))
    const umask = (of: number) => /^Umask:\s+(\d+)$/m.exec(readFileSync(`/proc/${of}/status`, 'utf8'))?.[1]
    expect(umask(pid)).toBe(umask(gate.pid))
    expect(readFileSync(`/proc/${pid}/limits`, 'utf8')).toBe(readFileSync(`/proc/${gate.pid}/limits`, 'utf8'))
    client.say('quit')
    expect((await ends(pid)).fields).toMatchObject({ status: '7' })
    const again = await banner()
    process.kill(again.pid, 'SIGKILL')
    expect((await ends(again.pid)).fields).toMatchObject({ signal: 'SIGKILL' })
    expect(starters(gate)).toHaveLength(2)
  })

  test('an smtpd that cannot be run: 421, and the gate continues', async () => {
    const gone = `${stack.directory}/gone.sh`
    writeFileSync(gone, '#!/no-such-directory/interpreter\n', { mode: 0o755 })
    await start({ smtpd: [gone] })
    expect((await banner()).text).toBe('421 unable to run smtpd (#4.3.0)')
    expect((await banner()).text).toBe('421 unable to run smtpd (#4.3.0)')
    await stack.waitForLog('wrap', { event: 'connection_failed', reason: /ENOENT/ })
  })

  test('a starter that ends is replaced: sessions continue, and their ends are noticed', async () => {
    const gate = await start()
    const first = await banner()
    const [active, spare] = starters(gate)
    process.kill(active?.pid ?? 0, 'SIGKILL')
    const line = await stack.waitForLog('wrap', { event: 'starter_lost', left: '1' })
    expect(line.fields['pid']).toBe(`${active?.pid}`)
    const second = await banner()
    for (const { client } of [first, second]) await client.ask('hello', /^250 hello/)
    first.client.say('quit')
    expect((await ends(first.pid)).fields).toMatchObject({ status: 'unknown' })
    second.client.say('quit')
    expect((await ends(second.pid)).fields).toMatchObject({ status: '7' })
    // Without a starter the gate cannot serve, so its supervisor starts it again as root.
    process.kill(spare?.pid ?? 0, 'SIGKILL')
    expect((await gate.ended).code).toBe(111)
    expect(
      await stack.waitForLog('wrap', { event: 'program_failed', reason: /^no starter of smtpds is left/ }),
    ).toBeDefined()
  })

  test('a starter that hangs is killed and replaced', async () => {
    const gate = await start()
    const first = await banner()
    const [active] = starters(gate)
    process.kill(active?.pid ?? 0, 'SIGSTOP')
    // This client waits for an smtpd that no starter starts, and gets 421 when the gate has noticed
    // it: after 15 s at most, as test/unit/base/supervised-child.test.ts shows.
    const waiting = session()
    await waiting.expect(/^421 /, 40_000)
    await stack.waitForLog('wrap', { event: 'starter_lost', left: '1', reason: /does not answer/ })
    await (await banner()).client.ask('served', /^250 served/)
    await first.client.ask('still', /^250 still/)
    await eventually('the hung starter is ended', () => starters(gate).length === 1)
  })

  test('SIGTERM: the gate drains through the starter; the starters end with the gate, and sessions continue', async () => {
    const gate = await start({ drain_time: 0 })
    const { client, pid } = await banner()
    const pids = starters(gate).map(({ pid: each }) => each)
    gate.signal('SIGTERM')
    await eventually('the gate has ended', () => gate.child.exitCode === 0)
    await eventually('the starters have ended', () => pids.every(each => !isRunning(each)))
    await client.ask('hello', /^250 hello/)
    expect(isRunning(pid)).toBe(true)
    client.say('quit')
    await eventually('the smtpd has ended', () => !isRunning(pid))
  })

  test('serves more connections at once than the channel holds', async () => {
    stack.showLogsOnFailure()
    await start({ max_connections: 400 })
    const clients = await Promise.all(Array.from({ length: 300 }, () => banner(session())))
    expect(new Set(clients.map(({ pid }) => pid)).size).toBe(300)
    for (const { client } of clients) client.say('quit')
    await Promise.all(clients.map(({ pid }) => ends(pid)))
  })
})

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined // the descriptor of the listing itself
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false // ESRCH
  }
}
