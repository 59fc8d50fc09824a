import { execFileSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { LogLevel } from '../../../src/base/log-events/row.ts'
import { epollLacks, selectEngine, settledChoice } from '../../../src/sockets/select-engine.ts'

function withLog<T>(run: (log: ReturnType<typeof createLog>) => T, level: LogLevel = 'info') {
  const lines: string[] = []
  return { result: run(createLog('popup', { level, write: line => lines.push(line) })), lines }
}

test('auto selects epoll on this host without a log line', () => {
  expect(epollLacks()).toBeUndefined()
  const { result, lines } = withLog(log => selectEngine('auto', 'popup.engine', log))
  expect([result.name, lines]).toEqual(['epoll', []])
})

test('auto falls back to node with one line that names the reason', () => {
  const { result, lines } = withLog(log => selectEngine('auto', 'popup.engine', log, () => 'no epoll'))
  expect(result.name).toBe('node')
  expect(lines).toEqual([
    'popup: level=warn event=engine_selected setting=popup.engine engine=node reason="no epoll"\n',
  ])
})

test('epoll on a host without it is refused, and node needs no probe', () => {
  const { lines } = withLog(log => {
    expect(() => selectEngine('epoll', 'pop3d.engine', log, () => 'no epoll')).toThrow(
      'pop3d.engine: this host has no engine "epoll": no epoll: use "auto" or "node"',
    )
    expect(selectEngine('node', 'pop3d.engine', log, () => expect.unreachable()).name).toBe('node')
  })
  expect(lines).toEqual([])
})

test('a process logs its engine at level debug, and its parent does not', () => {
  const { lines } = withLog(log => {
    selectEngine('auto', 'popup.engine', log)
    selectEngine('node', 'wrap.engine', log)
    settledChoice('auto', 'pop3d.engine', log)
  }, 'debug')
  expect(lines).toEqual([
    'popup: level=debug event=engine_used setting=popup.engine engine=epoll\n',
    'popup: level=debug event=engine_used setting=wrap.engine engine=node\n',
  ])
})

test('a process whose children carry the connections selects the engine once for them', () => {
  const { result, lines } = withLog(log => [
    settledChoice('auto', 'popup.engine', log, () => 'no epoll'),
    settledChoice('auto', 'popup.engine', log, () => undefined),
    settledChoice('node', 'popup.engine', log),
    settledChoice('epoll', 'popup.engine', log, () => undefined),
  ])
  expect([result, lines.length]).toEqual([['node', 'auto', 'node', 'epoll'], 1])
})

test('a test that fails leaves no descriptor open', () => {
  // The process has room for `free` more descriptors, as after an attack with open connections.
  const script = `
    import { closeSync, openSync } from 'node:fs'
    import { epollLacks } from ${JSON.stringify(new URL('../../../src/sockets/select-engine.ts', import.meta.url).pathname)}
    epollLacks() // loads the native module
    const open = []
    const fill = () => { try { for (;;) open.push(openSync('/dev/null')) } catch (error) { return error.code } }
    const results = []
    for (const free of [0, 1, 2, 3]) {
      fill()
      for (const fd of open.splice(0, free)) closeSync(fd)
      const lack = epollLacks() ?? 'nothing'
      const before = open.length
      fill()
      results.push([lack, open.length - before])
    }
    process.stdout.write(JSON.stringify(results))`
  const command = ['-c', 'ulimit -n 100 && exec "$@"', 'sh', process.execPath, '--input-type=module', '-e', script]
  const results: unknown = JSON.parse(execFileSync('sh', command, { encoding: 'utf8' }))
  expect(results).toEqual([
    [expect.stringContaining('EMFILE'), 0],
    [expect.stringContaining('EMFILE'), 1],
    [expect.stringContaining('EMFILE'), 2],
    ['recvmsg does not receive a descriptor', 3],
  ])
})

/**
 * Runs in a separate process: `before` removes a requirement, then `auto` selects. Returns the
 * engine and its log.
 */
function chooseWithout(before: string): string {
  const module = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).pathname)
  const script = `
    ${before}
    const { createLog } = await import(${module('base/log.ts')})
    const { selectEngine } = await import(${module('sockets/select-engine.ts')})
    const lines = []
    const log = createLog('popup', { write: line => lines.push(line) })
    const { name } = selectEngine('auto', 'popup.engine', log)
    process.stdout.write([name, ...lines].join(' | '))`
  return execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
}

