import { once } from 'node:events'
import { connect, type Server } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { AddressRules, OpenedBy } from '../../../src/grants/devices/mail-rules.ts'
import type { GrantedDevice } from '../../../src/grants/grant-store.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { formatPolicyRequest } from '../../../src/wire/services/policy.ts'
import { formatRelayQuery } from '../../../src/wire/services/relay-query.ts'
import { type Decision, decide } from '../../../src/wrap/decision.ts'
import { GrantRules } from '../../../src/wrap/front/grant-rules.ts'
import { GrantTerm } from '../../../src/wrap/front/grant-term.ts'
import { MailCounts } from '../../../src/wrap/mail-counts.ts'
import { mailRules } from '../../../src/wrap/mail-rules.ts'
import { policyService } from '../../../src/wrap/services/policy-service.ts'
import { queryService } from '../../../src/wrap/services/query-service.ts'
import { socketmapService } from '../../../src/wrap/services/socketmap-service.ts'
import { ip } from '../../harness/addresses.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})
let sockets = 0

const CLIENT = ip('192.0.2.7')
const COPIER: GrantedDevice = {
  name: 'copier-2',
  senders: ['scan@example.org'],
  recipientDomains: ['example.org'],
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
const SITE: AddressRules = {
  withoutDevice: 'relay',
  sharedAddresses: 'devices',
  sharedLogins: 3,
  minuteOfDay: () => 600,
  placesOf: () => [],
}
const copier = { login: 'copier2@example.org', device: COPIER }
const fax = { login: 'fax@example.org', device: { ...COPIER, name: 'fax', senders: [] } }
const ended = { login: 'old@example.org', device: { ...COPIER, name: 'old', senders: ['old@x.example'], ended: true } }
const away = {
  login: 'far@example.org',
  device: { ...COPIER, name: 'far', senders: ['far@x.example'], elsewhere: true },
}
const BOB = 'bob@example.org'

/** The last login of each address closes it: the reason, the address, and the rules of the site. */
const CLOSED: readonly (readonly [string, OpenedBy, Partial<AddressRules>])[] = [
  [
    'no_device',
    { login: BOB, logins: [BOB, copier.login, fax.login], devices: [copier, fax] },
    { withoutDevice: 'refuse', sharedLogins: 9 },
  ],
  [
    'shared_address',
    { login: BOB, logins: [BOB, copier.login, fax.login], devices: [copier, fax] },
    { sharedAddresses: 'nobody' },
  ],
  ['device_ended', { ...ended, logins: [ended.login, copier.login, fax.login], devices: [ended, copier, fax] }, {}],
  ['device_network', { ...away, logins: [away.login, copier.login, fax.login], devices: [away, copier, fax] }, {}],
]

const decideFor = (opened: OpenedBy, rules: Partial<AddressRules>) => (): Promise<Decision> =>
  decide(CLIENT, {
    ask: async () => ({ until: 1_764_000_000, login: undefined, granted: opened.logins, ...opened }),
    refusal: () => undefined,
    timeoutMs: 1000,
    rules: { ...SITE, ...rules },
  })

function optionsFor(answer: () => Promise<Decision>) {
  return {
    decide: answer,
    limits: { maxConnections: 10, maxOpen: 100 },
    counts: () => true,
    onMessage: () => {},
    onDecision: () => {},
    faultsOf: () => ({}),
    log: createLog('wrap', { write: () => {} }),
    senderBinding: 'off',
    senderDomains: [],
    recipientDomains: [],
    mailCounts: new MailCounts(
      { messages_per_login: 0, messages_per_address: 0, recipients_per_login: 0, recipients_per_address: 0 },
      () => 0,
    ),
    customers: new CustomerNetworks(),
  } as const
}

async function listen(server: Server): Promise<string> {
  const path = `${directory.path}/${sockets++}.sock`
  server.listen(path)
  await once(server, 'listening')
  closing.push(() => server.close())
  return path
}

/** Sends one request to a service and returns its answer. */
async function request({ server }: { readonly server: Server }, text: string): Promise<string> {
  const conversation = new Conversation('service', connect({ path: await listen(server) }))
  conversation.write(text)
  const answer = (await conversation.expect(/./)).text
  conversation.close()
  return answer
}

type Answer = 'relayed' | 'closed' | 'refused'

/** Answers of each service to mail of a sender to a recipient. */
const SERVICES = {
  policy: async (answer: () => Promise<Decision>, sender: string, recipient: string): Promise<Answer> => {
    const fields = { request: 'smtpd_access_policy', protocol_state: 'RCPT', client_address: CLIENT, sender, recipient }
    const text = await request(
      policyService(() => optionsFor(answer)),
      formatPolicyRequest(new Map(Object.entries(fields))),
    )
    return text === 'action=OK' ? 'relayed' : text === 'action=DUNNO' ? 'closed' : 'refused'
  },
  query: async (answer: () => Promise<Decision>, sender: string, recipient: string): Promise<Answer> => {
    const line = formatRelayQuery({ ip: CLIENT, sender, recipient })
    const text = await request(
      queryService(() => optionsFor(answer)),
      `${line}\n`,
    )
    return text.startsWith('yes ') ? 'relayed' : text === 'no' ? 'closed' : 'refused'
  },
  // A session that began while the last login was that of the copier.
  front: async (answer: () => Promise<Decision>, sender: string, recipient: string): Promise<Answer> => {
    const term = new GrantTerm({ until: undefined, ...copier }, answer)
    const rules = new GrantRules(
      term,
      grant => mailRules(optionsFor(answer), CLIENT, grant, () => {}),
      () => {},
    )
    await term.renew()
    const mailbox = (text: string) => {
      const [local = '', domain = ''] = text.split('@')
      return text === '' ? undefined : { local, domain, written: text }
    }
    const refusal = rules.sender(mailbox(sender))
    if (refusal !== undefined)
      return /^450|^550 5\.7\.1 device "(?:old|far)"/.test(refusal.reply) ? 'closed' : 'refused'
    return 'rule' in rules.recipient(mailbox(recipient)) ? 'refused' : 'relayed'
  },
}

describe.each(Object.entries(SERVICES))('%s: an address that its last login closes', (_, ask) => {
  test.each(CLOSED)(
    'by %s relays the mail of the open devices there, by their rules',
    async (reason, opened, rules) => {
      const answer = decideFor(opened, rules)
      expect(await answer()).toMatchObject({ relay: false, reason })
      expect(await ask(answer, 'scan@example.org', 'u@example.org')).toBe('relayed')
      expect(await ask(answer, 'fax@example.org', 'u@example.org')).toBe('relayed')
      expect(await ask(answer, 'scan@example.org', 'u@evil.test')).toBe('refused')
    },
  )

  test.each(CLOSED)('by %s relays no other mail', async (_reason, opened, rules) => {
    const answer = decideFor(opened, rules)
    for (const sender of ['', 'ceo@example.org', 'old@x.example', 'far@x.example', 'scan@evil.test', BOB, 'scan'])
      expect(await ask(answer, sender, 'u@example.org'), sender).toBe('closed')
  })

  test('relays the mail of a login without a device only if such a login opens the relay', async () => {
    const opened = { ...ended, logins: [ended.login, BOB], devices: [ended] }
    expect(await ask(decideFor(opened, {}), BOB, 'u@evil.test')).toBe('relayed')
    expect(await ask(decideFor(opened, {}), 'ceo@example.org', 'u@evil.test')).toBe('closed')
    expect(await ask(decideFor(opened, { withoutDevice: 'refuse' }), BOB, 'u@evil.test')).toBe('closed')
    const shared = { sharedAddresses: 'nobody', sharedLogins: 2 } as const
    expect(await ask(decideFor(opened, shared), BOB, 'u@evil.test')).toBe('closed')
  })

  test('relays nothing without another login, or if the other device is closed too', async () => {
    const alone = { login: BOB, logins: [], devices: [] }
    const both = { ...ended, logins: [ended.login, away.login], devices: [ended, away] }
    for (const sender of ['scan@example.org', 'far@x.example', BOB, '']) {
      expect(await ask(decideFor(alone, { withoutDevice: 'refuse' }), sender, 'u@example.org')).toBe('closed')
      expect(await ask(decideFor(both, {}), sender, 'u@example.org')).toBe('closed')
    }
  })

  test('relays nothing of a login before the present grant', async () => {
    for (const [, opened, rules] of CLOSED) {
      const answer = decideFor({ ...opened, granted: [fax.login] }, rules)
      expect(await ask(answer, 'scan@example.org', 'u@example.org')).toBe('closed')
      expect(await ask(answer, 'fax@example.org', 'u@example.org')).toBe('relayed')
    }
  })

  test('relays nothing if the database gives no answer, or if no login opens the address', async () => {
    const failing = () =>
      decide(CLIENT, {
        ask: () => Promise.reject(new Error('x')),
        refusal: () => undefined,
        timeoutMs: 1000,
        rules: SITE,
      })
    const none = () =>
      decide(CLIENT, { ask: async () => undefined, refusal: () => undefined, timeoutMs: 1000, rules: SITE })
    for (const answer of [failing, none])
      expect(await ask(answer, 'scan@example.org', 'u@example.org')).not.toBe('relayed')
  })
})

test('a service that does not know the sender relays nothing from such an address', async () => {
  for (const [, opened, rules] of CLOSED) {
    const answer = decideFor(opened, rules)
    const line = formatRelayQuery({ ip: CLIENT })
    expect(
      await request(
        queryService(() => optionsFor(answer)),
        `${line}\n`,
      ),
    ).toBe('no')
    const { server } = socketmapService(() => optionsFor(answer))
    const socket = connect({ path: await listen(server) })
    closing.push(() => void socket.destroy())
    socket.write('15:relay 192.0.2.7,')
    expect(String((await once(socket, 'data'))[0])).toBe('9:NOTFOUND ,')
  }
})
