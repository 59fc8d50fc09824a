/**
 * The absolute path of a maildir: as named, below the home if relative, or the default below the home if none is named.
 * Understands Dovecot's `maildir:~/Mail:INDEX=…`. Undefined if no absolute path comes of it.
 */
export function maildirPath(named: string, home: string, fallback: string): string | undefined {
  const plain = named.startsWith('maildir:') ? (named.slice('maildir:'.length).split(':')[0] ?? '') : named
  const chosen = plain === '' ? fallback : plain.replace(/^~(?=\/|$)/, home)
  if (chosen.includes('\0')) return undefined
  if (chosen.startsWith('/')) return chosen
  // Without a home a relative name would mean the root directory.
  return home.startsWith('/') ? `${home.replace(/\/+$/, '')}/${chosen}` : undefined
}
