import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { notifySocket } from '../../../src/libc/sockets.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const FIXTURE = new URL('daemon-for-tests.ts', import.meta.url).pathname
const command = (...args: string[]) => [process.execPath, FIXTURE, 'daemon', ...args]

let programs: Program[] = []
const start = (args: string[], env = {}): Program => {
  const program = new Program('sample', command(...args), { env })
  programs.push(program)
  return program
}
afterEach(async () => {
  await Promise.all(programs.map(program => program.stop()))
  programs = []
})

describe('a daemon', () => {
  test('reports that it is ready, has its name in the process table, reloads on SIGHUP, stops on SIGTERM with status 0', async () => {
    const daemon = start([])
    expect(await daemon.waitForLine(/ready/)).toBe('sample ready listen=127.0.0.1:1')
    expect(readFileSync(`/proc/${daemon.pid}/comm`, 'utf8')).toBe('sample\n')
    daemon.signal('SIGHUP')
    await daemon.waitForLine(/^reloaded$/)
    daemon.signal('SIGTERM')
    expect(await daemon.ended).toEqual({ code: 0, signal: null })
    expect(daemon.lines).toEqual(['sample ready listen=127.0.0.1:1', 'reloaded', 'stopping'])
  })

  test('a reload that fails is logged, and the daemon continues', async () => {
    const daemon = start(['bad-reload'])
    await daemon.waitForLine(/ready/)
    daemon.signal('SIGHUP')
    await daemon.waitForLine(/second/)
    expect(daemon.log.map(({ fields }) => fields)).toEqual([
      { level: 'error', event: 'reload_failed', trigger: 'signal', reason: 'the file is wrong: repair it' },
      {
        level: 'error',
        event: 'reload_failed',
        trigger: 'signal',
        setting: 'sample.second',
        reason: 'the other fault',
        remedy: 'repair it too',
      },
    ])
    expect(daemon.lines).toEqual([
      'sample ready listen=127.0.0.1:1',
      'reloaded',
      expect.any(String),
      expect.any(String),
    ])
    expect(daemon.ending).toBeUndefined()
  })

  test.each([
    ['bad-stop', 'stop_failed', { setting: 'sample.file', reason: 'the file cannot be removed', remedy: 'remove it' }],
    ['fails', 'program_failed', { reason: 'the socket is missing' }],
  ])('%s: the daemon ends with status 111 and logs %s', async (word, event, fields) => {
    const daemon = start([word])
    await daemon.waitForLine(/ready/)
    if (word === 'bad-stop') daemon.signal('SIGTERM')
    expect(await daemon.ended).toEqual({ code: 111, signal: null })
    expect(daemon.log.map(line => line.fields)).toEqual([{ level: 'error', event, ...fields }])
  })

  test('SIGHUP during the start does not end the daemon, and is a reload after the start', async () => {
    const daemon = start(['slow'])
    await daemon.waitForLine(/^starting$/)
    daemon.signal('SIGHUP')
    daemon.child.stdin?.write('go on\n')
    await daemon.waitForLine(/^reloaded$/)
    expect(daemon.lines).toEqual(['starting', 'sample ready listen=127.0.0.1:1', 'reloaded'])
  })

  test('a second signal ends a stop that hangs', async () => {
    const daemon = start(['stuck'])
    await daemon.waitForLine(/ready/)
    daemon.signal('SIGINT')
    await daemon.waitForLine(/^stopping$/)
    daemon.signal('SIGTERM')
    expect(await daemon.ended).toEqual({ code: 111, signal: null })
  })

  test('under a supervisor of auth-relay the end of standard input ends the daemon', async () => {
    const daemon = start([], { AUTHRELAY_SUPERVISED: '1' })
    await daemon.waitForLine(/ready/)
    daemon.child.stdin?.end()
    expect(await daemon.ended).toEqual({ code: 0, signal: null })
  })

  test('without a supervisor the end of standard input does not end the daemon', async () => {
    const daemon = start([])
    daemon.child.stdin?.end()
    await daemon.waitForLine(/ready/)
    daemon.signal('SIGHUP')
    await daemon.waitForLine(/^reloaded$/)
  })
})

