/** A number at the beginning of an argument, and what follows it. */
export interface LeadingNumber {
  readonly value: number
  readonly rest: string
}

/**
 * Reads leading decimal digits and ignores what follows, as qmail's scan_ulong does (`2x` is 2); undefined without a
 * digit. Values beyond 2^31-1 become exactly that: larger than any message number, instead of wrapping as in C
 * (spec/pop3d.md §3).
 */
export function parseLeadingNumber(text: string): LeadingNumber | undefined {
  const digits = /^[0-9]+/.exec(text)?.[0]
  if (digits === undefined) return undefined
  return { value: Math.min(Number(digits), 2 ** 31 - 1), rest: text.slice(digits.length) }
}
