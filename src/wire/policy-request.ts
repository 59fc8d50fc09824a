import { type IpAddress, parseIpAddress } from './ip-address.ts'

/** Attributes of one question of Postfix's policy delegation (SMTPD_POLICY_README). */
export type PolicyRequest = ReadonlyMap<string, string>

/** Octets of one request that are held at most; Postfix sends about 600. */
export const MAX_POLICY_REQUEST = 16_384

/** The client's address, if Postfix gave one that is an address (`unknown` otherwise). */
export const clientOf = (request: PolicyRequest): IpAddress | undefined =>
  parseIpAddress(request.get('client_address') ?? '')

/** One request with the empty line that ends it. Attributes must hold no line end. */
export function formatPolicyRequest(request: PolicyRequest): string {
  return `${[...request].map(([name, value]) => `${name}=${value}\n`).join('')}\n`
}

/** The answer: one `action=` line and an empty one. Line ends inside the action cannot begin another attribute. */
export const formatPolicyAnswer = (action: string): string => `action=${action.replace(/[\r\n]+/g, ' ')}\n\n`

/** The client sends no requests of this protocol, or too long ones: the connection must be closed. */
export class PolicyFault extends Error {
  override readonly name = 'PolicyFault'
}

/** Cuts a stream of octets into policy requests; holds at most one of MAX_POLICY_REQUEST octets. */
export class PolicyReader {
  #held = ''

  /**
   * Takes the next octets, one character per octet, and returns the requests that they complete.
   * Throws PolicyFault.
   */
  push(text: string): PolicyRequest[] {
    this.#held += text
    const requests: PolicyRequest[] = []
    let start = 0
    for (let end = this.#held.indexOf('\n\n'); end >= 0; end = this.#held.indexOf('\n\n', start)) {
      requests.push(parse(this.#held.slice(start, end)))
      start = end + 2
    }
    this.#held = this.#held.slice(start)
    if (this.#held.length > MAX_POLICY_REQUEST)
      throw new PolicyFault(`a request is longer than ${MAX_POLICY_REQUEST} octets`)
    return requests
  }
}

function parse(block: string): PolicyRequest {
  const attributes = new Map<string, string>()
  for (const line of block.split('\n')) {
    const equals = line.indexOf('=')
    if (equals < 1) throw new PolicyFault('a line of the request is not name=value')
    const name = line.slice(0, equals)
    if (!attributes.has(name)) attributes.set(name, line.slice(equals + 1))
  }
  if (attributes.get('request') !== 'smtpd_access_policy') throw new PolicyFault('not request=smtpd_access_policy')
  return attributes
}
