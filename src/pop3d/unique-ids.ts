import { createHash } from 'node:crypto'
import { baseNameOf } from './maildir-name.ts'
import type { Message } from './message.ts'

const hashOf = (octets: string): string => createHash('sha256').update(octets, 'latin1').digest('hex')

// RFC 1939 §7: 1 to 70 characters from 0x21 to 0x7E.
const isUniqueId = (text: string): boolean => /^[\x21-\x7e]{1,70}$/.test(text)

/**
 * The unique-ids of the messages, in their order: qmail's wherever that is a legal and unique one, else the SHA-256 of
 * the base name, which outlives the move from new/ to cur/. Of two messages with the same id the second gets the hash of
 * its full name (spec/pop3d.md §2).
 */
export function uniqueIds(messages: readonly Message[]): readonly string[] {
  const taken = new Set<string>()
  return messages.map(({ folder, name }) => {
    const base = baseNameOf(name)
    let id = isUniqueId(base) ? base : hashOf(base)
    if (taken.has(id)) id = hashOf(name)
    // The same full name in new/ and in cur/: only the folder tells them apart.
    if (taken.has(id)) id = hashOf(`${folder}/${name}`)
    taken.add(id)
    return id
  })
}
