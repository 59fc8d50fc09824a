import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test } from 'vitest'
import { type BoundSocket, holdListener } from '../../../src/process/listener.ts'
import { startWorker, type WorkerProcess } from '../../../src/process/worker-process.ts'
import type { LoginSettingsMessage } from '../../../src/wire/workers/login-process.ts'
import type { MaildropWorkerSettings } from '../../../src/wire/workers/maildrop-worker.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

/** A reload that comes while a worker loads: both messages wait in the channel. */

const directory = temporaryDirectory()
afterAll(() => directory.remove())

let worker: WorkerProcess | undefined
let listener: BoundSocket | undefined
afterEach(async () => {
  worker?.child.kill('SIGKILL')
  await worker?.ended
  listener?.release()
})

const program = (name: string): string => join(import.meta.dirname, '../../../src', name, 'main.ts')
const isRoot = process.getuid?.() === 0
const ids = isRoot ? { uid: 61_230, gid: 61_230 } : null

test('a worker for maildrops has the settings of the reload', { timeout: 60_000 }, async () => {
  const settings: MaildropWorkerSettings = {
    compat: 'none',
    sizes: 'wire',
    extraBlank: false,
    lock: 'none',
    idleTime: 600,
    workerIdle: 3600,
    capabilities: { user: true, sasl: [], loginDelay: 0, implementation: 'auth-relay' },
  }
  listener = await holdListener({ kind: 'unix', path: `${directory.path}/owner.sock` }, 'run_dir')
  worker = startWorker(program('pop3d'), ['--worker'], [listener.descriptor])
  const start = { type: 'start', ids, key: '00'.repeat(32), loginUid: null, usedTickets: [], logLevel: 'error' }
  worker.channel.send({ ...start, engine: 'auto', settings })
  worker.channel.send({ type: 'settings', settings: { ...settings, workerIdle: 0.01 } })
  // With the settings of the start it would serve for an hour.
  expect(await worker.ended).toMatchObject({ code: 0 })
})

test('a login process has the settings of the reload', { timeout: 60_000 }, async () => {
  listener = await holdListener({ kind: 'tcp', host: '127.0.0.1', port: 0 }, 'popup.listen')
  const settings: LoginSettingsMessage = {
    ids,
    logLevel: 'error',
    engine: 'auto',
    handoff: false,
    directory: '/',
    listeners: [{ proxy: false, tls: false }],
    mode: 'verify',
    hostname: 'before.example.org',
    apop: true,
    preamble: null,
    proxyTrust: [],
    proxyTls: false,
    nat64Prefixes: [],
    compat: 'none',
    requireTls: false,
    cleartextNets: [],
    cleartextLogins: [],
    offersStls: false,
    stls: null,
    loginDelay: 0,
    tries: 3,
    maxConnections: 10,
    maxPerAddress: 10,
    maxPerLogin: 100,
    maxPerOwner: 100,
    loginTime: 60_000,
    idleTime: 60_000,
    upstream: null,
  }
  worker = startWorker(program('popup'), ['--login'], [listener.descriptor])
  worker.channel.send({ type: 'settings', settings })
  worker.channel.send({ type: 'settings', settings: { ...settings, hostname: 'after.example.org' } })
  const { address } = listener
  if (address.kind !== 'tcp') throw new TypeError('a TCP address')
  const client = connect(address.port, address.host)
  const [greeting] = await once(client, 'data')
  client.destroy()
  expect(String(greeting)).toContain('@after.example.org>')
})
