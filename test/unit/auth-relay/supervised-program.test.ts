import { writeFileSync } from 'node:fs'
import { expect, onTestFinished, test, vi } from 'vitest'
import { SupervisedProgram } from '../../../src/auth-relay/stack/supervised-program.ts'
import { createLog } from '../../../src/base/log.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

test('the fault of a program that the system cannot start names the reason', async () => {
  const { execPath } = process
  onTestFinished(() => {
    process.execPath = execPath
  })
  process.execPath = '/nonexistent/node'
  const times = { readyWithin: 30_000, stopWithin: 1_000 }
  const spec = { name: 'popup', script: '/nonexistent/popup.js', args: [], env: {}, ...times }
  const program = new SupervisedProgram(spec, createLog('test'))
  await expect(program.start()).rejects.toThrow('popup: cannot be started: spawn /nonexistent/node ENOENT')
})

test('each fault of a program that is started again is an event', async () => {
  const directory = temporaryDirectory()
  const script = `${directory.path}/program.mjs`
  writeFileSync(
    script,
    `import { existsSync, writeFileSync, writeSync } from 'node:fs'
     const send = message => writeSync(3, JSON.stringify(message) + '\\n')
     const mark = '${directory.path}/started'
     if (!existsSync(mark)) {
       writeFileSync(mark, '')
       send({ type: 'ready', text: 'listen=1' })
       process.exit(1)
     } else {
       send({ type: 'faults', lines: ['popup.listen: is empty', 'popup.logins: is 0'] })
       process.exit(100)
     }`,
  )
  const lines: string[] = []
  const log = createLog('auth-relay', { write: line => lines.push(line) })
  const spec = { name: 'popup', script, args: [], env: {}, readyWithin: 30_000, stopWithin: 1_000 }
  const program = new SupervisedProgram(spec, log)
  onTestFinished(async () => {
    await program.stop()
    directory.remove()
  })
  expect(await program.start()).toBe('listen=1')
  await vi.waitFor(() => expect(lines.length).toBeGreaterThan(4), 20_000)
  expect(lines.slice(0, 5)).toEqual([
    'auth-relay: level=error event=program_ended program=popup status=1\n',
    'auth-relay: level=error event=restart_scheduled program=popup in_ms=100\n',
    'auth-relay: level=error event=restart_failed program=popup reason="popup.listen: is empty"\n',
    'auth-relay: level=error event=restart_failed program=popup reason="popup.logins: is 0"\n',
    'auth-relay: level=error event=restart_scheduled program=popup in_ms=200\n',
  ])
})
