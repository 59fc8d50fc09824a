/** The name a message of new/ gets in cur/ at QUIT: with flags, none set; a name that has flags already keeps them. */
export const seenName = (name: string, compat: 'none' | 'qmail'): string =>
  compat === 'none' && name.includes(':') ? name : `${name}:2,`

/** Whether the name has the flag T: Maildir++ does not count such a message against the quota. */
export const isTrashed = (name: string): boolean => /:2,[^:]*T/.test(name)
