/** What /etc/shadow says of an account (shadow(5)); times in days since 1970, undefined where there is none. */
export type ShadowEntry = {
  readonly hash: string
  /** The password, unchanged for so long after its end, is no longer taken. */
  readonly passwordEnds: number | undefined
  readonly accountEnds: number | undefined
}

/** Finds an account's line; undefined if there is none. */
export function shadowEntryOf(text: string, name: string): ShadowEntry | undefined {
  if (name === '' || name.includes(':')) return undefined
  const line = text.split('\n').find(candidate => candidate.startsWith(`${name}:`))
  if (line === undefined) return undefined
  const [, hash = '', changed, , longest, , inactive, ends] = line.split(':')
  const day = (field: string | undefined): number | undefined =>
    field !== undefined && /^\d+$/.test(field) ? Number(field) : undefined
  const [last, max, grace] = [day(changed), day(longest), day(inactive)]
  return {
    hash,
    passwordEnds: last === undefined || max === undefined || grace === undefined ? undefined : last + max + grace,
    accountEnds: day(ends),
  }
}

/** True if neither the account nor its password has ended. `today` in days since 1970. */
export const isValidOn = ({ passwordEnds, accountEnds }: ShadowEntry, today: number): boolean =>
  (passwordEnds === undefined || today <= passwordEnds) && (accountEnds === undefined || today < accountEnds)
