/** What a rule says about a connection: refuse it, or let it in with some variables (tcprules(1)). */
export type TcpRule = { readonly allow: boolean; readonly environment: Readonly<Record<string, string | Uint8Array>> }

/** A record of a rules cdb. The key has one character for each octet. */
export type TcpRuleRecord = { readonly key: string; readonly data: Uint8Array }

/** A line that is no rule: 1-based number and why. */
export type TcpRuleFault = { readonly line: number; readonly reason: string }

/**
 * Reads a rules text as tcprules does, octet by octet: the same lines are rules, the same lines are
 * skipped, the same records follow. An address may hold colons where Debian's ucspi-tcp-ipv6 and
 * ucspi-tcp6 take them: the instruction begins at the first `:allow` or `:deny`. A line without a
 * colon is skipped. tcprules stops at the first fault; all of them are named here.
 */
export function parseTcpRules(text: Uint8Array): {
  readonly records: readonly TcpRuleRecord[]
  readonly faults: readonly TcpRuleFault[]
} {
  const records: TcpRuleRecord[] = []
  const faults: TcpRuleFault[] = []
  for (const [index, raw] of Buffer.from(text).toString('latin1').split('\n').entries()) {
    if (raw.startsWith('#')) continue
    const line = withoutBlanks(raw)
    if (!line.includes(':')) continue
    const parsed = parseLine(line)
    if (typeof parsed !== 'string') records.push(...parsed)
    else faults.push({ line: index + 1, reason: line.endsWith('\r') ? CARRIAGE_RETURN : parsed })
  }
  return { records, faults }
}

const CARRIAGE_RETURN = 'the line ends in a carriage return. Save the file with Unix line ends'

/** A carriage return stays: tcprules takes it for a part of the rule. */
function withoutBlanks(line: string): string {
  let length = line.length
  while (line[length - 1] === ' ' || line[length - 1] === '\t') length--
  return line.slice(0, length)
}

function parseLine(line: string): readonly TcpRuleRecord[] | string {
  let colon = line.indexOf(':')
  const instructionAt = (): string | undefined => INSTRUCTIONS.find(word => line.startsWith(word, colon + 1))
  while (colon >= 0 && instructionAt() === undefined) colon = line.indexOf(':', colon + 1)
  const instruction = colon < 0 ? undefined : instructionAt()
  if (instruction === undefined) return 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'
  const variables = parseVariables(line, colon + 1 + instruction.length)
  if (variables === undefined) return 'after the instruction only ,NAME="value" may follow'
  const address = line.slice(0, colon)
  const keys = expand(address)
  if (keys === undefined) return `the range in ${address} is none`
  const data = Buffer.from(`${instruction === 'deny' ? 'D\0' : ''}${variables}`, 'latin1')
  return keys.map(key => ({ key, data }))
}

const INSTRUCTIONS = ['deny', 'allow'] as const

/** `,NAME="value",NAME=/value/` as data of a record: whatever stands after `=` is the quote. */
function parseVariables(line: string, start: number): string | undefined {
  let data = ''
  for (let at = start; at < line.length; ) {
    const equals = line.indexOf('=', at)
    const quote = line[equals + 1]
    if (line[at] !== ',' || equals < 0 || quote === undefined) return undefined
    const end = line.indexOf(quote, equals + 2)
    if (end < 0) return undefined
    data += `+${line.slice(at + 1, equals + 1)}${line.slice(equals + 2, end)}\0`
    at = end + 1
  }
  return data
}

/** `1.2.3.37-53` is seventeen addresses, `10.0.1-3.` three prefixes, `10.0.5-3.` none. Host names and idents (`user@1.2.3.4`, `=.example.org`) have no ranges. */
function expand(address: string): readonly string[] | undefined {
  const hyphen = address.indexOf('-')
  if (hyphen < 0 || /[=@]/.test(address)) return [address]
  const left = address.lastIndexOf('.', hyphen) + 1
  const dot = address.indexOf('.', hyphen)
  const right = dot < 0 ? address.length : dot
  const low = numberOf(address.slice(left, hyphen))
  const high = numberOf(address.slice(hyphen + 1, right))
  if (low === undefined || high === undefined) return undefined
  const last = high > 255n ? 255n : high
  const keys: string[] = []
  for (let number = low; number <= last; number++) {
    keys.push(`${address.slice(0, left)}${number}${address.slice(right)}`)
  }
  return keys
}

/** As scan_ulong reads it: up to a NUL, no digits are 0, and 64 bits are kept. */
function numberOf(text: string): bigint | undefined {
  const [digits = ''] = text.split('\0')
  if (!/^\d*$/.test(digits)) return undefined
  let number = 0n
  for (const digit of digits) number = BigInt.asUintN(64, number * 10n + BigInt(digit))
  return number
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
