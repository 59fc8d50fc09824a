/** One message of a maildrop, as the scan found it. */
export interface Message {
  /** Which folder held it at the scan. */
  readonly folder: 'new' | 'cur'
  /** File name below the folder, one character per octet (latin1). */
  readonly name: string
  /** Octets of the file. */
  readonly fileOctets: number
  /** Modification time in whole seconds: the order of the maildrop. */
  readonly mtime: number
}

/** spec/pop3d.md §2: by time, then by the octets of the name, then new before cur. Any order of ties is qmail's. */
export function inMaildropOrder(a: Message, b: Message): number {
  if (a.mtime !== b.mtime) return a.mtime - b.mtime
  if (a.name !== b.name) return a.name < b.name ? -1 : 1
  return a.folder === b.folder ? 0 : a.folder === 'new' ? -1 : 1
}
