import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { RelayGrant } from '../../../src/grants/devices/mail-rules.ts'
import type { GrantedDevice } from '../../../src/grants/grant-store.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { formatPolicyRequest } from '../../../src/wire/services/policy.ts'
import { formatRelayQuery, parseRelayAnswer } from '../../../src/wire/services/relay-query.ts'
import { GrantRules } from '../../../src/wrap/front/grant-rules.ts'
import { GrantTerm } from '../../../src/wrap/front/grant-term.ts'
import { MailCounts, type MailLimits } from '../../../src/wrap/mail-counts.ts'
import { mailRules, type SiteMailRules } from '../../../src/wrap/mail-rules.ts'
import { policyService } from '../../../src/wrap/services/policy-service.ts'
import { type QueryServiceOptions, queryService } from '../../../src/wrap/services/query-service.ts'
import { ip } from '../../harness/addresses.ts'
import { Conversation } from '../../harness/processes/conversation.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'
import { FrontSession } from '../smtp/front-session.ts'

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
  senders: ['scän@exämple.org', 'scan@example.org'],
  recipientDomains: ['example.org', 'bücher.example'],
  messagesPerHour: 2,
  messagesPerDay: 0,
  recipientsPerHour: 3,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  until: null,
  ended: false,
  places: [],
  elsewhere: false,
}

/** A client with the rules that apply to its mail. */
type Client = RelayGrant & Partial<Omit<SiteMailRules, 'mailCounts' | 'customers'>> & { readonly limits?: MailLimits }
const DEVICE: Client = { until: 1_764_000_000, login: 'ann@example.org', device: COPIER }
const BOUND: Client = { until: 1_764_000_000, login: 'änn@exämple.org', senderBinding: 'refuse' }
const TO_DOMAINS: Client = { ...BOUND, senderBinding: 'off', recipientDomains: ['bücher.example'] }
const SHARED: Client = {
  ...BOUND,
  senderBinding: 'off',
  neighbours: {
    logins: ['änn@exämple.org', 'bob@example.org', 'copier@example.org'],
    devices: [{ login: 'copier@example.org', device: COPIER, isOpen: true }],
    isShared: true,
    onlyDevices: false,
  },
}
const NO_LIMITS: MailLimits = {
  messages_per_login: 0,
  messages_per_address: 0,
  recipients_per_login: 0,
  recipients_per_address: 0,
}
const LIMITED: Client = { ...BOUND, senderBinding: 'off', limits: { ...NO_LIMITS, messages_per_login: 2 } }

/** Octets of the address, one character per octet. */
type Mail = { readonly sender: string; readonly recipient: string; readonly message: number }
/** Sends the recipient of one message; returns `ok` or the SMTP reply. */
type Ask = (mail: Mail) => Promise<string>

/** Devices of the messages that counted. */
const sent: string[] = []

const octetsOf = (address: string): string => Buffer.from(address).toString('latin1')
const text = (octets: string): string => Buffer.from(octets, 'latin1').toString()

function optionsFor({ limits = NO_LIMITS, ...client }: Client): QueryServiceOptions {
  const { until, login, device, neighbours, senderBinding = 'off', senderDomains = [], recipientDomains = [] } = client
  return {
    limits: { maxConnections: 10, maxOpen: 100 },
    counts: () => true,
    onMessage: device => void sent.push(device),
    decide: async () => ({ relay: true, until, login, device, neighbours }),
    onDecision: () => {},
    log: createLog('wrap', { write: () => {} }),
    senderBinding,
    senderDomains,
    recipientDomains,
    mailCounts: new MailCounts(limits, () => 48 * 3_600_000),
    customers: new CustomerNetworks(),
  }
}

async function listen({ server }: ReturnType<typeof policyService> | ReturnType<typeof queryService>): Promise<string> {
  const path = `${directory.path}/${sockets++}.sock`
  server.listen(path)
  await once(server, 'listening')
  closing.push(() => server.close())
  return path
}

async function policy(client: Client): Promise<Ask> {
  const options = optionsFor(client)
  const path = await listen(policyService(() => options))
  const socket = connect({ path })
  closing.push(() => socket.destroy())
  return async ({ sender, recipient, message }) => {
    const request = {
      request: 'smtpd_access_policy',
      protocol_state: 'RCPT',
      client_address: CLIENT,
      sender,
      recipient,
      instance: `message ${message}`,
    }
    socket.write(Buffer.from(formatPolicyRequest(new Map(Object.entries(request))), 'latin1'))
    const [answer] = await once(socket, 'data')
    return String(answer).trim().replace('action=', '').replace('OK', 'ok')
  }
}

