import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, afterEach, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { GrantedDevice } from '../../../src/grants/grant-store.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { formatPolicyRequest } from '../../../src/wire/services/policy.ts'
import type { Decision } from '../../../src/wrap/decision.ts'
import { MailCounts, type MailLimits } from '../../../src/wrap/mail-counts.ts'
import { policyService } from '../../../src/wrap/services/policy-service.ts'
import type { QueryServiceOptions } from '../../../src/wrap/services/query-service.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})
let services = 0

const GRANTED: Decision = { relay: true, until: 1_764_000_000, login: 'ann@example.org' }
const COPIER: GrantedDevice = {
  name: 'copier 2',
  senders: ['scan@example.org'],
  recipientDomains: [],
  messagesPerHour: 0,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  until: null,
  ended: false,
  places: [],
  elsewhere: false,
}
const NO_LIMITS: MailLimits = {
  messages_per_login: 0,
  messages_per_address: 0,
  recipients_per_login: 0,
  recipients_per_address: 0,
}

/** A service and one connection to it, as from Postfix. */
async function open(options: Partial<QueryServiceOptions> = {}, limits: Partial<MailLimits> = {}) {
  const lines: string[] = []
  const relayed: string[] = []
  let now = 1_764_000_000_000
  const { server } = policyService(() => ({
    limits: { maxConnections: 10, maxOpen: 100 },
    counts: () => true,
    onMessage: () => {},
    decide: async () => GRANTED,
    onDecision: (ip, { relay }) => void (relay && relayed.push(ip ?? '')),
    log: createLog('wrap', { write: line => lines.push(line) }),
    senderBinding: 'off',
    senderDomains: [],
    recipientDomains: [],
    mailCounts,
    customers: new CustomerNetworks(),
    ...options,
  }))
  const mailCounts = new MailCounts({ ...NO_LIMITS, ...limits }, () => now)
  const path = `${directory.path}/policy${services++}.sock`
  server.listen(path)
  await once(server, 'listening')
  const socket = connect({ path })
  closing.push(() => {
    socket.destroy()
    server.close()
  })
  return {
    lines,
    relayed,
    later(ms: number): void {
      now += ms
    },
    /** Sends a request about a recipient; returns the action. */
    async ask(fields: Readonly<Record<string, string>> = {}): Promise<string> {
      const request = {
        request: 'smtpd_access_policy',
        protocol_state: 'RCPT',
        client_address: '192.0.2.7',
        sender: 'ann@example.org',
        recipient: 'bob@elsewhere.example',
        instance: 'message 1',
        ...fields,
      }
      socket.write(formatPolicyRequest(new Map(Object.entries(request))))
      const [answer] = await once(socket, 'data')
      return String(answer).trim().replace('action=', '')
    },
  }
}

const TOO_MUCH = '450 4.7.1 too much mail within an hour, try again later'

test('messages: all recipients of a message count as one message, for its login and for its address', async () => {
  for (const limit of ['messages_per_login', 'messages_per_address'] as const) {
    const { ask, later, lines } = await open({}, { [limit]: 2 })
    expect(await ask()).toBe('OK')
    expect(await ask({ recipient: 'carol@elsewhere.example' })).toBe('OK')
    expect(await ask({ instance: 'message 2' })).toBe('OK')
    expect(await ask({ instance: 'message 3' })).toBe(TOO_MUCH)
    expect(lines.at(-1)).toContain(`event=mail_refused ip=192.0.2.7 service=policy`)
    expect(lines.at(-1)).toContain(`reason=${limit}`)
    later(2 * 3_600_000)
    expect(await ask({ instance: 'message 4' })).toBe('OK')
  }
})

test('recipients: each one counts, for the login at every address, and for the address with every login', async () => {
  const login = await open({}, { recipients_per_login: 2 })
  expect(await login.ask()).toBe('OK')
  expect(await login.ask({ client_address: '192.0.2.8' })).toBe('OK')
  expect(await login.ask({ client_address: '192.0.2.9' })).toBe(TOO_MUCH)
  const byAddress = await open({}, { recipients_per_address: 2 })
  expect(await byAddress.ask()).toBe('OK')
  expect(await byAddress.ask()).toBe('OK')
  expect(await byAddress.ask()).toBe(TOO_MUCH)
  expect(await byAddress.ask({ client_address: '192.0.2.8' })).toBe('OK')
})

