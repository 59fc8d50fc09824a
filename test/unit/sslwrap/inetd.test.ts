import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { type BackEnd, popupLike, SHARED_PASSWORD } from '../../harness/pop3/sslwrap.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const PROGRAM = new URL('../../../src/sslwrap/main.ts', import.meta.url).pathname
const directory = temporaryDirectory()
const server = createServer({ pauseOnConnect: true, allowHalfOpen: true })
const open: { destroy(): void }[] = []
const backEnds: BackEnd[] = []

beforeAll(async () => {
  const { cert, key } = makeSelfSigned({ names: ['localhost'], now: Date.now() })
  writeFileSync(`${directory.path}/tls.pem`, `${cert}${key}`, { mode: 0o600 })
  writeFileSync(`${directory.path}/pass`, `${SHARED_PASSWORD}\n`, { mode: 0o600 })
  writeFileSync(`${directory.path}/program`, '#!/bin/sh\nenv | sort\necho end\nread -r word\necho "received $word"\n')
  chmodSync(`${directory.path}/program`, 0o755)
  await once(server.listen(0, '127.0.0.1'), 'listening')
})
afterEach(() => {
  for (const each of open.splice(0)) each.destroy()
  for (const each of backEnds.splice(0)) each.close()
})
afterAll(() => {
  server.close()
  directory.remove()
})

type Run = {
  readonly client: Socket
  /** Exit status and standard error of the program. */
  readonly ended: Promise<{ readonly code: unknown; readonly errors: string }>
}

/** Runs sslwrap with a client as descriptors 0 and 1, as tcpserver does. */
async function run(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Run> {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const client = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  client.on('error', () => {})
  const [raw] = await once(server, 'connection')
  if (!(raw instanceof Socket)) throw new TypeError('a socket')
  open.push(client)
  const child = spawn(process.execPath, [PROGRAM, '-cert', `${directory.path}/tls.pem`, ...args], {
    stdio: [raw, raw, 'pipe'],
    env: { PATH: '/usr/bin:/bin', SSL_HACK_PASS: `${directory.path}/pass`, ...environment },
  })
  open.push({ destroy: () => void child.kill('SIGKILL') })
  raw.destroy()
  let errors = ''
  child.stderr?.on('data', (piece: Buffer) => {
    errors += String(piece)
  })
  return { client, ended: once(child, 'close').then(([code]) => ({ code, errors })) }
}

function secured(client: Socket): { readonly tls: TLSSocket; readonly conversation: Conversation } {
  const tls = connectTls({ socket: client, rejectUnauthorized: false, servername: 'localhost' })
  open.push(tls)
  return { tls, conversation: new Conversation('client', tls) }
}

test('a program gets the client within TLS, and the variables of the connection without the secret', async () => {
  const { client, ended } = await run(['-exec', `${directory.path}/program`], {
    TCPREMOTEIP: '192.0.2.7',
    NODE_OPTIONS: '--no-warnings',
  })
  const { conversation, tls } = secured(client)
  const variables: string[] = []
  for (let { text } = await conversation.expect(/./); text !== 'end'; { text } = await conversation.expect(/./))
    variables.push(text)
  expect(variables).toEqual(
    expect.arrayContaining([
      'AUTHRELAY_TLS=1',
      'SSL_PROTOCOL=TLSv1.3',
      'SSL_TLS_SNI_SERVERNAME=localhost',
      'TCPREMOTEIP=192.0.2.7',
    ]),
  )
  expect(variables.filter(line => /^(SSL_HACK_PASS|NODE_OPTIONS)=/.test(line))).toEqual([])
  await conversation.ask('QUIT', /^received QUIT/)
  await conversation.expectEnd()
  tls.end()
  expect((await ended).code).toBe(0)
})

test('a server gets the address of the environment, because another proxy may have named the client', async () => {
  const backEnd = await popupLike().listen()
  backEnds.push(backEnd)
  const { client, ended } = await run(['-port', String(backEnd.port)], { TCPREMOTEIP: '192.0.2.7' })
  const { conversation, tls } = secured(client)
  await conversation.expect(/^\+OK </)
  await conversation.ask('QUIT', /^\+OK bye$/)
  await conversation.expectEnd()
  tls.end()
  expect((await ended).code).toBe(0)
  expect(backEnd.received[0]?.text).toBe(`SSL 192.0.2.7:${SHARED_PASSWORD}\r\nQUIT\r\n`)
})

test('a program that cannot be run: the log names it, and the client is closed', async () => {
  const { client, ended } = await run(['-exec', '/nonexistent/program'])
  const { conversation, tls } = secured(client)
  await conversation.expect(/^-ERR \[SYS\/TEMP\] service unavailable$/)
  await conversation.expectEnd()
  tls.destroy()
  const { code, errors } = await ended
  expect(code).toBe(0)
  expect(errors).toMatch(/event=upstream_failed .*cannot run \/nonexistent\/program/)
})

test('a client without TLS never reaches the program', async () => {
  const { client, ended } = await run(['-exec', `${directory.path}/program`])
  client.write('USER ann\r\n')
  const { code, errors } = await ended
  expect(code).toBe(0)
  expect(errors).toMatch(/event=tls_failed /)
})

test('standard input without an address is a fault of the usage', async () => {
  const child = spawn(
    process.execPath,
    [PROGRAM, '-cert', `${directory.path}/tls.pem`, '-exec', `${directory.path}/program`],
    { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: '/usr/bin:/bin' } },
  )
  let errors = ''
  child.stderr.on('data', (piece: Buffer) => {
    errors += String(piece)
  })
  const [code] = await once(child, 'close')
  expect(code).not.toBe(0)
  expect(errors).toMatch(/the client has no address|standard input is not a connection/)
})
