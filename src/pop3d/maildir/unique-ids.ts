import { createHash } from 'node:crypto'
import { baseNameOf, isUniqueId } from '../../wire/message-name.ts'
import type { Message } from './message.ts'

const hashOf = (octets: string): string => createHash('sha256').update(octets, 'latin1').digest('hex')

/**
 * The unique ids of the messages, in their order: the base name where that is a legal unique id, else its SHA-256. Of
 * several messages with the same base name the oldest keeps it, and each of the others gets a hash
 * of base name and time.
 * All of this outlives a rename, so that a change of flags and the move from new/ to cur/ change no id.
 *
 * With `compat` qmail: the base name whatever its length and octets, also where two are alike. Only
 * a line end in a name is
 * hashed, because it would break the reply.
 */
export function uniqueIds(messages: readonly Message[], compat: 'none' | 'qmail'): readonly string[] {
  if (compat === 'qmail') {
    return messages.map(({ name }) => {
      const base = baseNameOf(name)
      return /[\r\n]/.test(base) ? hashOf(base) : base
    })
  }
  const ids = messages.map(({ name }) => {
    const base = baseNameOf(name)
    return isUniqueId(base) ? base : hashOf(base)
  })
  const taken = new Set(ids)
  if (taken.size === ids.length) return ids
  for (const twins of Map.groupBy(ids.keys(), index => ids[index]).values()) {
    const oldestFirst = twins.toSorted((a, b) => byAge(messages[a], messages[b]))
    for (const index of oldestFirst.slice(1)) {
      const message = messages[index]
      if (message === undefined) continue
      const dated = hashOf(`${baseNameOf(message.name)}/${message.mtime}`)
      // Twins of the same second: only the inode tells them apart.
      const id = taken.has(dated) ? hashOf(`${baseNameOf(message.name)}/${message.mtime}/${message.inode}`) : dated
      taken.add(id)
      ids[index] = id
    }
  }
  return ids
}

const byAge = (a: Message | undefined, b: Message | undefined): number =>
  a === undefined || b === undefined ? 0 : a.mtime - b.mtime || a.inode - b.inode
