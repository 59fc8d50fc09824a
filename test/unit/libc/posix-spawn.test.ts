import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { descriptorOf } from '../../../src/base/node-internals.ts'
import {
  posixSpawn,
  RepeatedSpawn,
  reapChildren,
  type SpawnRequest,
  waitedFor,
  waitFor,
} from '../../../src/libc/child-process.ts'
import { setBlocking } from '../../../src/libc/descriptors.ts'
import { openFilesLimit } from '../../../src/libc/this-process.ts'
import { eventually } from '../../harness/eventually.ts'

const directory = mkdtempSync(join(tmpdir(), 'posix-spawn-'))
let files = 0

/** Runs a shell script; returns its ending and its standard output. */
async function sh(script: string, request: Partial<SpawnRequest> = {}) {
  const path = join(directory, `out${files++}`)
  const out = openSync(path, 'w')
  const pid = posixSpawn({
    file: '/bin/sh',
    argv: ['sh', '-c', script],
    environment: [],
    ...request,
    descriptors: [{ from: out, to: 1 }, ...(request.descriptors ?? [])],
  })
  const ending = await waitFor(pid)
  closeSync(out)
  return { ending, out: readFileSync(path) }
}

test('an exit status and a killing signal are distinguished', async () => {
  expect((await sh('exit 0')).ending).toEqual({ code: 0 })
  expect((await sh('exit 111')).ending).toEqual({ code: 111 })
  expect((await sh('kill -9 $$')).ending).toEqual({ signal: 'SIGKILL' })
  expect(waitedFor()).toBe(0)
})

test('arguments and environment arrive octet by octet, also octets outside UTF-8', async () => {
  const { out } = await sh('printf "%s|%s|%s" "$A" "$B" "$0"', {
    argv: ['name', '-c', 'printf "%s|%s|%s" "$A" "$B" "$1"', 'name', Buffer.from([0xff, 0x41])],
    environment: ['A=ä=1', Buffer.from([0x42, 0x3d, 0xfe, 0x80])],
  })
  expect(out).toEqual(
    Buffer.concat([Buffer.from('ä=1|'), Buffer.from([0xfe, 0x80]), Buffer.from('|'), Buffer.from([0xff, 0x41])]),
  )
})

test('a NUL in an argument is refused, and does not shorten it', () => {
  expect(() => posixSpawn({ file: '/bin/true', argv: ['a\0b'], environment: [], descriptors: [] })).toThrow(TypeError)
})

test('the program is not found: an error with the name of the errno', () => {
  const request = { file: '/nonexistent/program', argv: ['x'], environment: [], descriptors: [] }
  expect(() => posixSpawn(request)).toThrow(expect.objectContaining({ code: 'ENOENT', syscall: 'posix_spawn' }))
})

test('PATH is searched only on request', async () => {
  const request = { file: 'true', argv: ['true'], environment: [], descriptors: [] }
  expect(() => posixSpawn(request)).toThrow(expect.objectContaining({ code: 'ENOENT' }))
  expect(await waitFor(posixSpawn({ ...request, searchPath: true }))).toEqual({ code: 0 })
})

test('descriptors that overwrite one another arrive at the right numbers', async () => {
  const [a, b] = ['a', 'b'].map(name => openSync(join(directory, name), 'w+'))
  if (a === undefined || b === undefined) throw new Error('not opened')
  const { ending } = await sh(`echo to-b >/proc/self/fd/${a}; echo to-a >/proc/self/fd/${b}`, {
    descriptors: [
      { from: b, to: a },
      { from: a, to: b },
    ],
  })
  expect(ending).toEqual({ code: 0 })
  expect(readFileSync(join(directory, 'a'), 'latin1')).toBe('to-a\n')
  expect(readFileSync(join(directory, 'b'), 'latin1')).toBe('to-b\n')
  closeSync(a)
  closeSync(b)
})

