/**
 * Names of message files in a Maildir, as maildir(5) has them. Names hold one character per octet.
 */

/** The part of a file name that never changes, up to the first `:`. qmail-pop3d's unique-id. */
export function baseNameOf(name: string): string {
  const colon = name.indexOf(':')
  return colon < 0 ? name : name.slice(0, colon)
}

/** True for a valid unique-id: 1 to 70 characters from 0x21 to 0x7E (RFC 1939 §7). */
export const isUniqueId = (text: string): boolean => /^[\x21-\x7e]{1,70}$/.test(text)
