import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { AcceptedSocket } from '../../../src/sockets/engine.ts'
import { Starters } from '../../../src/wrap/gate/starters.ts'
import { eventually } from '../../harness/eventually.ts'
import { acceptedSocket } from '../../harness/processes/accepted-socket.ts'
import { BOTH_ENGINES } from '../../harness/processes/engines.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const ids = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }

describe.each(BOTH_ENGINES)('over $name', ({ engine }) => {
  /** A starter that is ready, and answers the first octets with `answer`. */
  async function start(name: string, answer: string) {
    const script = `${directory.path}/${name}.mjs`
    writeFileSync(
      script,
      engine.name === 'node'
        ? `process.send('ready\\n')
         process.once('message', () => process.send(${JSON.stringify(answer)}))`
        : `import { Socket } from 'node:net'
         const link = new Socket({ fd: 3, readable: true, writable: true })
         link.write('ready\\n')
         link.once('data', () => link.write(${JSON.stringify(answer)}))
         link.on('end', () => process.exit()).on('error', () => process.exit())`,
    )
    const lines: string[] = []
    const log = createLog('wrap', { write: line => lines.push(line) })
    const starters = await Starters.start({ ids, engine, log, script, openFiles: () => 1024 })
    onTestFinished(() => starters.close())
    return { lines, program: starters.program('/bin/true', ['true'], ['PATH=/bin']), starters }
  }

  /** A client for the program; the caller keeps it when the program cannot be run. */
  async function socket(): Promise<AcceptedSocket> {
    const { socket, close } = await acceptedSocket(engine)
    onTestFinished(() => {
      socket.close()
      close()
    })
    return socket
  }

  test.each([
    ['an unknown line', 'hello\n'],
    ['an answer to a start that was never ordered', 'started n=99 pid=4242\n'],
    ['the end of a child that it never started', 'ended pid=4242 status=0\n'],
    ['an answer to a ping that was never sent', 'pong n=99\n'],
    ['a line that is too long', 'x'.repeat(1000)],
    ['the process id of init', 'started n=1 pid=1\n'],
  ])('a starter that sends %s is ended, and the start fails', async (name, answer) => {
    const { lines, program, starters } = await start(name.replaceAll(' ', '-'), `${answer}\n`)
    const [first, second, third] = [await socket(), await socket(), await socket()]
    await expect(program.run(first, [])).rejects.toThrow('the starter is lost: it sent an invalid message')
    expect(lines.filter(line => line.includes('event=starter_lost'))).toHaveLength(1)
    // The other starter behaves in the same way. Then no starter is left, and the gate must be
    // started again.
    await expect(program.run(second, [])).rejects.toThrow('the starter is lost')
    expect(await starters.failed).toContain('no starter of smtpds is left')
    await expect(program.run(third, [])).rejects.toThrow('no starter is left')
  })

  test('a starter that sends without end is ended, and this process does not grow', async () => {
    const script = `${directory.path}/endless-${engine.name}.mjs`
    const [say, hear] =
      engine.name === 'node'
        ? [`process.send('ready\\n')`, `process.once('message', flood)`]
        : [
            `writeSync(3, 'ready\\n')`,
            `new Socket({ fd: 3, readable: true }).once('data', flood).on('error', () => {})`,
          ]
    writeFileSync(
      script,
      `import { writeSync } from 'node:fs'
       import { Socket } from 'node:net'
       ${say}
       const octets = Buffer.alloc(65_536, 'x')
       const flood = () => {
         try { for (;;) writeSync(3, octets) } catch (error) { if (error.code !== 'EAGAIN') process.exit() }
         setTimeout(flood, 1)
       }
       ${hear}`,
    )
    const lines: string[] = []
    const log = createLog('wrap', { write: line => lines.push(line) })
    const before = process.memoryUsage.rss()
    const starters = await Starters.start({ ids, engine, log, script, openFiles: () => 1024 })
    onTestFinished(() => starters.close())
    const program = starters.program('/bin/true', ['true'], [])
    // Each starter floods the gate when it gets its first order.
    for (let count = 0; count < 2; count += 1) program.run(await socket(), []).catch(() => {})
    expect(await starters.failed).toContain('no starter of smtpds is left')
    expect(lines.filter(line => line.includes('event=starter_lost'))).toHaveLength(2)
    expect(process.memoryUsage.rss() - before).toBeLessThan(100 * 1_048_576)
  })

  test('a start goes to the starter with the fewest starts in progress', async () => {
    const script = `${directory.path}/silent-${engine.name}.mjs`
    const orders = `${directory.path}/orders-${engine.name}-`
    writeFileSync(
      script,
      engine.name === 'node'
        ? `import { appendFileSync } from 'node:fs'
           process.send('ready\\n')
           process.on('message', text => appendFileSync('${orders}' + process.pid, text, 'latin1'))`
        : `import { Socket } from 'node:net'
           import { appendFileSync } from 'node:fs'
           const link = new Socket({ fd: 3, readable: true, writable: true })
           link.write('ready\\n')
           link.on('data', octets => appendFileSync('${orders}' + process.pid, octets))
           link.on('end', () => process.exit()).on('error', () => process.exit())`,
    )
    const log = createLog('wrap', { write: () => {} })
    const starters = await Starters.start({ ids, engine, log, script, openFiles: () => 64 })
    onTestFinished(() => starters.close())
    const program = starters.program('/bin/true', ['true'], [])
    // No starter confirms them, and the gate drops them when it closes.
    for (let count = 0; count < 6; count += 1) program.run(await socket(), []).catch(() => {})
    const counts = () =>
      readdirSync(directory.path)
        .filter(name => `${directory.path}/${name}`.startsWith(orders))
        .map(name => readFileSync(`${directory.path}/${name}`, 'latin1').match(/start n=/g)?.length)
    await eventually('each starter has three starts', () => counts().join(' ') === '3 3')
  })

  test('a starter that is busy with starts does not count as hung, and a starter that sends nothing does', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => void vi.useRealTimers())
    const script = `${directory.path}/busy-${engine.name}.mjs`
    const answer =
      'for (const [, n] of String(text).matchAll(/start n=(\\d+) without=/g)) say("started n=" + n + " pid=" + (100_000 + Number(n)) + "\\n")'
    writeFileSync(
      script,
      engine.name === 'node'
        ? `const say = text => process.send(text)
           say('ready\\n')
           process.on('message', text => { ${answer} })`
        : `import { Socket } from 'node:net'
           const link = new Socket({ fd: 3, readable: true, writable: true })
           const say = text => link.write(text)
           say('ready\\n')
           link.on('data', text => { ${answer} }).on('end', () => process.exit()).on('error', () => process.exit())`,
    )
    const lines: string[] = []
    const log = createLog('wrap', { write: line => lines.push(line) })
    const starters = await Starters.start({ ids, engine, log, script, openFiles: () => 1024 })
    onTestFinished(() => starters.close())
    const program = starters.program('/bin/true', ['true'], [])
    for (let ping = 0; ping < 6; ping += 1) {
      // Each start goes to the starter with fewer starts in progress, so that both answer one
      // before every ping.
      const [first, second] = [await acceptedSocket(engine), await acceptedSocket(engine)]
      await Promise.all([program.run(first.socket, []), program.run(second.socket, [])])
      first.close()
      second.close()
      vi.advanceTimersByTime(4_000)
    }
    expect(lines).toEqual([])
    vi.advanceTimersByTime(16_000)
    expect(await starters.failed).toContain('no starter of smtpds is left')
  })

  test('a program that cannot be run keeps the starter', async () => {
    const { lines, program } = await start('failed', 'failed n=1 errno=13\n')
    await expect(program.run(await socket(), [])).rejects.toThrow('cannot run /bin/true: EACCES')
    await eventually('no starter is reported as lost', () => lines.length === 0)
  })

  test('a starter that cannot start a program is a temporary fault of the gate', async () => {
    const script = `${directory.path}/broken.mjs`
    writeFileSync(script, 'process.exit(1)')
    const log = createLog('wrap', { write: () => {} })
    await expect(Starters.start({ ids, engine, log, script, openFiles: () => 1024 })).rejects.toThrow(
      'the starter of the smtpd cannot work: it has ended',
    )
  })
})

test('a starter that receives an order of an unknown form logs it and ends', async () => {
  const script = new URL('../../../src/wrap/starter/main.ts', import.meta.url).pathname
  const starter = spawn(process.execPath, [script, `${ids.uid}:${ids.gid}`, 'node'], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  onTestFinished(() => {
    starter.kill('SIGKILL')
  })
  let log = ''
  starter.stderr?.on('data', (text: Buffer) => {
    log += text.toString()
  })
  const ended = new Promise(resolve => starter.once('close', resolve))
  starter.once('message', () => starter.send('hello\n'))
  expect(await ended).toBe(111)
  expect(log).toBe(`smtpd-starter: level=error event=starter_order_invalid pid=${starter.pid}\n`)
})
