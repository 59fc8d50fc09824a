import { familyOf, formatNetwork, type IpAddress, networkOf } from './ip-address.ts'

/** What a rule says about a connection: refuse it, or let it in with some variables (tcprules(1)). */
export type TcpRule = { readonly allow: boolean; readonly environment: Readonly<Record<string, string | Uint8Array>> }

/** A line of a rules text. An address with ranges (`10.0.1-3.`) is written out as several rules of the same content. */
export type TcpRuleLine = { readonly addresses: readonly string[]; readonly rule: TcpRule }

/** A line that is no rule: 1-based number and why. */
export type TcpRuleFault = { readonly line: number; readonly reason: string }

/** More addresses than this from one line is a typing error. */
const MAX_RANGE = 65_536

/** Reads a rules text. IPv6 addresses may stand where ucspi-tcp6 takes them: the instruction begins at `:allow` or `:deny`. */
export function parseTcpRules(text: string): {
  readonly lines: readonly TcpRuleLine[]
  readonly faults: readonly TcpRuleFault[]
} {
  const lines: TcpRuleLine[] = []
  const faults: TcpRuleFault[] = []
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/[ \t\r]+$/, '')
    if (line === '' || line.startsWith('#')) continue
    const parsed = parseLine(line)
    if (typeof parsed === 'string') faults.push({ line: index + 1, reason: parsed })
    else lines.push(parsed)
  }
  return { lines, faults }
}

function parseLine(line: string): TcpRuleLine | string {
  const { address, instruction, variables } =
    /^(?<address>.*?):(?<instruction>allow|deny)(?<variables>(?:,.*)?)$/.exec(line)?.groups ?? {}
  if (address === undefined || variables === undefined) return 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'
  const environment = parseVariables(variables)
  if (environment === undefined) return 'after the instruction only ,NAME="value" may follow'
  const addresses = expand(address)
  if (addresses === undefined) return `the range in ${address} is none`
  return { addresses, rule: { allow: instruction === 'allow', environment } }
}

/** `,NAME="value",NAME=/value/`: whatever stands after `=` is the quote. */
function parseVariables(text: string): Record<string, string> | undefined {
  const environment: Record<string, string> = {}
  for (let at = 0; at < text.length; ) {
    const name = /^,([^=,]+)=/.exec(text.slice(at))?.[1]
    const quote = name === undefined ? undefined : text[at + name.length + 2]
    if (name === undefined || quote === undefined) return undefined
    const from = at + name.length + 3
    const to = text.indexOf(quote, from)
    if (to < 0) return undefined
    environment[name] = text.slice(from, to)
    at = to + 1
  }
  return environment
}

/** `1.2.3.37-53` is seventeen addresses, `10.0.1-3.` three prefixes. Host names and idents (`user@1.2.3.4`, `=.example.org`) have no ranges. */
function expand(address: string): readonly string[] | undefined {
  if (/[=@:]/.test(address) || !address.includes('-')) return [address]
  const { before, low, high, after } =
    /^(?<before>[^-]*?)(?<low>\d+)-(?<high>\d+)(?<after>.*)$/.exec(address)?.groups ?? {}
  if (low === undefined || high === undefined || Number(high) < Number(low)) return undefined
  if (Number(high) - Number(low) >= MAX_RANGE) return undefined
  const numbers = Array.from({ length: Number(high) - Number(low) + 1 }, (_, i) => Number(low) + i)
  return numbers.map(number => `${before ?? ''}${number}${after ?? ''}`)
}

/** Data of a rule in a tcprules cdb: `D` first for deny, then `+NAME=value` NUL for each variable. */
export function formatTcpRule({ allow, environment }: TcpRule): Buffer {
  const variables = Object.entries(environment).flatMap(([name, value]) => [
    Buffer.from(`+${name}=`),
    typeof value === 'string' ? Buffer.from(value) : value,
    Uint8Array.of(0),
  ])
  return Buffer.concat([...(allow ? [] : [Buffer.from('D\0')]), ...variables])
}

/** Inverse of formatTcpRule, for files that tcprules made as well. Values that are not UTF-8 stay octets. */
export function parseTcpRule(data: Uint8Array): TcpRule {
  const environment: Record<string, string | Uint8Array> = {}
  let allow = true
  const bytes = Buffer.from(data)
  for (let at = 0; at < bytes.length; ) {
    const nul = bytes.indexOf(0, at)
    const end = nul < 0 ? bytes.length : nul
    const equals = bytes.indexOf(0x3d, at)
    if (bytes[at] === 0x44) allow = false
    else if (bytes[at] === 0x2b && equals > at && equals < end) {
      const value = bytes.subarray(equals + 1, end)
      const text = value.toString()
      environment[bytes.toString('latin1', at + 1, equals)] = Buffer.from(text).equals(value) ? text : value
    }
    at = end + 1
  }
  return { allow, environment }
}

/** What is asked about a connection. */
export type TcpRuleQuestion = {
  readonly ip: IpAddress
  readonly host?: string | undefined
  readonly info?: string | undefined
}

/** The addresses under which a rule may stand, in the order in which tcpserver asks for them: the first hit counts (tcprules(1)). */
export function* tcpRuleKeys({ ip, host, info }: TcpRuleQuestion): Generator<string> {
  const name = host?.toLowerCase()
  if (info !== undefined) {
    yield `${info}@${ip}`
    if (name !== undefined) yield `${info}@=${name}`
  }
  yield ip
  if (name !== undefined) yield `=${name}`
  if (familyOf(ip) === 4) {
    for (let dot = ip.lastIndexOf('.'); dot >= 0; dot = ip.lastIndexOf('.', dot - 1)) {
      yield ip.slice(0, dot + 1)
      if (dot === 0) break
    }
  } else {
    // ucspi-tcp6: CIDR, longest first.
    for (let length = 127; length > 0; length--) yield formatNetwork(networkOf(ip, length))
  }
  if (name !== undefined) {
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) yield `=${name.slice(dot)}`
    yield '='
  }
  yield ''
}
