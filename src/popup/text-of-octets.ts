/**
 * The text that octets (one character each) stand for: UTF-8 if they are, else each octet is the character of its
 * number. Names in files and databases are texts; the wire has octets.
 */
export function textOfOctets(octets: string): string {
  if (!/[\x80-\xff]/.test(octets)) return octets
  const bytes = Buffer.from(octets, 'latin1')
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes) ? text : octets
}