async function query(client: Client): Promise<Ask> {
  const options = optionsFor(client)
  const path = await listen(queryService(() => ({ ...options, faultsOf: () => ({}) })))
  return async ({ sender, recipient, message }) => {
    const conversation = new Conversation('query', connect({ path }))
    const line = formatRelayQuery({ ip: CLIENT, instance: `${message}` })
    const [from, to] = [sender, recipient].map(octets => Buffer.from(octets, 'latin1').toString('base64'))
    conversation.write(`${line} sender_encoded=${from} recipient_encoded=${to}\n`)
    const answer = parseRelayAnswer((await conversation.expect(/./)).text)
    conversation.close()
    if (answer === undefined || answer.verdict === 'unknown') return 'unknown'
    return answer.verdict === 'yes' ? 'ok' : (answer.reply ?? 'no')
  }
}

async function front(client: Client): Promise<Ask> {
  const options = optionsFor(client)
  const term = new GrantTerm(client, () => options.decide(CLIENT))
  const session = new FrontSession({
    rules: new GrantRules(
      term,
      grant => mailRules(options, CLIENT, grant, () => {}),
      device => void sent.push(device ?? ''),
    ),
  })
  const say = (line: string): string => {
    session.group(`${line}\r\n`)
    return session.received.trimEnd().split('\r\n').at(-1) ?? ''
  }
  let current = 0
  return async ({ sender, recipient, message }) => {
    if (message !== current) {
      if (current > 0) for (const line of ['DATA', 'text\r\n.']) say(line)
      current = message
      const reply = say(`MAIL FROM:<${sender}>`)
      if (!reply.startsWith('250')) return reply
    }
    const reply = say(`RCPT TO:<${recipient}>`)
    return reply.startsWith('250') ? 'ok' : reply
  }
}

const SERVICES = { policy, query, front }

type Row = readonly [title: string, client: Client, mails: readonly (readonly [string, string])[], answers: RegExp[]]
const FAR = 'u@far.example'
const OK = /^ok$/
const ROWS: readonly Row[] = [
  ['the own sender of a device', DEVICE, [['scan@example.org', 'u@example.org']], [OK]],
  ['the own sender in UTF-8', DEVICE, [['scän@exämple.org', 'u@example.org']], [OK]],
  ['an extension in UTF-8', DEVICE, [['scän+ö@exämple.org', 'u@example.org']], [OK]],
  ['an own sender with a final dot', DEVICE, [['scan@example.org.', 'u@example.org']], [OK]],
  ['an own sender in UTF-8 with a final dot', DEVICE, [['scän@exämple.org.', 'u@example.org']], [OK]],
  ['the null sender', DEVICE, [['', 'u@example.org']], [OK]],
  [
    'another sender',
    DEVICE,
    [['ceo@example.org', 'u@example.org']],
    [/^550 5\.7\.1 device "copier-2" may not send as <ceo@example\.org>; set its sender to sc.*n@ex.*mple\.org$/],
  ],
  [
    'another sender in UTF-8',
    DEVICE,
    [['çeo@exämple.org', 'u@example.org']],
    [/may not send as <%C3%A7eo@ex%C3%A4mple\.org>/],
  ],
  [
    'another sender with a final dot',
    DEVICE,
    [['ceo@example.org.', 'u@example.org']],
    [/may not send as <ceo@example\.org\.>/],
  ],
  ['a recipient domain in UTF-8', DEVICE, [['scan@example.org', 'u@bücher.example']], [OK]],
  ['a recipient domain with a final dot', DEVICE, [['scan@example.org', 'u@bücher.example.']], [OK]],
  ['another recipient domain', DEVICE, [['scan@example.org', FAR]], [/may not send to <u@far\.example>/]],
  ['postmaster', DEVICE, [['scan@example.org', 'postmaster']], [OK]],
  ['postmaster at the root', DEVICE, [['scan@example.org', 'postmaster@.']], [/may not send to <postmaster@\.>/]],
  [
    'the third message of an hour',
    DEVICE,
    [
      ['scan@example.org', 'u@example.org'],
      ['scän@exämple.org', 'u@bücher.example'],
      ['scan@example.org', 'u@example.org'],
    ],
    [OK, OK, /^450 4\.7\.1 device "copier-2" has sent 2 messages in an hour; try again after 01:30 UTC$/],
  ],
  ['the own sender of a login', BOUND, [['änn@exämple.org', FAR]], [OK]],
  ['the own sender of a login, with a final dot', BOUND, [['änn@exämple.org.', FAR]], [OK]],
  ['a sender of another login', BOUND, [['ann@exämple.org', FAR]], [/does not belong to the mailbox/]],
  ['a listed recipient domain of a login', TO_DOMAINS, [['a@b', 'u@BÜCHER.example.']], [OK]],
  [
    'another recipient domain of a login',
    TO_DOMAINS,
    [['a@b', 'ü@far.example']],
    [/may not send to <%C3%BC@far\.example>/],
  ],
  ['a sender of a shared address', SHARED, [['änn@exämple.org.', FAR]], [OK]],
  ['the device of a shared address', SHARED, [['scan@example.org', 'u@bücher.example']], [OK]],
  [
    'a recipient of the device of a shared address',
    SHARED,
    [['scan@example.org', FAR]],
    [/may not send to <u@far\.example>/],
  ],
  [
    'the third message of the device of a shared address',
    SHARED,
    [
      ['scan@example.org', 'u@example.org'],
      ['scan@example.org', 'u@example.org'],
      ['scan@example.org', 'u@example.org'],
    ],
    [OK, OK, /^450 4\.7\.1 device "copier-2" has sent 2 messages in an hour/],
  ],
  ['a foreign sender of a shared address', SHARED, [['boss@exämple.org', FAR]], [/many mailboxes were opened/]],
  [
    'the third message of a login',
    LIMITED,
    [
      ['a@b', FAR],
      ['a@b', FAR],
      ['a@b', FAR],
    ],
    [OK, OK, /^450 4\.7\.1 too much mail/],
  ],
]