test('the child has its standard descriptors and none of the parent’s', async () => {
  const O_CLOEXEC = 0o2000000
  // Descriptors that the test runner inherited without close-on-exec stay open.
  const given = readdirSync('/proc/self/fd').filter(fd => {
    const info = existsSync(`/proc/self/fdinfo/${fd}`) ? readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1') : ''
    return info !== '' && (Number.parseInt(/flags:\s*(\d+)/.exec(info)?.[1] ?? '', 8) & O_CLOEXEC) === 0
  })
  // ls itself opens the directory as descriptor 3.
  const { out } = await sh('', { file: '/bin/ls', argv: ['ls', '/proc/self/fd'] })
  const seen = out.toString().trim().split(/\s+/)
  expect(seen).toEqual(expect.arrayContaining(['0', '1', '2']))
  expect(seen.filter(fd => !given.includes(fd) && Number(fd) > 3)).toEqual([])
})

test('signals that the runtime ignores are default again in the child, and none is blocked', async () => {
  const own = readFileSync('/proc/self/status', 'latin1')
  expect(BigInt(`0x${/SigIgn:\s*(\w+)/.exec(own)?.[1]}`) & (1n << 12n)).not.toBe(0n)
  const { out } = await sh('', { file: '/bin/cat', argv: ['cat', '/proc/self/status'] })
  expect(/SigIgn:\s*(\w+)/.exec(out.toString())?.[1]).toMatch(/^0+$/)
  expect(/SigBlk:\s*(\w+)/.exec(out.toString())?.[1]).toMatch(/^0+$/)
})

test('the child has its own session on request', async () => {
  const { out } = await sh('ps -o pid=,sid= -p $$ 2>/dev/null || cut -d" " -f1,6 /proc/$$/stat', { newSession: true })
  const [pid, session] = out.toString().trim().split(/\s+/)
  expect(session).toBe(pid)
})

test('the soft limit of open files changes in the child alone', async () => {
  const before = openFilesLimit()
  const { out } = await sh('ulimit -Sn', { openFiles: 256n })
  expect(out.toString()).toBe('256\n')
  expect(openFilesLimit()).toEqual(before)
})

