import { execFileSync } from 'node:child_process'
import { mkdirSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, test, vi } from 'vitest'
import { Counters } from '../../../src/authd/counters.ts'
import { SyslogFifo } from '../../../src/authd/syslog-fifo.ts'
import { createLog } from '../../../src/base/log.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

let directory = temporaryDirectory()
let fifo: SyslogFifo | undefined
let lines: string[] = []

beforeEach(() => {
  directory = temporaryDirectory()
  lines = []
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
})
afterEach(() => {
  fifo?.close()
  fifo = undefined
  vi.useRealTimers()
  directory.remove()
})

function open(path: string): void {
  execFileSync('mkfifo', [path])
  fifo = new SyslogFifo({
    path,
    sources: { acceptLine: (_, line) => lines.push(line) },
    counters: new Counters(),
    log: createLog('authd', { write: () => {} }),
  })
}
const has = (line: string) => eventually(line, () => lines.includes(line))

test('a FIFO whose directory cannot be entered any more is read on, and so is its successor', async () => {
  const [original, moved] = [`${directory.path}/log`, `${directory.path}/away`]
  mkdirSync(original)
  open(`${original}/fifo`)
  renameSync(original, moved)
  // A loop of links stands for a directory that the account may not enter.
  symlinkSync(original, original)
  vi.advanceTimersByTime(5000)
  writeFileSync(`${moved}/fifo`, 'one\n')
  await has('one')

  unlinkSync(original)
  mkdirSync(original)
  execFileSync('mkfifo', [`${original}/fifo`])
  vi.advanceTimersByTime(5000)
  writeFileSync(`${original}/fifo`, 'two\n')
  await has('two')
})
