import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { setBlocking, setCloseOnExec, setPipeSize } from '../../../src/libc/descriptors.ts'
import { openFilesLimit, setOpenFilesLimit } from '../../../src/libc/this-process.ts'

const directory = mkdtempSync(join(tmpdir(), 'libc-'))
const fifo = join(directory, 'fifo')
execFileSync('mkfifo', [fifo])

/** Runs TypeScript in a separate process, for calls that change the process permanently. */
function apart(source: string): string {
  const child = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', source], {
    cwd: join(import.meta.dirname, '../../../src/libc'),
    encoding: 'utf8',
  })
  if (child.status !== 0) throw new Error(`status ${child.status}: ${child.stderr}`)
  return child.stdout
}
const from = (name: string) => JSON.stringify(join(import.meta.dirname, '../../../src/libc', `${name}.ts`))

/** Octal flags of an open file as the kernel shows them. */
const flags = (fd: number) =>
  Number.parseInt(/flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '', 8)

test('a FIFO grows, and a descriptor that is not a pipe is an error', () => {
  const fd = openSync(fifo, 'r+')
  expect(setPipeSize(fd, 256 * 1024)).toBe(256 * 1024)
  closeSync(fd)
  expect(() => setPipeSize(fd, 4096)).toThrow(expect.objectContaining({ code: 'EBADF' }))
})

test('O_NONBLOCK is set and cleared, other flags are kept', () => {
  const fd = openSync(fifo, 'r+')
  const before = flags(fd)
  setBlocking(fd, false)
  expect(flags(fd)).toBe(before | 0o4000)
  setBlocking(fd, true)
  expect(flags(fd)).toBe(before)
  closeSync(fd)
})

test('close-on-exec is cleared and set', () => {
  const fd = openSync(fifo, 'r+')
  setCloseOnExec(fd, false)
  expect(flags(fd) & 0o2000000).toBe(0)
  setCloseOnExec(fd, true)
  expect(flags(fd) & 0o2000000).not.toBe(0)
  closeSync(fd)
})

test('the soft limit of open files is lowered and raised again, never above the hard one', () => {
  const { soft, hard } = openFilesLimit()
  setOpenFilesLimit(100n)
  expect(openFilesLimit()).toEqual({ soft: 100n, hard })
  setOpenFilesLimit(hard + 1n)
  expect(openFilesLimit().soft).toBe(hard)
  setOpenFilesLimit(soft)
})

test('a process that forbids core dumps and new privileges, and ends with its parent', () => {
  const out = apart(`
    import { forbidDumps, forbidNewPrivileges, signalOnParentDeath } from ${from('this-process')}
    import { nativeFunction } from ${from('native-function')}
    const get = nativeFunction('int prctl(int option, void *out, long b, long c, long d)')
    const signal = Buffer.alloc(4)
    const [GET_PDEATHSIG, GET_DUMPABLE, GET_NO_NEW_PRIVS] = [2, 3, 39]
    forbidDumps()
    forbidNewPrivileges()
    signalOnParentDeath(15)
    get(GET_PDEATHSIG, signal, 0, 0, 0)
    console.log(get(GET_DUMPABLE, null, 0, 0, 0), get(GET_NO_NEW_PRIVS, null, 0, 0, 0), signal.readInt32LE(0))
  `)
  expect(out).toBe('0 1 15\n')
})

test('execve replaces the process: same pid, exact octets, restored signals and limit', () => {
  const script = 'echo $$ $0 "$A"; ulimit -Sn; grep SigIgn /proc/self/status'
  const out = apart(`
    import { execve, resetSignals, setOpenFilesLimit } from ${from('this-process')}
    import { setCloseOnExec } from ${from('descriptors')}
    import { writeSync } from 'node:fs'
    writeSync(1, process.pid + '\\n')
    resetSignals(['SIGPIPE', 'SIGXFSZ'])
    setOpenFilesLimit(128n)
    for (const fd of [0, 1, 2]) setCloseOnExec(fd, false)
    throw execve('/bin/sh', ['name', '-c', ${JSON.stringify(script)}], ['PATH=/usr/bin:/bin', Buffer.from([65, 61, 0xc3, 0xa4])])
  `)
  expect(out).toMatch(/^(\d+)\n\1 name ä\n128\nSigIgn:\s*0+\n$/)
})

test('execve returns with the reason if the kernel refuses it', () => {
  const out = apart(`
    import { execve } from ${from('this-process')}
    process.stdout.write(execve('/etc/passwd', ['x'], []).code + ' ' + execve('/nonexistent', ['x'], []).code)
  `)
  expect(out).toBe('EACCES ENOENT')
})

test('the kernel shows that a thread has batch scheduling', () => {
  const policy = `Number(readFileSync('/proc/self/stat', 'latin1').replace(/^.*\\) /s, '').split(' ')[38])`
  const output = apart(`
    import { readFileSync } from 'node:fs'
    import { scheduleAsBatch } from ${from('this-process')}
    const before = ${policy}
    console.log(before, scheduleAsBatch(), ${policy})`)
  expect(output).toBe('0 true 3\n')
})

test('free memory between blocks in use is returned to the system', () => {
  const out = apart(`
    import { nativeFunction } from ${from('native-function')}
    import { trimHeap } from ${from('this-process')}
    import { readFileSync } from 'node:fs'
    const malloc = nativeFunction('intptr_t malloc(size_t size)')
    const memset = nativeFunction('intptr_t memset(intptr_t memory, int octet, size_t size)')
    const free = nativeFunction('int free(intptr_t memory)')
    const resident = () => Number(/^VmRSS:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1])
    const SIZE = 50_000
    const blocks = Array.from({ length: 1000 }, () => memset(malloc(SIZE), 1, SIZE))
    const last = malloc(SIZE)
    for (const block of blocks) free(block)
    const before = resident()
    const isTrimmed = trimHeap()
    console.log(JSON.stringify({ isTrimmed, kilobytes: before - resident() }))
    free(last)`)
  const { isTrimmed, kilobytes }: { isTrimmed: boolean; kilobytes: number } = JSON.parse(out)
  expect(isTrimmed).toBe(true)
  expect(kilobytes).toBeGreaterThan(40_000)
})
