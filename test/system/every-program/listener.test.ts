import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { TemporaryFault, UsageFault } from '../../../src/base/errors.ts'
import { descriptorOf } from '../../../src/base/node-internals.ts'
import { accountNamed, accountWithUid } from '../../../src/libc/accounts.ts'
import { peerCredentials } from '../../../src/libc/sockets.ts'
import { holdListener, openListener } from '../../../src/process/listener.ts'
import type { SocketAddress } from '../../../src/process/socket-address.ts'
import { readSecretFile } from '../../../src/settings/secret.ts'
import { Program } from '../../harness/processes/program.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const servers: Server[] = []
const server = (): Server => {
  const created = createServer(socket => socket.on('error', () => {}).end())
  servers.push(created)
  return created
}
let directory: ReturnType<typeof temporaryDirectory>
beforeEach(() => {
  directory = temporaryDirectory()
})
afterEach(() => {
  for (const opened of servers.splice(0)) opened.close()
  directory.remove()
})

const LOOPBACK: SocketAddress = { kind: 'tcp', host: '127.0.0.1', port: 0 }
const socketAt = (name: string): SocketAddress & { kind: 'unix' } => ({
  kind: 'unix',
  path: `${directory.path}/${name}`,
})

describe('openListener', () => {
  test('port 0 is a free port, and the answer names it', async () => {
    const bound = await openListener(server(), LOOPBACK, 'popup.listen')
    expect(bound).toEqual({ kind: 'tcp', host: '127.0.0.1', port: expect.any(Number) })
    expect(bound.kind === 'tcp' && bound.port).toBeGreaterThan(0)
  })

  test('a port in use: the exit status is temporary, and the setting is named', async () => {
    const bound = await openListener(server(), LOOPBACK, 'popup.listen')
    const failure = openListener(server(), bound, 'popup.listen')
    await expect(failure).rejects.toThrow(TemporaryFault)
    await expect(failure).rejects.toThrow(/^127\.0\.0\.1:\d+ is in use: stop the other server or change popup\.listen$/)
  })

  test.each(['203.0.113.77', 'no-such-host.invalid'])('an address of another host, %s: a wrong setting', async host => {
    const failure = openListener(server(), { kind: 'tcp', host, port: 0 }, 'wrap.listen')
    await expect(failure).rejects.toThrow(/wrap\.listen/)
    await expect(failure).rejects.toThrow(/^(this host has no address|cannot listen on) /)
  })

  test('a Unix socket has the configured mode', async () => {
    const address = socketAt('a.sock')
    expect(await openListener(server(), address, 'authd.socket', { mode: 0o620 })).toEqual(address)
    expect(statSync(address.path).mode & 0o777).toBe(0o620)
  })

  test('the socket of a running server stays, and that of a dead server is replaced', async () => {
    const address = socketAt('a.sock')
    const first = server()
    await openListener(first, address, 'authd.socket')
    const failure = openListener(server(), address, 'authd.socket')
    await expect(failure).rejects.toThrow(TemporaryFault)
    await expect(failure).rejects.toThrow(/a\.sock is in use: stop the other server or change authd\.socket/)

    const crashed = new Program('crashed', [
      'perl',
      '-MIO::Socket::UNIX',
      '-e',
      `IO::Socket::UNIX->new(Listen => 1, Local => '${directory.path}/dead.sock') or die`,
    ])
    await crashed.ended
    expect(existsSync(socketAt('dead.sock').path)).toBe(true)
    await openListener(server(), socketAt('dead.sock'), 'authd.socket')
  })

  test('a server too busy to accept is not mistaken for a dead one', async () => {
    const busy = new Program('busy', [
      process.execPath,
      new URL('daemon-for-tests.ts', import.meta.url).pathname,
      'busy',
      socketAt('busy.sock').path,
    ])
    await busy.waitForLine(/^listening$/)
    const before = statSync(socketAt('busy.sock').path).ino
    await expect(openListener(server(), socketAt('busy.sock'), 'authd.socket')).rejects.toThrow(TemporaryFault)
    expect(statSync(socketAt('busy.sock').path).ino).toBe(before)
    busy.signal('SIGKILL')
    await busy.ended
  })

  test('a file that is not a socket is never removed', async () => {
    writeFileSync(socketAt('file').path, 'precious')
    await expect(openListener(server(), socketAt('file'), 'authd.socket')).rejects.toThrow(UsageFault)
    expect(readFileSync(socketAt('file').path, 'utf8')).toBe('precious')
    symlinkSync('/nowhere', socketAt('link').path)
    await expect(openListener(server(), socketAt('link'), 'authd.socket')).rejects.toThrow(UsageFault)
  })

  test('a directory that is missing: the message names setting and path', async () => {
    await expect(openListener(server(), socketAt('no/a.sock'), 'authd.socket')).rejects.toThrow(
      /^authd\.socket: the directory \/.*\/no does not exist: create it, or change authd\.socket$/,
    )
  })
})