const warning = (reason: string): string =>
  `node | popup: level=warn event=engine_selected setting=popup.engine engine=node reason=${JSON.stringify(reason)}\n`

describe('auto on a host without a requirement of epoll is node, with one line that names the requirement', () => {
  test('nothing is missing: the process has epoll', () => {
    expect(chooseWithout('')).toBe('epoll')
  })

  test('another C library: the native module cannot be loaded', () => {
    const reason = 'Error relocating koffi.node: fcntl64: symbol not found'
    const output = chooseWithout(`process.dlopen = () => { throw new Error(${JSON.stringify(reason)}) }`)
    expect(output).toContain('node | popup: level=warn event=engine_selected setting=popup.engine engine=node reason=')
    expect(output).toContain(reason)
  })

  test.each([
    ['platform', 'freebsd', 'the system is freebsd, not Linux'],
    ['arch', 'riscv64', 'the processor riscv64 is not known'],
  ])('another %s', (property, value, reason) => {
    expect(chooseWithout(`Object.defineProperty(process, '${property}', { value: '${value}' })`)).toBe(warning(reason))
  })

  const [EPERM, ENOSYS] = [1, 38]
  describe.runIf(process.arch === 'x64')('a system call', () => {
    test.each([
      ['an old kernel has no epoll_create1', 291, ENOSYS, 'epoll_create1: '],
      ['a seccomp filter forbids epoll_ctl', 233, EPERM, 'epoll_ctl: '],
      ['a seccomp filter forbids epoll_wait', 232, EPERM, 'epoll_wait does not report a readable socket'],
      ['a seccomp filter forbids sendmsg', 46, EPERM, 'sendmsg does not send a descriptor'],
      ['a seccomp filter forbids send', 44, EPERM, 'send does not send an octet'],
      ['a seccomp filter forbids recv', 45, EPERM, 'recv does not receive an octet'],
      ['a seccomp filter forbids recvmsg', 47, EPERM, 'recvmsg does not receive a descriptor'],
    ])('%s', (_, call, errno, reason) => {
      const native = JSON.stringify(new URL('../../../src/libc/native-function.ts', import.meta.url).pathname)
      const output = chooseWithout(`
        const { nativeFunction, addressOf } = await import(${native})
        // struct sock_filter: load the number of the call; if it is this one, fail; everything else
        // is allowed (seccomp(2)).
        const rules = [[0x20, 0, 0, 0], [0x15, 0, 1, ${call}], [0x06, 0, 0, 0x00050000 + ${errno}], [0x06, 0, 0, 0x7fff0000]]
        const filter = Buffer.alloc(rules.length * 8)
        rules.forEach(([code, yes, no, value], at) => {
          filter.writeUInt16LE(code, at * 8)
          filter.writeUInt8(yes, at * 8 + 2)
          filter.writeUInt8(no, at * 8 + 3)
          filter.writeUInt32LE(value, at * 8 + 4)
        })
        const program = Buffer.alloc(16)
        program.writeUInt16LE(rules.length, 0)
        program.writeBigUInt64LE(BigInt(addressOf(filter)), 8)
        const prctl = nativeFunction('int prctl(int option, unsigned long a, const void *b, unsigned long c, unsigned long d)')
        if (prctl(38, 1, null, 0, 0) !== 0 || prctl(22, 2, program, 0, 0) !== 0) throw new Error('no filter')`)
      expect(output).toMatch(
        /^node \| popup: level=warn event=engine_selected setting=popup.engine engine=node reason=.*\n$/,
      )
      expect(output).toContain(reason)
    })
  })
})
