import { once } from 'node:events'
import { connect } from 'node:net'
import { fc, test as property } from '@fast-check/vitest'
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { explainMail } from '../../../../src/auth-relay/verbs/grants/explain.ts'
import { createLog } from '../../../../src/base/log.ts'
import { addressRulesOf } from '../../../../src/grants/devices/mail-rules.ts'
import type { Grant, GrantedDevice } from '../../../../src/grants/grant-store.ts'
import { parseSettings, type Settings } from '../../../../src/settings/settings.ts'
import { CustomerNetworks } from '../../../../src/wire/customer-networks.ts'
import { formatPolicyRequest } from '../../../../src/wire/services/policy.ts'
import { formatRelayQuery, parseRelayAnswer } from '../../../../src/wire/services/relay-query.ts'
import { decide } from '../../../../src/wrap/decision.ts'
import { MailCounts } from '../../../../src/wrap/mail-counts.ts'
import { policyService } from '../../../../src/wrap/services/policy-service.ts'
import { queryService } from '../../../../src/wrap/services/query-service.ts'
import { ip } from '../../../harness/addresses.ts'
import { Conversation } from '../../../harness/processes/conversation.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const ALWAYS = { from: 0, to: 1440 }
const NEVER = { from: 1440, to: 1441 }
const NAMES = ['ann@example.org', 'bob@example.org', 'copier2@example.org', 'fax'] as const
const SENDERS = ['', 'ann@example.org', 'bob@example.org', 'scan@example.org', 'fax@other.example', 'ceo@x.example']
const RECIPIENTS = ['u@example.org', 'u@other.example', 'postmaster', 'a%b@example.org']

const device: fc.Arbitrary<GrantedDevice> = fc
  .record({
    senders: fc.constantFrom([], ['scan@example.org'], ['ann@example.org', 'scan@example.org']),
    recipientDomains: fc.constantFrom([], ['example.org']),
    hours: fc.constantFrom(null, null, ALWAYS, NEVER),
    ended: fc.constantFrom(false, false, true),
    elsewhere: fc.constantFrom(false, false, true),
  })
  .map(rules => ({
    ...rules,
    name: 'device',
    messagesPerHour: 0,
    messagesPerDay: 0,
    recipientsPerHour: 0,
    recipientsPerDay: 0,
    lineEndings: 'strict',
    places: [],
    until: null,
  }))

/** Facts of the store about an address: the last login, the other logins, and their devices. */
const grant: fc.Arbitrary<Grant> = fc
  .record({
    ip: fc.constantFrom(ip('192.0.2.7'), ip('100.64.1.2')),
    last: fc.option(fc.constantFrom(...NAMES), { freq: 9 }),
    others: fc.subarray([...NAMES]),
    granted: fc.subarray([...NAMES]),
    devices: fc.dictionary(fc.constantFrom(...NAMES), device),
  })
  .map(({ ip: address, last, others, granted, devices }) => {
    const logins = last === null || others.length === 0 ? [] : [...new Set([last, ...others])]
    return {
      ip: address,
      source: last === null ? 'allowance' : 'login',
      login: last,
      until: null,
      age: 1,
      secondsLeft: null,
      device: last === null ? null : (devices[last] ?? null),
      logins,
      granted: logins.filter(login => login === last || granted.some(name => name === login)),
      devices: logins.flatMap(login => {
        const known = devices[login]
        return known === undefined ? [] : [{ login, device: known }]
      }),
    }
  })

const settings: fc.Arbitrary<Settings> = fc
  .record({
    without_device: fc.constantFrom('relay', 'refuse'),
    shared_addresses: fc.constantFrom('devices', 'nobody', 'as_before'),
    shared_logins: fc.constantFrom(2, 3, 9),
    sender_binding: fc.constantFrom('off', 'warn', 'refuse'),
    sender_domains: fc.constantFrom([], ['example.org']),
    recipient_domains: fc.constantFrom([], ['other.example']),
  })
  .map(
    wrap =>
      parseSettings(
        [
          '[wrap]',
          'policy_listen = ["unix:/run/policy.sock"]',
          ...Object.entries(wrap).map(([name, value]) => `${name} = ${JSON.stringify(value)}`),
          '',
        ].join('\n'),
        'test',
        {},
      ).settings,
  )

