import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { createServer, Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { CheckCancelled, CheckQueue } from '../../../src/popup/checkers/check-queue.ts'
import { ClientDisconnect } from '../../../src/popup/client-disconnect.ts'
import { ChainRunner, type ChainRunnerOptions, type RunningChain } from '../../../src/popup/monitor/chain-runner.ts'
import { loginOctets, sessionId } from '../../../src/wire/login-event.ts'
import type { VerifyRequest } from '../../../src/wire/workers/login-process.ts'
import { ip } from '../../harness/addresses.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
/** The socket where the login process waits for connections of chained programs. */
const server = createServer()
const path = `${directory.path}/chain-0.sock`
const sockets: Socket[] = []
const chains: RunningChain[] = []
let scripts = 0

beforeAll(async () => {
  await once(server.listen(path), 'listening')
})
afterEach(async () => {
  for (const chain of chains.splice(0)) {
    chain.stop()
    await chain.ended
  }
  for (const socket of sockets.splice(0)) socket.destroy()
})
afterAll(() => {
  server.close()
  directory.remove()
})

/** A checkpassword program made of a shell script. */
function checker(script: string): readonly string[] {
  const file = `${directory.path}/checker${scripts++}`
  writeFileSync(file, `#!/bin/sh\n${script}\n`)
  chmodSync(file, 0o755)
  return [file]
}
/** Accepts each password, and runs the program behind. */
const ACCEPT = 'exec 3<&-; exec "$@"'
const POP3 = ['/bin/sh', '-c', 'echo "+OK $GREETING"; read -r word; echo "+OK received $word"']

const programs = (): CheckQueue => new CheckQueue({ atOnce: 1, mostWaiting: 10 })
const optionsFor = (script: string): Omit<ChainRunnerOptions, 'listeners'> => ({
  checker: checker(script),
  program: POP3,
  environment: { PATH: '/usr/bin:/bin', GREETING: 'welcome' },
  checkTimeout: 60_000,
  programs: programs(),
})
const runner = (script: string, more: Partial<ChainRunnerOptions> = {}): ChainRunner =>
  new ChainRunner({
    ...optionsFor(script),
    listeners: [{ descriptor: -1, address: { kind: 'unix', path }, isActivated: false, release: () => {} }],
    ...more,
  })

const requestOf = (n: number, more: Partial<VerifyRequest> = {}): VerifyRequest => ({
  n,
  id: sessionId(1, n),
  login: loginOctets('ann'),
  secret: 'secret',
  method: 'pass',
  timestamp: '',
  ip: ip('192.0.2.7'),
  tls: false,
  ...more,
})

const applicant = (disconnect = new ClientDisconnect()) => ({ networks: ['192.0.2.7/32'], isKnown: false, disconnect })

/** Starts a chain that must run, and returns the login process's end of its session. */
async function started(chain: ChainRunner, n: number): Promise<{ chain: RunningChain; session: Conversation }> {
  const connected = once(server, 'connection')
  const running = await chain.start(0, requestOf(n), applicant())
  if ('kind' in running) throw new Error(running.detail)
  chains.push(running)
  const [socket] = await connected
  if (!(socket instanceof Socket)) throw new TypeError('a socket')
  sockets.push(socket)
  return { chain: running, session: new Conversation('chain', socket) }
}

test('the session names the request in its first line, and the rest is the dialogue of the program', async () => {
  const { chain, session } = await started(runner(ACCEPT), 7)
  await session.expect(/^chain 7$/)
  await session.expect(/^\+OK welcome$/)
  chain.accepted()
  session.write('QUIT\n')
  await session.expect(/^\+OK received QUIT$/)
  await session.expectEnd()
  expect(await chain.ended).toMatchObject({ kind: 'temporary' })
})

test.each([
  ['exit 1', 'badauth'],
  ['exit 111', 'temporary'],
  ['kill -9 $$', 'crash'],
] as const)('a checker that does %s refuses the login: %s', async (script, kind) => {
  const { chain } = await started(runner(script), 1)
  expect(await chain.ended).toMatchObject({ kind })
})

test('a program that sends no +OK in time is ended', async () => {
  const { chain } = await started(runner('sleep 600', { checkTimeout: 50 }), 1)
  expect(await chain.ended).toEqual({ kind: 'temporary', detail: 'the program did not answer in time' })
})

test('a program waits until an earlier one is accepted or ends', async () => {
  const chain = runner(ACCEPT)
  const first = await started(chain, 1)
  const order: string[] = []
  const second = started(chain, 2).then(running => {
    order.push('second')
    return running
  })
  await first.session.expect(/^chain 1$/)
  await first.session.expect(/^\+OK/)
  order.push('accepted')
  first.chain.accepted()
  const { chain: running, session } = await second
  expect(order).toEqual(['accepted', 'second'])
  await session.expect(/^chain 2$/)
  const third = started(chain, 3)
  running.stop()
  await (await third).session.expect(/^chain 3$/)
})

test('a client that disconnects while its program waits gets none', async () => {
  const chain = runner(ACCEPT)
  await started(chain, 1)
  const disconnect = new ClientDisconnect()
  const waiting = chain.start(0, requestOf(2), applicant(disconnect))
  disconnect.signal()
  await expect(waiting).rejects.toThrow(CheckCancelled)
})

test('a login that cannot be started leaves its place to the next one', async () => {
  const queue = programs()
  const chain = runner(ACCEPT, { programs: queue })
  expect(await chain.start(0, requestOf(1, { secret: 'x'.repeat(600) }), applicant())).toMatchObject({
    kind: 'tooLong',
  })
  expect(await chain.start(0, requestOf(2, { secret: 'a\0b' }), applicant())).toMatchObject({ kind: 'tooLong' })
  await expect(chain.start(1, requestOf(3), applicant())).rejects.toThrow('no chain socket')
  chain.use({ ...optionsFor(ACCEPT), checker: ['/nonexistent/checkpassword'], programs: queue })
  expect(await chain.start(0, requestOf(4), applicant())).toMatchObject({ kind: 'temporary' })
  chain.use({ ...optionsFor(ACCEPT), programs: queue })
  await (await started(chain, 5)).session.expect(/^chain 5$/)
})

test('new options are in force for the next login', async () => {
  const chain = runner('exit 1')
  chain.use({ ...optionsFor(ACCEPT), environment: { PATH: '/usr/bin:/bin', GREETING: 'again' } })
  const { session } = await started(chain, 1)
  await session.expect(/^chain 1$/)
  await session.expect(/^\+OK again$/)
})
