/** Postfix's policy delegation: requests, and the answers of the gate. */
import { type IpAddress, parseIpAddress } from '../ip-address.ts'

/** Attributes of one request of Postfix's policy delegation (SMTPD_POLICY_README). */
export type PolicyRequest = ReadonlyMap<string, string>

/** Longest request in octets. Postfix sends about 600. */
export const MAX_POLICY_REQUEST = 16_384

/** The client's address; undefined if Postfix has none (`unknown`). */
export const clientOf = (request: PolicyRequest): IpAddress | undefined =>
  parseIpAddress(request.get('client_address') ?? '')

/** Formats a request with the empty line at its end. Attributes must contain no line end. */
export function formatPolicyRequest(request: PolicyRequest): string {
  return `${[...request].map(([name, value]) => `${name}=${value}\n`).join('')}\n`
}

/** Formats an answer. Line ends in the action become spaces, so that they begin no attribute. */
export const formatPolicyAnswer = (action: string): string => `action=${action.replace(/[\r\n]+/g, ' ')}\n\n`

/** The input is not a policy request, or too long. The connection must be closed. */
export class PolicyFault extends Error {
  override readonly name = 'PolicyFault'
}

/**
 * Splits a stream of octets into requests, with values in UTF-8. Holds at most MAX_POLICY_REQUEST
 * octets.
 */
export class PolicyReader {
  #held = ''

  /**
   * Adds octets, one character per octet, and returns the requests that they complete. Throws
   * PolicyFault.
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
    if (!attributes.has(name)) attributes.set(name, decoded(line.slice(equals + 1)))
  }
  if (attributes.get('request') !== 'smtpd_access_policy') throw new PolicyFault('not request=smtpd_access_policy')
  return attributes
}

/**
 * Decodes UTF-8 from one character per octet. In a value that is not UTF-8, each octet above ASCII
 * becomes a lone surrogate. So the value is not well-formed, and equals no text of a rule.
 */
function decoded(octets: string): string {
  if (!/[\x80-\xff]/.test(octets)) return octets
  const bytes = Buffer.from(octets, 'latin1')
  const text = bytes.toString()
  return Buffer.from(text).equals(bytes)
    ? text
    : octets.replace(/[\x80-\xff]/g, octet => String.fromCharCode(0xdc00 + octet.charCodeAt(0)))
}
