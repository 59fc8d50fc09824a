import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { formatCountsQuery, parseCountsQuery } from '../../../src/wire/services/gate-report.ts'
import {
  clientOf,
  formatPolicyRequest,
  MAX_POLICY_REQUEST,
  PolicyFault,
  PolicyReader,
} from '../../../src/wire/services/policy.ts'
import { formatRelayQuery, parseRelayQuery } from '../../../src/wire/services/relay-query.ts'
import {
  formatNetstring,
  NetstringFault,
  NetstringReader,
  parseSocketmapQuery,
} from '../../../src/wire/services/socketmap.ts'
import { type FuzzTarget, only, promise } from './fuzz-target.ts'
import { cut, mutated } from './mutation.ts'
import type { Random } from './random.ts'

const REQUEST = formatPolicyRequest(
  new Map([
    ['request', 'smtpd_access_policy'],
    ['protocol_state', 'RCPT'],
    ['client_address', '192.0.2.7'],
    ['sender', 'ann@example.org'],
    ['recipient', 'bob@elsewhere.example'],
    ['instance', '7f3a.12'],
  ]),
)
const NETSTRINGS = [formatNetstring('relay 192.0.2.7'), formatNetstring('relay 2001:db8::7'), formatNetstring('')]
const QUERIES = ['relay v=1 ip=192.0.2.7', 'relay v=1 ip=192.0.2.7 instance=7f3a.12', 'counts v=1 device=copier-2']
const WORDS = [
  ...REQUEST.split('\n'),
  '\n\n',
  ...NETSTRINGS,
  'request=smtpd_access_policy\n',
  'client_address=198.51.100.66\n',
]

function policy(random: Random): void {
  const text = mutated(random, REQUEST + REQUEST, WORDS)
  const read = (pieces: readonly string[]): string | undefined =>
    only(PolicyFault, text, () => {
      const reader = new PolicyReader()
      const requests = pieces.flatMap(piece => reader.push(piece))
      for (const request of requests) {
        promise(request.get('request') === 'smtpd_access_policy', 'not a policy request', text)
        const client = clientOf(request)
        promise(client === undefined || text.includes('client_address='), 'a client out of nothing', text)
      }
      return JSON.stringify(requests.map(request => [...request]))
    })
  const whole = read([text])
  const cutUp = read(cut(random, Buffer.from(text, 'latin1')).map(piece => piece.toString('latin1')))
  // A request that is too long may end within a piece. Then only one of the two readers refuses it.
  promise(whole === cutUp || text.length > MAX_POLICY_REQUEST, 'other requests when cut', text)
}

function socketmap(random: Random): void {
  const text = mutated(random, random.pick(NETSTRINGS) + random.pick(NETSTRINGS), WORDS)
  const limit = random.pick([16, 1024])
  const read = (pieces: readonly Buffer[]): string | undefined =>
    only(NetstringFault, text, () => {
      const reader = new NetstringReader(limit)
      const contents = pieces.flatMap(piece => reader.push(piece))
      for (const content of contents) parseSocketmapQuery(content)
      return JSON.stringify(contents)
    })
  const bytes = Buffer.from(text, 'latin1')
  promise(read([bytes]) === read(cut(random, bytes)), 'other queries when cut', text)
}

function query(random: Random): void {
  const line = mutated(random, random.pick(QUERIES), WORDS)
  const device = parseCountsQuery(line)
  promise(device === undefined || parseCountsQuery(formatCountsQuery(device)) === device, 'another device', line)
  const asked = parseRelayQuery(line)
  if (asked === undefined) return
  promise(parseIpAddress(asked.ip) === asked.ip, 'asks for no address', line)
  promise(parseRelayQuery(formatRelayQuery(asked))?.ip === asked.ip, 'another query', line)
}

/** Queries of mail servers: policy requests, socketmap requests, and lines of the query service. */
export const gateQueries: FuzzTarget = {
  name: 'gate-queries',
  attempt: random => random.pick([policy, policy, socketmap, query])(random),
}