test.each([
  ['usage', 100, ['sample: first fault: do this', 'sample: second fault: do that']],
  ['temporary', 111, ['sample: the world is not ready: wait']],
])('faults at the start, %s: lines and exit status', async (fault, code, lines) => {
  const daemon = await run(command(fault))
  expect(daemon.lines).toEqual(lines)
  expect(daemon.ending).toEqual({ code, signal: null })
})

test('a programming error shows its stack', async () => {
  const daemon = await run(command('bug'))
  expect(daemon.lines[0]).toBe('sample: internal error: TypeError: our own mistake')
  expect(daemon.lines.length).toBeGreaterThan(1)
  expect(daemon.ending?.code).toBe(111)
})

/**
 * A service manager's socket that prints each datagram as a line. perl is part of every Debian
 * system.
 */
const SERVICE_MANAGER = `
  use Socket; $| = 1;
  socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; bind($s, pack_sockaddr_un($ARGV[0])) or die; print "bound\\n";
  while (defined recv($s, my $text, 4096, 0)) { print "$text\\n" }
`

describe('service manager', () => {
  let directory: ReturnType<typeof temporaryDirectory>
  let manager: Program
  beforeEach(async () => {
    directory = temporaryDirectory()
    manager = new Program('manager', ['perl', '-e', SERVICE_MANAGER, `${directory.path}/notify`])
    await manager.waitForLine(/^bound$/)
  })
  afterEach(async () => {
    await manager.stop()
    directory.remove()
  })

  test('receives READY, WATCHDOG at half its interval, and STOPPING', async () => {
    const daemon = start([], { NOTIFY_SOCKET: `${directory.path}/notify`, WATCHDOG_USEC: '40000' })
    await manager.waitForLine(/^READY=1$/)
    await manager.waitForLine(/^WATCHDOG=1$/)
    await daemon.waitForLine(/ready/)
    daemon.signal('SIGTERM')
    await manager.waitForLine(/^STOPPING=1$/)
    expect(await daemon.ended).toEqual({ code: 0, signal: null })
  })

  test('WATCHDOG is not sent if WATCHDOG_PID names another process', async () => {
    const daemon = start([], { NOTIFY_SOCKET: `${directory.path}/notify`, WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' })
    await daemon.waitForLine(/ready/)
    daemon.signal('SIGTERM')
    await manager.waitForLine(/^STOPPING=1$/)
    expect(manager.lines).not.toContain('WATCHDOG=1')
  })

  test('a missing service manager does not stop the daemon', async () => {
    const daemon = start([], { NOTIFY_SOCKET: `${directory.path}/nobody` })
    await daemon.waitForLine(/ready/)
    daemon.signal('SIGTERM')
    expect(await daemon.ended).toEqual({ code: 0, signal: null })
  })

  test('datagrams arrive whole, also in the abstract name space', async () => {
    notifySocket(`${directory.path}/notify`, `STATUS=${'é'.repeat(1000)}`)
    await manager.waitForLine(/^STATUS=é{1000}$/)
    const name = `auth-relay-test-${process.pid}`
    const abstract = new Program('abstract', ['perl', '-e', SERVICE_MANAGER.replace('$ARGV[0]', '"\\0$ARGV[0]"'), name])
    await abstract.waitForLine(/^bound$/)
    notifySocket(`@${name}`, 'READY=1')
    await abstract.waitForLine(/^READY=1$/)
    await abstract.stop()
    expect(() => notifySocket(`@${name}`, 'READY=1')).toThrow(/cannot notify/)
    expect(() => notifySocket(`${directory.path}/nobody`, 'READY=1')).toThrow(/cannot notify/)
  })
})