test('the address of a rate is a customer: the /64 of IPv6, or the IPv4 client behind a translator', async () => {
  const { ask } = await open({}, { recipients_per_address: 1 })
  expect(await ask({ client_address: '2001:db8::1' })).toBe('OK')
  expect(await ask({ client_address: '2001:db8::2' })).toBe(TOO_MUCH)
  expect(await ask({ client_address: '2001:db8:0:1::1' })).toBe('OK')
  expect(await ask({ client_address: '64:ff9b::192.0.2.7' })).toBe('OK')
  expect(await ask({ client_address: '64:ff9b::192.0.2.8' })).toBe('OK')
  expect(await ask({ client_address: '192.0.2.7' })).toBe(TOO_MUCH)
})

test('a client without a grant is neither counted nor limited, because the rules of the mail server decide', async () => {
  const { ask, relayed } = await open(
    { decide: async () => ({ relay: false, reason: 'no_grant' }), senderBinding: 'refuse' },
    { recipients_per_address: 1 },
  )
  for (let i = 0; i < 3; i++) expect(await ask({ sender: 'boss@example.org' })).toBe('DUNNO')
  expect(relayed).toEqual([])
})

test('a sender that does not belong to the login: no action, a warning, or 550', async () => {
  const foreign = { sender: 'boss@example.org' }
  const off = await open()
  expect(await off.ask(foreign)).toBe('OK')
  expect(off.lines.filter(line => line.includes('sender_mismatched'))).toEqual([])
  const warn = await open({ senderBinding: 'warn' })
  expect(await warn.ask(foreign)).toBe('OK')
  expect(warn.lines[0]).toContain(
    'event=sender_mismatched ip=192.0.2.7 service=policy user=ann@example.org sender=boss@example.org',
  )
  const refuse = await open({ senderBinding: 'refuse' })
  expect(await refuse.ask(foreign)).toBe('550 5.7.1 sender address does not belong to the mailbox opened from here')
  expect(refuse.relayed).toEqual([])
  expect(await refuse.ask()).toBe('OK')
})

test('the line about a foreign sender has the device, and the login whose rules hold at an address of several', async () => {
  const foreign = { sender: 'boss@example.org' }
  const ofDevice = await open({
    senderBinding: 'warn',
    decide: async () => ({ ...GRANTED, device: { ...COPIER, senders: [] } }),
  })
  expect(await ofDevice.ask(foreign)).toBe('OK')
  expect(ofDevice.lines[0]).toContain('service=policy user=ann@example.org device="copier 2" sender=boss@example.org')
  const neighbours = {
    logins: ['ann@example.org', 'bob@example.org'],
    devices: [{ login: 'ann@example.org', device: COPIER, isOpen: true }],
    isShared: false,
    onlyDevices: false,
  }
  const ofSeveral = await open({
    senderBinding: 'warn',
    decide: async () => ({ ...GRANTED, device: COPIER, neighbours }),
  })
  expect(await ofSeveral.ask(foreign)).toBe('OK')
  expect(ofSeveral.lines[0]).toContain('service=policy user=bob@example.org sender=boss@example.org')
})

test('a fault during a request gives DUNNO, so that no mail waits', async () => {
  const { ask, lines } = await open({
    decide: async () => {
      throw new Error('broken')
    },
  })
  expect(await ask()).toBe('DUNNO')
  expect(lines[0]).toContain('event=answer_failed service=policy reason=broken')
})

test('a request of a foreign account is answered, counts for no login and no address, and is not reported', async () => {
  const { ask, relayed } = await open({ counts: () => false }, { messages_per_login: 2 })
  for (let n = 0; n < 5; n++) expect(await ask({ instance: `message ${n}` })).toBe('OK')
  expect(relayed).toEqual([])
})

test('a decision that fails while an earlier one is awaited does not end the service', async () => {
  const first = Promise.withResolvers<Decision>()
  const decisions = [() => first.promise, () => Promise.reject(new Error('broken'))]
  const { ask } = await open({ decide: () => decisions.shift()?.() ?? Promise.resolve(GRANTED) })
  const answers = Promise.all([ask(), ask()])
  // An unhandled rejection would end the process in this turn of the event loop.
  await new Promise(resolve => setImmediate(resolve))
  first.resolve(GRANTED)
  await answers
  expect(await ask()).toBe('OK')
})
