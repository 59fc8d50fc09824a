import { spawnSync } from 'node:child_process'
import { release } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const source = (name: string) => JSON.stringify(join(import.meta.dirname, '../../../src/libc', `${name}.ts`))

/** Four clients of a server in one process; every socket of the server blocks. */
const PREPARED = `
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { getSystemErrorName } from 'node:util'
import { setBlocking } from ${source('descriptors')}
import { descriptorOf } from ${source('../base/node-internals')}
import { addressOf, nativeFunction } from ${source('native-function')}
import { SendBatch } from ${source('send-batch')}

/** Has the kernel answer EPERM to one system call (seccomp(2)). */
function forbid(call) {
  const prctl = nativeFunction('int prctl(int option, unsigned long a, void *b, unsigned long c, unsigned long d)')
  const [load, jumpIfEqual, answer] = [0x20, 0x15, 0x06]
  const filter = Buffer.alloc(32)
  const steps = [[load, 0, 0, 0], [jumpIfEqual, 0, 1, call], [answer, 0, 0, 0x00050001], [answer, 0, 0, 0x7fff0000]]
  for (const [index, [code, yes, no, value]] of steps.entries()) {
    filter.writeUInt16LE(code, index * 8)
    filter[index * 8 + 2] = yes
    filter[index * 8 + 3] = no
    filter.writeUInt32LE(value, index * 8 + 4)
  }
  const program = Buffer.alloc(16)
  program.writeUInt16LE(steps.length, 0)
  program.writeBigUInt64LE(BigInt(addressOf(filter)), 8)
  const [noNewPrivileges, seccomp, byFilter] = [38, 22, 2]
  if (prctl(noNewPrivileges, 1, null, 0, 0) !== 0 || prctl(seccomp, byFilter, program, 0, 0) !== 0) throw new Error('no filter')
}

const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
await once(server, 'listening')
async function pair() {
  const client = connect(server.address().port, '127.0.0.1').on('error', () => {})
  const [socket] = await once(server, 'connection')
  setBlocking(descriptorOf(socket), true)
  return { client, socket, fd: descriptorOf(socket) }
}
async function read(client, octets) {
  let text = ''
  while (text.length < octets) text += (client.read() ?? (await once(client, 'readable'), '')).toString('latin1')
  return text
}
const nobody = (sent, message) => { throw new Error('sent ' + sent + ' of ' + message.length) }
const pairs = [await pair(), await pair(), await pair(), await pair()]
const batch = new SendBatch()
`

const SCENARIO = `
// More messages than a batch has; texts with and without octets behind them, in their order.
for (let round = 0; round < 25; round += 1) {
  for (const [index, { fd }] of pairs.entries()) batch.add(fd, round + '\\xe9' + index, round % 2 ? undefined : Buffer.from('|'), nobody)
}
const inFirstBatch = batch.number === 1
batch.send()
console.log('a batch that is full goes out by itself', inFirstBatch, batch.number, batch.isEmpty)
for (const [index, { client }] of pairs.entries()) {
  const expected = Array.from({ length: 25 }, (_, round) => round + '\\xe9' + index + (round % 2 ? '' : '|')).join('')
  console.log('client', index, (await read(client, expected.length)) === expected)
}

// One message alone, and two that fill it.
batch.add(pairs[0].fd, 'alone', undefined, nobody)
batch.send()
console.log(await read(pairs[0].client, 5))
const large = 'x'.repeat(SendBatch.MOST_OCTETS)
for (const { fd } of pairs.slice(0, 2)) batch.add(fd, large, undefined, nobody)
batch.send()
for (const { client } of pairs.slice(0, 2)) console.log((await read(client, large.length)) === large)
try { batch.add(pairs[0].fd, large, Buffer.from('y'), nobody) } catch (error) { console.log(error.name) }

// One peer does not read, one has closed its connection, and one reads.
const [slow, broken, well] = pairs
broken.client.resetAndDestroy()
let taken = 0
let full
let failed
const piece = 'z'.repeat(SendBatch.MOST_OCTETS / 2)
for (let tries = 0; full === undefined || failed === undefined; tries += 1) {
  if (tries > 1000) throw new Error('never full, or never broken')
  if (full === undefined) batch.add(slow.fd, piece, undefined, (sent, message) => { full = { sent: Math.max(sent, 0), rest: Buffer.from(message.subarray(Math.max(sent, 0))), error: sent < 0 ? getSystemErrorName(sent) : undefined } })
  if (failed === undefined) batch.add(broken.fd, 'news', undefined, sent => { failed = getSystemErrorName(sent) })
  batch.add(well.fd, '.', undefined, nobody)
  batch.send()
  taken += full === undefined ? piece.length : full.sent
  await read(well.client, 1)
  await new Promise(setImmediate)
}
console.log('full', full.error ?? 'EAGAIN', full.rest.length + full.sent === piece.length, 'broken', /^(EPIPE|ECONNRESET)$/.test(failed))
console.log('nothing is lost or twice', (await read(slow.client, taken)).length === taken, slow.client.read())
console.log(/\\[aio\\]/.test(readFileSync('/proc/self/maps', 'latin1')) ? 'together' : 'one by one')
process.exit()
`

