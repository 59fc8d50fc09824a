import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { isStoppedProcess } from '../../../src/base/supervised-child.ts'
import { Announcer } from '../../../src/popup/monitor/announcer.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { eventually } from '../../harness/eventually.ts'
import { descendantsOf } from '../../harness/process-status.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
  directory.remove()
})

test('a logger that a signal has stopped is killed within 15 s, and later lines reach another one', async () => {
  const [logger, received] = [`${directory.path}/logger`, `${directory.path}/received`]
  writeFileSync(logger, `#!/bin/sh\nexec cat >>${received}\n`)
  chmodSync(logger, 0o755)
  vi.stubEnv('PATH', `${directory.path}:${process.env['PATH']}`)
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  const lines: string[] = []
  const log = createLog('popup', { write: line => lines.push(line) })
  const announcer = new Announcer(undefined, () => undefined, true, log)
  const ip = parseIpAddress('192.0.2.7') ?? expect.unreachable()
  const report = (): void => announcer.preambleFailure(ip, 'badpass')
  report()
  await eventually('the line is written', () => existsSync(received) && readFileSync(received, 'utf8') !== '')
  const first = descendantsOf(process.pid).find(({ commandLine }) => commandLine.join(' ') === 'cat')?.pid ?? 0
  process.kill(first, 'SIGSTOP')
  await eventually('it is stopped', () => isStoppedProcess(first))
  vi.advanceTimersByTime(15_000)
  await eventually('its end is logged', () => lines.some(line => /logger_ended .*signal had stopped it/.test(line)))
  const before = readFileSync(received, 'utf8').length
  await eventually('another logger writes', () => {
    report()
    return readFileSync(received, 'utf8').length > before
  })
  await announcer.close()
})
