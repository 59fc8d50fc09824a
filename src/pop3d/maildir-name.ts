/** Sizes that a delivery agent wrote into a file name (Maildir++): `,S=` file octets, `,W=` octets with CRLF line ends. */
export interface NamedSizes {
  readonly file: number
  readonly wire: number | undefined
}

/**
 * The part of a file name below new/ or cur/ that never changes: up to the first `:`. qmail-pop3d's UIDL text
 * (spec/pop3d.md §2), so that no client downloads twice after a migration. Names hold one character per octet.
 */
export function baseNameOf(name: string): string {
  const colon = name.indexOf(':')
  return colon < 0 ? name : name.slice(0, colon)
}

/** What the name says about the sizes; undefined without `,S=`. */
export function namedSizes(name: string): NamedSizes | undefined {
  const base = baseNameOf(name)
  const file = /,S=([0-9]{1,15})(?=,|$)/.exec(base)?.[1]
  if (file === undefined) return undefined
  const wire = /,W=([0-9]{1,15})(?=,|$)/.exec(base)?.[1]
  return { file: Number(file), wire: wire === undefined ? undefined : Number(wire) }
}

/** The name a message of new/ gets in cur/ at QUIT: with flags, none set; a name that has flags already keeps them. */
export const seenName = (name: string, compat: 'none' | 'qmail'): string =>
  compat === 'none' && name.includes(':') ? name : `${name}:2,`