/** Callbacks that fail or write, and invalid descriptors. */
const FAULTS = `
const seen = []
const full = (name, fault) => (sent, message) => { seen.push(name + ' ' + (sent < 0 ? getSystemErrorName(sent) : 'sent')); fault() }
const closed = 1_000_000
const many = pairs.length * 3
// The first of a batch is no descriptor: the whole batch goes out one by one, and the next one
// together again.
for (const way of ['one by one', 'together']) {
  batch.add(way === 'together' ? pairs[0].fd : closed, 'a', undefined, full('closed', () => {}))
  for (let count = 0; count < many; count += 1) batch.add(pairs[count % 4].fd, 'b', undefined, nobody)
  batch.send()
  for (const { client } of pairs) await read(client, 3 + (way === 'together' && client === pairs[0].client ? 1 : 0))
}
console.log(seen.join())
// What a callback throws reaches the caller, after all the others were sent and called.
for (const count of [1, 2]) {
  seen.length = 0
  for (let index = 0; index < count; index += 1) batch.add(closed, 'x', undefined, full('throws', () => { throw new Error('fault ' + index) }))
  batch.add(closed, 'x', undefined, full('well', () => {}))
  for (const { fd } of pairs) batch.add(fd, 'after', undefined, nobody)
  try { batch.send() } catch (error) { console.log(error.name, error.message, seen.length) }
  for (const { client } of pairs) console.log(await read(client, 5))
}
// A callback that writes is stopped, and the other messages are sent whole.
batch.add(closed, 'x', undefined, () => batch.add(pairs[0].fd, 'overwritten', undefined, nobody))
for (const { fd } of pairs) batch.add(fd, 'whole', undefined, nobody)
try { batch.send() } catch (error) { console.log(error.message) }
for (const { client } of pairs) console.log(await read(client, 5))
let end
batch.onLack(reason => { end = reason })
console.log('end', end?.message)
process.exit()
`

function run(first: string, then = SCENARIO): readonly string[] {
  const child = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', PREPARED + first + then], {
    cwd: join(import.meta.dirname, '../../../src/libc'),
    encoding: 'utf8',
    timeout: 60_000,
  })
  if (child.status !== 0) throw new Error(`status ${child.status}: ${child.stderr}`)
  return child.stdout.trimEnd().split('\n')
}

const TRANSCRIPT = [
  'a batch that is full goes out by itself true 2 true',
  ...[0, 1, 2, 3].map(client => `client ${client} true`),
  'alone',
  'true',
  'true',
  'RangeError',
  'full EAGAIN true broken true',
  'nothing is lost or twice true null',
]

const AFTER_FAULTS = [
  'closed EBADF',
  'Error fault 0 2',
  ...Array(4).fill('after'),
  'AggregateError 2 connections failed while a batch was sent 3',
  ...Array(4).fill('after'),
  'a message was added while the batch is sent',
  ...Array(4).fill('whole'),
]

test('the failure of one message affects no other message', () => {
  expect(run('', FAULTS)).toEqual([
    ...AFTER_FAULTS,
    `end ${together === 'together' ? 'undefined' : 'io_submit: EOPNOTSUPP'}`,
  ])
})

test('few messages at a time open no queue in the kernel', () => {
  const few = `
for (let round = 0; round < 20; round += 1) {
  for (const { fd } of pairs) batch.add(fd, 'few', undefined, nobody)
  batch.send()
  for (const { client } of pairs) await read(client, 3)
}
console.log(/\\[aio\\]/.test(readFileSync('/proc/self/maps', 'latin1')))
process.exit()`
  expect(run('', few)).toEqual(['false'])
})

/** The kernel supports sends without a wait for a socket since then. */
const [major = 0, minor = 0] = release().split('.').map(Number)
const together = major > 6 || (major === 6 && minor >= 4) ? 'together' : 'one by one'

test('messages for many sockets are sent together, and none waits for a client that does not read', () => {
  expect(run('')).toEqual([...TRANSCRIPT, together])
})

const CALLS = process.arch === 'arm64' ? { io_setup: 0, io_submit: 2 } : { io_setup: 206, io_submit: 209 }

test.each(Object.entries(CALLS))('if %s is forbidden, they are sent one by one', (name, number) => {
  expect(run(`forbid(${number})\n`)).toEqual([...TRANSCRIPT, 'one by one'])
  expect(run(`forbid(${number})\n`, FAULTS)).toEqual([...AFTER_FAULTS, `end ${name}: EPERM`])
})