describe('explain and the services of the gate, for the same facts', () => {
  const directory = temporaryDirectory()
  let facts: { readonly grant: Grant; readonly settings: Settings } | undefined
  const options = () => {
    if (facts === undefined) throw new Error('a query before the first facts')
    const { grant: found, settings: site } = facts
    const { login, device: own, ...others } = found
    return {
      decide: () =>
        decide(found.ip, {
          ask: async () => ({ ...others, until: undefined, login: login ?? undefined, device: own ?? undefined }),
          refusal: () => undefined,
          timeoutMs: 10_000,
          rules: addressRulesOf(site),
        }),
      limits: { maxConnections: 10, maxOpen: 100 },
      counts: () => true,
      onMessage: () => {},
      onDecision: () => {},
      faultsOf: () => ({}),
      log: createLog('wrap', { write: () => {} }),
      senderBinding: site.wrap.sender_binding,
      senderDomains: site.wrap.sender_domains,
      recipientDomains: site.wrap.recipient_domains,
      mailCounts: new MailCounts(
        { messages_per_login: 0, messages_per_address: 0, recipients_per_login: 0, recipients_per_address: 0 },
        () => 0,
      ),
      customers: new CustomerNetworks(),
    } as const
  }
  const services = { query: queryService(options), policy: policyService(options) }
  let query: Conversation
  let policy: Conversation

  beforeAll(async () => {
    const open = async (name: keyof typeof services): Promise<Conversation> => {
      const path = `${directory.path}/${name}.sock`
      const { server } = services[name]
      server.listen(path)
      await once(server, 'listening')
      return new Conversation(name, connect({ path }))
    }
    query = await open('query')
    policy = await open('policy')
  })
  afterAll(() => {
    query.close()
    policy.close()
    for (const { server } of Object.values(services)) server.close()
    directory.remove()
  })

  /** The answer of explain in one word: relayed, closed, or the reply of the refusal. */
  const explained = (sender: string | undefined, to: string | undefined): string => {
    if (facts === undefined) throw new Error('no facts')
    const envelope = { ...(sender === undefined ? {} : { sender }), ...(to === undefined ? {} : { to }) }
    const mail = explainMail(facts.grant, facts.grant.ip, facts.settings, envelope)
    if (mail === undefined) return 'no grant'
    if (mail.closed !== null) return mail.refused ? 'closed' : 'closed, but not refused'
    const reply = (mail.sender ?? mail.recipient)?.reply
    if (mail.refused !== (reply !== undefined)) return 'refused without a reply, or the reverse'
    return reply ?? 'relayed'
  }

  property.prop([grant, settings, fc.option(fc.constantFrom(...SENDERS)), fc.option(fc.constantFrom(...RECIPIENTS))], {
    numRuns: 500,
  })('the query service gives the answer of explain', async (found, site, sender, recipient) => {
    facts = { grant: found, settings: site }
    const line = formatRelayQuery({
      ip: found.ip,
      ...(sender === null ? {} : { sender }),
      ...(recipient === null ? {} : { recipient }),
    })
    query.write(`${line}\n`)
    const { text } = await query.expect(/./)
    const answer = parseRelayAnswer(text)
    const word = answer?.verdict === 'yes' ? 'relayed' : answer?.verdict === 'no' ? (answer.reply ?? 'closed') : text
    expect(word).toBe(explained(sender ?? undefined, recipient ?? undefined))
  })

  property.prop([grant, settings, fc.constantFrom(...SENDERS), fc.constantFrom(...RECIPIENTS)], { numRuns: 500 })(
    'the policy service gives the answer of explain',
    async (found, site, sender, recipient) => {
      facts = { grant: found, settings: site }
      const fields = {
        request: 'smtpd_access_policy',
        protocol_state: 'RCPT',
        client_address: found.ip,
        sender,
        recipient,
      }
      policy.write(formatPolicyRequest(new Map(Object.entries(fields))))
      const { text } = await policy.expect(/^action=/)
      await policy.expect(/^$/)
      const action = text.slice('action='.length)
      const word = action === 'OK' ? 'relayed' : action === 'DUNNO' ? 'closed' : action
      expect(word).toBe(explained(sender, recipient))
    },
  )
})