describe('holdListener', () => {
  test('connections wait for a worker; the path is removed with the release', async () => {
    const held = await holdListener(socketAt('held.sock'), 'popup.socket', { mode: 0o600 })
    expect(statSync(socketAt('held.sock').path).mode & 0o777).toBe(0o600)
    const client = createConnection(socketAt('held.sock').path)
    await new Promise(resolve => client.once('connect', resolve))
    client.destroy()
    held.release()
    expect(existsSync(socketAt('held.sock').path)).toBe(false)
  })

  test('the socket of a running server stays', async () => {
    const held = await holdListener(socketAt('held.sock'), 'popup.socket')
    await expect(holdListener(socketAt('held.sock'), 'popup.socket')).rejects.toThrow(TemporaryFault)
    await expect(holdListener(socketAt('held.sock'), 'popup.socket')).rejects.toThrow(/held\.sock is in use/)
    held.release()
  })
})

describe('the peer of a connection', () => {
  test('the kernel names the account that connected to a Unix socket', async () => {
    const accepting = createServer()
    servers.push(accepting)
    await openListener(accepting, socketAt('who.sock'), 'authd.socket')
    const client = createConnection(socketAt('who.sock').path)
    const peer = await new Promise<ReturnType<typeof peerCredentials>>((resolve, reject) => {
      accepting.once('connection', socket => {
        try {
          resolve(peerCredentials(socket))
        } catch (error) {
          reject(error)
        }
        socket.destroy()
      })
    })
    client.destroy()
    expect(peer).toEqual({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() })
  })

  test('a closed socket has no descriptor', () => {
    expect(() => descriptorOf(createServer())).toThrow(/closed/)
  })

  test('accounts by name and by number', () => {
    const root = { name: 'root', uid: 0, gid: 0, home: '/root' }
    expect(accountNamed('root')).toEqual(root)
    expect(accountWithUid(0)).toEqual(root)
    expect(accountNamed('no-such-account')).toBeUndefined()
    expect(accountNamed('')).toBeUndefined()
    expect(accountWithUid(4_000_000_000)).toBeUndefined()
    const all = Array.from({ length: 200 }, () => accountNamed('daemon')?.name)
    expect(new Set(all)).toEqual(new Set(['daemon']))
  })
})

describe('secret files', () => {
  const file = (text: string): string => {
    writeFileSync(`${directory.path}/secret`, text, { mode: 0o600 })
    return `${directory.path}/secret`
  }

  test.each([
    ['s3cret', 's3cret'],
    ['s3cret\n', 's3cret'],
    ['s3cret\r\nsecond line\n', 's3cret'],
    [' with spaces: and colons ', ' with spaces: and colons '],
    [`${'x'.repeat(200)}\n`, 'x'.repeat(200)],
    ['Password', 'Password'],
  ])('first line of %j', (text, secret) => {
    expect(readSecretFile(file(text)).reveal()).toBe(secret)
  })

  test.each([
    ['', /holds no secret: write a random one/],
    ['\nsecond', /holds no secret/],
    ['password', /holds the default secret/],
    ['password\n', /holds the default secret/],
    ['password\r\n', /holds the default secret/],
    ['x'.repeat(201), /1 to 200 printable ASCII/],
    ['x'.repeat(100_000), /1 to 200 printable ASCII/],
    ['tab\there', /1 to 200 printable ASCII/],
    ['pässword', /1 to 200 printable ASCII/],
    ['nul\0', /1 to 200 printable ASCII/],
  ])('refused: %j', (text, message) => {
    const path = file(text)
    expect(() => readSecretFile(path)).toThrow(UsageFault)
    expect(() => readSecretFile(path)).toThrow(message)
    expect(() => readSecretFile(path)).toThrow(new RegExp(path))
  })

  test('open to every account: refused, and the message names the command', () => {
    const path = file('s3cret')
    chmodSync(path, 0o604)
    expect(() => readSecretFile(path)).toThrow(
      `secret file ${path} is open to every user of this host: chmod o-rwx ${path}`,
    )
  })

  test('missing, a directory, a FIFO: a clear line without a wait', async () => {
    expect(() => readSecretFile(`${directory.path}/none`)).toThrow(
      /cannot read the secret file .*ENOENT.*create it with mode 0600/,
    )
    mkdirSync(`${directory.path}/d`, { mode: 0o700 })
    expect(() => readSecretFile(`${directory.path}/d`)).toThrow(/not a regular file/)
    await new Program('mkfifo', ['mkfifo', '-m', '600', `${directory.path}/fifo`]).ended
    expect(() => readSecretFile(`${directory.path}/fifo`)).toThrow(/not a regular file/)
  })
})