describe.each(Object.entries(SERVICES))('%s', (_, open) => {
  test.each(ROWS)('%s', async (_title, client, mails, answers) => {
    const ask = await open(client)
    const heard: string[] = []
    for (const [message, [sender, recipient]] of mails.entries())
      heard.push(text(await ask({ sender: octetsOf(sender), recipient: octetsOf(recipient), message: message + 1 })))
    expect(heard).toEqual(answers.map(answer => expect.stringMatching(answer)))
  })

  test('a fourth recipient within an hour is refused', async () => {
    const ask = await open(DEVICE)
    const mail = { sender: 'scan@example.org', recipient: 'u@example.org', message: 1 }
    for (let count = 0; count < 3; count += 1) expect(await ask(mail)).toBe('ok')
    expect(await ask(mail)).toMatch(/^450 4\.7\.1 device "copier-2" has sent 3 recipients in an hour/)
  })

  test.each([
    ['sc\xe4n@ex\xe4mple.org', 'u@example.org'],
    ['scan+\xff@example.org', 'u@example.org'],
    ['\xed\xa0\x80@example.org', 'u@example.org'],
    ['scan@example.org', 'u@b\xfccher.example'],
    ['scan@example.org', '\xff@example.org'],
  ])('octets that are not UTF-8 belong to no rule of a device: %j, %j', async (sender, recipient) => {
    const ask = await open({ ...DEVICE, device: { ...COPIER, senders: [...COPIER.senders, '\ufffd@example.org'] } })
    expect(await ask({ sender, recipient, message: 1 })).toMatch(/^(5\d\d |unknown$)/)
    expect(await ask({ sender: 'scan@example.org', recipient: 'u@example.org', message: 2 })).toBe('ok')
  })
})

test.each(Object.entries(SERVICES))(
  '%s: each message of a device counts once, with all its recipients',
  async (_, open) => {
    sent.length = 0
    const ask = await open(DEVICE)
    const mail = { sender: 'scan@example.org', recipient: 'u@example.org' }
    for (const message of [1, 1, 2]) expect(await ask({ ...mail, message })).toBe('ok')
    // The front counts a message when the server has accepted it: here at the next MAIL.
    expect(await ask({ ...mail, sender: 'ceo@example.org', message: 3 })).toMatch(/^550 /)
    expect(sent).toEqual(['copier-2', 'copier-2'])
  },
)
