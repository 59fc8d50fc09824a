import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, afterEach, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { GrantedDevice } from '../../../src/grants/grant-store.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import type { IpAddress } from '../../../src/wire/ip-address.ts'
import {
  formatCountsQuery,
  formatFaultsQuery,
  parseClientFaults,
  parseDeviceCounts,
} from '../../../src/wire/services/gate-report.ts'
import { formatRelayQuery } from '../../../src/wire/services/relay-query.ts'
import type { Decision } from '../../../src/wrap/decision.ts'
import { ClientFaultTimes } from '../../../src/wrap/front/client-faults.ts'
import { MailCounts } from '../../../src/wrap/mail-counts.ts'
import { type QueryServiceOptions, queryService } from '../../../src/wrap/services/query-service.ts'
import { ip } from '../../harness/addresses.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})
let services = 0

const COPIER: GrantedDevice = {
  name: 'copier 2',
  senders: ['scan@example.org'],
  recipientDomains: [],
  messagesPerHour: 2,
  messagesPerDay: 0,
  recipientsPerHour: 5,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  until: null,
  ended: false,
  places: [],
  elsewhere: false,
}
const GRANTED: Decision = { relay: true, until: 1_764_000_000, login: 'ann@example.org', device: COPIER }
const CLIENT = ip('192.0.2.7')
const NO_LIMITS = {
  messages_per_login: 0,
  messages_per_address: 0,
  recipients_per_login: 0,
  recipients_per_address: 0,
}

async function open(options: Partial<QueryServiceOptions> = {}) {
  const lines: string[] = []
  let now = 1_764_000_000_000
  const mailCounts = new MailCounts(NO_LIMITS, () => now)
  const faults = new ClientFaultTimes(() => now)
  const { server } = queryService(() => ({
    limits: { maxConnections: 50, maxOpen: 100 },
    counts: () => true,
    onMessage: () => {},
    decide: async () => GRANTED,
    onDecision: () => {},
    log: createLog('wrap', { write: line => lines.push(line) }),
    senderBinding: 'off',
    senderDomains: [],
    recipientDomains: [],
    mailCounts,
    customers: new CustomerNetworks(),
    faultsOf: address => faults.of(address),
    ...options,
  }))
  const path = `${directory.path}/query${services++}.sock`
  server.listen(path)
  await once(server, 'listening')
  closing.push(() => server.close())
  /** One query on a separate connection, as Exim sends it. */
  const ask = async (line: string, answer: RegExp): Promise<string> => {
    const conversation = new Conversation('query', connect({ path }))
    conversation.write(`${line}\n`)
    const { text } = await conversation.expect(answer)
    conversation.close()
    return text
  }
  const recipient = (instance: string | undefined, answer: RegExp, sender = 'scan@example.org') =>
    ask(formatRelayQuery({ ip: CLIENT, sender, recipient: 'x@far.example', ...(instance && { instance }) }), answer)
  const counts = async () => parseDeviceCounts(await ask(formatCountsQuery(COPIER.name), /^counts /))
  return {
    recipient,
    counts,
    faults,
    faultsOf: async (address: IpAddress) => parseClientFaults(await ask(formatFaultsQuery(address), /^faults/)),
    lines,
    later(ms: number): void {
      now += ms
    },
  }
}

test('the recipients of one instance are one message, on one connection or on several', async () => {
  const { recipient, counts } = await open()
  await Promise.all(Array.from({ length: 3 }, () => recipient('7.1', /^yes /)))
  expect(await counts()).toEqual({ messagesPerHour: 1, messagesPerDay: 0, recipientsPerHour: 3, recipientsPerDay: 0 })
  await recipient('7.2', /^yes /)
  expect(await counts()).toMatchObject({ messagesPerHour: 2, recipientsPerHour: 4 })
})

test('at its limit a query is answered with the reply of the policy service, and counts nothing', async () => {
  const { recipient, counts, lines, later } = await open()
  await recipient('7.1', /^yes /)
  await recipient('7.2', /^yes /)
  await recipient(
    '7.3',
    /^later 450 4\.7\.1 device "copier 2" has sent 2 messages in an hour; try again after 17:30 UTC$/,
  )
  expect(lines.at(-1)).toContain('event=mail_refused ip=192.0.2.7 service=query')
  expect(lines.at(-1)).toContain('reason=device_hour')
  // A message that was begun continues, up to the limit of recipients.
  for (let count = 0; count < 3; count += 1) await recipient('7.2', /^yes /)
  await recipient('7.2', /^later 450 4\.7\.1 .* has sent 5 recipients in an hour/)
  expect(await counts()).toMatchObject({ messagesPerHour: 2, recipientsPerHour: 5 })
  later(7_200_000)
  await recipient('7.3', /^yes /)
})

test('a query without an instance, or of a foreign account, counts nothing', async () => {
  const free = await open()
  for (let count = 0; count < 5; count += 1) await free.recipient(undefined, /^yes /)
  expect(await free.counts()).toMatchObject({ messagesPerHour: 0, recipientsPerHour: 0 })
  const foreign = await open({ counts: () => false })
  for (let count = 0; count < 5; count += 1) await foreign.recipient(`7.${count}`, /^yes /)
  expect(await foreign.counts()).toMatchObject({ messagesPerHour: 0, recipientsPerHour: 0 })
})

test('a refused sender gets a permanent refusal, and does not count', async () => {
  const { recipient, counts } = await open()
  await recipient(
    '7.1',
    /^no 550 5\.7\.1 device "copier 2" may not send as <ceo@example\.org>; set its sender to /,
    'ceo@example.org',
  )
  expect(await counts()).toMatchObject({ messagesPerHour: 0, recipientsPerHour: 0 })
})

test('a sender that does not belong to the login is logged by sender binding that warns', async () => {
  const people: Decision = { relay: true, until: 1_764_000_000, login: 'ann@example.org' }
  const foreign = 'boss@example.org'
  const off = await open({ decide: async () => people })
  await off.recipient('7.1', /^yes /, foreign)
  expect(off.lines.filter(line => line.includes('sender_mismatched'))).toEqual([])
  const warn = await open({ decide: async () => people, senderBinding: 'warn' })
  await warn.recipient('7.1', /^yes /, foreign)
  expect(warn.lines[0]).toContain(
    'event=sender_mismatched ip=192.0.2.7 service=query user=ann@example.org sender=boss@example.org',
  )
})

test('the same instance of another address is another message', async () => {
  let device: GrantedDevice = { ...COPIER, messagesPerHour: 1 }
  const { recipient } = await open({ decide: async () => ({ ...GRANTED, device }) })
  await recipient('7.1', /^yes /)
  device = { ...device, name: 'other' }
  await recipient('7.1', /^yes /)
  device = COPIER
  await recipient('7.1', /^yes /)
})

test('a device without any mail has counts of zero', async () => {
  const { counts } = await open()
  expect(await counts()).toEqual({ messagesPerHour: 0, messagesPerDay: 0, recipientsPerHour: 0, recipientsPerDay: 0 })
})

test('the faults of a client are those that the front saw, with the last time of each', async () => {
  const { faults, faultsOf, later } = await open()
  expect(await faultsOf(CLIENT)).toEqual({})
  faults.add(CLIENT, 'auth_refused')
  later(60_000)
  faults.add(CLIENT, 'auth_refused')
  faults.add(CLIENT, 'line_ends_repaired')
  faults.add(ip('192.0.2.8'), 'hello_replaced')
  expect(await faultsOf(CLIENT)).toEqual({ auth_refused: 1_764_000_060, line_ends_repaired: 1_764_000_060 })
})
