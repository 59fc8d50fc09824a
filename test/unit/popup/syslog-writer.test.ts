import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, expect, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { isStoppedProcess } from '../../../src/base/supervised-child.ts'
import { Announcer } from '../../../src/popup/monitor/announcer.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { eventually } from '../../harness/eventually.ts'
import { descendantsOf } from '../../harness/processes/process-status.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllEnvs()
})
afterAll(() => directory.remove())

/** An announcer whose logger is a shell script. `report` sends a line. */
function start(script: string) {
  const logger = `${directory.path}/logger`
  writeFileSync(logger, `#!/bin/sh\n${script}\n`)
  chmodSync(logger, 0o755)
  vi.stubEnv('PATH', `${directory.path}:${process.env['PATH']}`)
  const lines: string[] = []
  const log = createLog('popup', { write: line => lines.push(line) })
  const announcer = new Announcer(undefined, () => undefined, true, log)
  const ip = parseIpAddress('192.0.2.7') ?? expect.unreachable()
  return { announcer, lines, report: () => announcer.preambleFailure(ip, 'badpass') }
}

test('a logger that a signal has stopped is killed within 15 s, and later lines reach another one', async () => {
  const received = `${directory.path}/received`
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  const { announcer, lines, report } = start(`exec cat >>${received}`)
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

test('a logger that ends at once is started again with the back-off of every child, until popup ends', async () => {
  const { announcer, lines, report } = start('exit 3')
  report()
  const waits = () => lines.flatMap(line => /logger_ended .*exit status 3.* in_ms=(\d+)/.exec(line)?.[1] ?? [])
  await eventually('three runs', () => waits().length === 3)
  await announcer.close()
  expect(waits()).toEqual(['100', '200', '400'])
})

test('the last lines reach logger before it ends, and its end is not logged', async () => {
  const received = `${directory.path}/last`
  const { announcer, lines, report } = start(`sleep 0.3; cat >>${received}; echo end >>${received}`)
  report()
  report()
  await announcer.close()
  report()
  await eventually('the end', () => existsSync(received) && /end\n$/.test(readFileSync(received, 'utf8')))
  expect(readFileSync(received, 'utf8').split('\n')).toEqual([expect.anything(), expect.anything(), 'end', ''])
  expect(lines.filter(line => line.includes('logger_ended'))).toEqual([])
})