test('an unread connection reaches the child complete and blocking, and is closed in the parent', async () => {
  const server = createServer({ pauseOnConnect: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const accepted = once(server, 'connection')
  const client = connect(address.port, '127.0.0.1')
  client.end('first\nsecond\n')
  const [socket] = await accepted
  if (!(socket instanceof Socket)) throw new Error('no socket')
  const fd = descriptorOf(socket)
  setBlocking(fd, true)
  const pid = posixSpawn({
    file: '/bin/sh',
    argv: ['sh', '-c', 'read a; read b; echo "$b $a"'],
    environment: [],
    descriptors: [
      { from: fd, to: 0 },
      { from: fd, to: 1 },
    ],
  })
  socket.destroy()
  let received = ''
  for await (const piece of client) received += piece
  expect(received).toBe('second first\n')
  expect(await waitFor(pid)).toEqual({ code: 0 })
  server.close()
  await once(server, 'close')
})

test('two hundred children at once: each reaped with its own status, no zombie, no descriptor left', async () => {
  const openBefore = readdirSync('/proc/self/fd').length
  const pids = Array.from({ length: 200 }, (_, i) =>
    posixSpawn({ file: '/bin/sh', argv: ['sh', '-c', `exit ${i % 100}`], environment: [], descriptors: [] }),
  )
  const endings = await Promise.all(pids.map(waitFor))
  expect(endings).toEqual(pids.map((_, i) => ({ code: i % 100 })))
  for (const pid of pids) expect(() => readlinkSync(`/proc/${pid}/exe`)).toThrow()
  expect(readdirSync('/proc/self/fd').length).toBe(openBefore)
})

describe('one program again and again', () => {
  const descriptor = openSync('/dev/null', 'r+')

  test('the event loop runs meanwhile, no memory is collected during the call, and each child has its own variables', async () => {
    const common = Array.from({ length: 20 }, (_, i) => `VARIABLE_${i}=${'x'.repeat(100)}`)
    const script = `[ "$VARIABLE_19" = ${'x'.repeat(100)} ] && exit "$STATUS"`
    const spawn = new RepeatedSpawn('/bin/sh', ['sh', '-c', script], common)
    let garbage: unknown[] = []
    let turns = 0
    const churning = setInterval(() => {
      turns += 1
      garbage = Array.from({ length: 2000 }, () => Buffer.alloc(4096))
    }, 0)
    const endings = await Promise.all(
      Array.from({ length: 300 }, async (_, i) => waitFor(await spawn.start(descriptor, [`STATUS=${i % 100}`]))),
    )
    clearInterval(churning)
    expect(garbage.length).toBeGreaterThan(0)
    expect(turns).toBeGreaterThan(3)
    expect(endings).toEqual(endings.map((_, i) => ({ code: i % 100 })))
  })

  test('the descriptor becomes the child’s 0 and 1; variables may be octets, none, or many', async () => {
    const spawn = new RepeatedSpawn('/usr/bin/env', ['env'], ['A=ä'])
    const outputWith = async (...environment: (string | Uint8Array)[]) => {
      const path = join(directory, `out${files++}`)
      const out = openSync(path, 'w')
      expect(await waitFor(await spawn.start(out, environment))).toEqual({ code: 0 })
      closeSync(out)
      return readFileSync(path)
    }
    expect(await outputWith()).toEqual(Buffer.from('A=ä\n'))
    expect(await outputWith('B=1', Buffer.from([0x43, 0x3d, 0xfe]))).toEqual(
      Buffer.concat([Buffer.from('A=ä\nB=1\nC='), Buffer.from([0xfe, 0x0a])]),
    )
    const many = Array.from({ length: 500 }, (_, i) => `LONG_${i}=${'y'.repeat(i)}`)
    expect((await outputWith(...many)).toString()).toBe(`A=ä\n${many.join('\n')}\n`)
    expect(await outputWith('B=2')).toEqual(Buffer.from('A=ä\nB=2\n'))
  })

  test('a program that cannot be started is an error, and the next start works', async () => {
    const spawn = new RepeatedSpawn(join(directory, 'no-such-program'), ['x'], [])
    await expect(spawn.start(descriptor, [])).rejects.toThrow(expect.objectContaining({ code: 'ENOENT' }))
    const works = new RepeatedSpawn('/bin/true', ['true'], [])
    await expect(works.start(descriptor, ['A=1\0B=2'])).rejects.toThrow(TypeError)
    expect(await waitFor(await works.start(descriptor, ['A=1']))).toEqual({ code: 0 })
  })

  test('on this thread: the same descriptors and variables, and errors at once', async () => {
    const path = join(directory, `out${files++}`)
    const out = openSync(path, 'w')
    const spawn = new RepeatedSpawn('/usr/bin/env', ['env'], ['A=1'])
    const block = Buffer.from('B=2\0C=\u{e4}\0', 'latin1')
    expect(await waitFor(spawn.startHere(out, block))).toEqual({ code: 0 })
    expect(await waitFor(spawn.startHere(out, Buffer.alloc(0)))).toEqual({ code: 0 })
    closeSync(out)
    expect(readFileSync(path, 'latin1')).toBe('A=1\nB=2\nC=\u{e4}\nA=1\n')
    expect(() => spawn.startHere(descriptor, Buffer.from('B=2'))).toThrow(TypeError)
    const missing = new RepeatedSpawn(join(directory, 'no-such-program'), ['x'], [])
    expect(() => missing.startHere(descriptor, block)).toThrow(expect.objectContaining({ code: 'ENOENT' }))
  })

  test('children without a waiter are reaped together', async () => {
    const ended = new Map<number, unknown>()
    const spawn = new RepeatedSpawn('/bin/sh', ['sh', '-c', 'exit "$STATUS"'], [])
    const pids = Array.from({ length: 20 }, (_, i) => spawn.startHere(descriptor, Buffer.from(`STATUS=${i}\0`)))
    const killed = new RepeatedSpawn('/bin/sh', ['sh', '-c', 'kill -KILL $$'], []).startHere(
      descriptor,
      Buffer.alloc(0),
    )
    await eventually('all have ended', () => {
      reapChildren((pid, ending) => ended.set(pid, ending))
      return ended.size === 21
    })
    expect(pids.map(pid => ended.get(pid))).toEqual(pids.map((_, i) => ({ code: i })))
    expect(ended.get(killed)).toEqual({ signal: 'SIGKILL' })
  })
})
