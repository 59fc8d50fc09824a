import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { createLog, type LogLevel } from '../../../src/base/log.ts'
import { epollLacks, selectEngine, settledChoice } from '../../../src/sockets/select-engine.ts'

function withLog<T>(run: (log: ReturnType<typeof createLog>) => T, level: LogLevel = 'info') {
  const lines: string[] = []
  return { result: run(createLog('popup', { level, write: line => lines.push(line) })), lines }
}

test('auto is epoll on this host, and says nothing', () => {
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

test('a process says at level debug what carries its connections, and the one above it does not', () => {
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

test('a process whose children carry the connections settles auto once for them', () => {
  const { result, lines } = withLog(log => [
    settledChoice('auto', 'popup.engine', log, () => 'no epoll'),
    settledChoice('auto', 'popup.engine', log, () => undefined),
    settledChoice('node', 'popup.engine', log),
    settledChoice('epoll', 'popup.engine', log, () => undefined),
  ])
  expect([result, lines.length]).toEqual([['node', 'auto', 'node', 'epoll'], 1])
})

test.runIf(process.arch === 'x64')(
  'a seccomp filter that forbids epoll_wait is found out, and the process goes on',
  () => {
    const module = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).pathname)
    const script = `
    const { nativeFunction, addressOf } = await import(${module('libc/native-function.ts')})
    const { epollLacks } = await import(${module('sockets/select-engine.ts')})
    const before = epollLacks()
    // struct sock_filter: load the number of the call; 232 is epoll_wait: EPERM; everything else is allowed (seccomp(2)).
    const filter = Buffer.alloc(4 * 8)
    const rules = [[0x20, 0, 0, 0], [0x15, 0, 1, 232], [0x06, 0, 0, 0x00050001], [0x06, 0, 0, 0x7fff0000]]
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
    const isFiltered = prctl(38, 1, null, 0, 0) === 0 && prctl(22, 2, program, 0, 0) === 0
    process.stdout.write([before, isFiltered, epollLacks()].join('|'))`
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
    expect(out).toBe('|true|epoll_wait does not report a readable socket')
  },
)
