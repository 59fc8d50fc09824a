import { writeSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { TemporaryFault, UsageFault } from '../../../src/base/errors.ts'
import { runDaemon } from '../../../src/process/lifecycle.ts'
import { holdListener, openListener } from '../../../src/process/listener.ts'
import { dropPrivileges, idsOf } from '../../../src/process/privileges.ts'
import { channelToParent, FIRST_LISTENING_DESCRIPTOR, startWorker } from '../../../src/process/worker-process.ts'

/** The rooms `process` and `settings` in real processes; the first argument selects the program. */
const [part = '', ...rest] = process.argv.slice(2)
const say = (text: string): void => console.log(text)

switch (part) {
  case 'daemon':
    await runDaemon('sample', async () => {
      if (rest[0] === 'usage') throw new UsageFault(['first fault: do this', 'second fault: do that'])
      if (rest[0] === 'temporary') throw new TemporaryFault('the world is not ready: wait')
      if (rest[0] === 'bug') throw new TypeError('our own mistake')
      if (rest[0] === 'slow') {
        say('starting')
        await new Promise(resolve => process.stdin.once('data', resolve))
      }
      const keepAlive = setInterval(() => {}, 60_000)
      return {
        ready: 'listen=127.0.0.1:1',
        reload: () => {
          say('reloaded')
          if (rest[0] !== 'bad-reload') return
          const second = { setting: 'sample.second', fact: 'the other fault', remedy: 'repair it too' }
          throw new UsageFault(['the file is wrong: repair it', second])
        },
        stop: async () => {
          say('stopping')
          if (rest[0] === 'stuck') await new Promise(() => {})
          clearInterval(keepAlive)
          if (rest[0] === 'bad-stop')
            throw new TemporaryFault({
              setting: 'sample.file',
              fact: 'the file cannot be removed',
              remedy: 'remove it',
            })
        },
        ...(rest[0] === 'fails' ? { failed: Promise.resolve('the socket is missing') } : {}),
      }
    })
    break
  case 'parent': {
    const server = createServer()
    const bound = await openListener(server, { kind: 'tcp', host: '127.0.0.1', port: 0 }, 'sample.listen')
    server.unref()
    const held = await holdListener({ kind: 'tcp', host: '127.0.0.1', port: 0 }, 'sample.held')
    const worker = startWorker(process.argv[1] ?? '', ['worker', ...rest], [held.descriptor])
    worker.channel.onMessage(message => say(`from worker: ${JSON.stringify(message)}`))
    worker.channel.onClose(() => say(`channel closed, peak ${process.resourceUsage().maxRSS} kB`))
    worker.channel.send({ text: 'line\nend', wide: '𝒶'.repeat(50_000) })
    say(`bound ${JSON.stringify(bound)} held ${JSON.stringify(held.address)} worker ${worker.child.pid}`)
    say(`worker ended ${JSON.stringify(await worker.ended)}`)
    process.exit(0)
    break
  }
  case 'worker': {
    const channel = channelToParent()
    channel.onClose(() => process.exit(0))
    if (rest[0] === 'garbage') {
      channel.onMessage(() => {})
      writeSync(3, 'no JSON\n{"after": "garbage"}\n')
      break
    }
    if (rest[0] === 'flood') {
      channel.send('x'.repeat(3_000_000))
      break
    }
    if (rest[0] !== undefined) dropPrivileges(idsOf(rest[0], 'sample.user'))
    channel.onMessage(message => {
      const wide: unknown = typeof message === 'object' && message !== null ? Reflect.get(message, 'wide') : ''
      channel.send({
        got: typeof wide === 'string' ? wide.length : -1,
        uid: process.getuid?.(),
        secrets: Object.keys(process.env).filter(name => /PASS|NOTIFY|SUPERVISED/.test(name)),
      })
    })
    const server = createServer(socket => socket.end(`worker ${process.pid}\n`))
    await openListener(server, { kind: 'descriptor', fd: FIRST_LISTENING_DESCRIPTOR }, 'inherited')
    break
  }
  case 'drop': {
    dropPrivileges(idsOf(rest[0] ?? '', 'sample.user'))
    say(`dropped uid=${process.getuid?.()} gid=${process.getgid?.()} groups=${JSON.stringify(process.getgroups?.())}`)
    try {
      process.setuid?.(0)
      say('became root again')
    } catch {
      say('no way back')
    }
    break
  }
  case 'handed': {
    // One socket is served, and one is only held for a worker, as in wrap and popup.
    const [port = '', path = ''] = rest
    await runDaemon('sample', async () => {
      const server = createServer(socket => socket.end(`served by ${process.pid}\n`))
      const bound = await openListener(server, { kind: 'tcp', host: '127.0.0.1', port: Number(port) }, 'sample.listen')
      const held = await holdListener({ kind: 'unix', path }, 'sample.socket')
      const holder = createServer(socket => socket.end('from the held one\n'))
      await openListener(holder, { kind: 'descriptor', fd: held.descriptor }, 'sample.socket')
      const stop = () => {
        server.close()
        holder.close()
      }
      return { ready: JSON.stringify({ bound, held: held.isActivated }), stop }
    })
    break
  }
  case 'busy': {
    // Listens with the shortest backlog, fills it with its own connections and never accepts.
    const server = createServer()
    await openListener(server, { kind: 'unix', path: rest[0] ?? '' }, 'sample.socket', { mode: 0o600 }, { backlog: 1 })
    say('listening')
    for (let n = 0; n < 10; n++) createConnection({ path: rest[0] ?? '' }).on('error', () => {})
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000)
  }
}
