/**
 * The absolute path of a maildir: as named, below the home if relative, or the default below the home if none is named.
 * Understands Dovecot's `maildir:~/Mail:INDEX=…`. Undefined if no absolute path comes of it.
 */
export function maildirPath(named: string, home: string, fallback: string): string | undefined {
  const plain = named.startsWith('maildir:') ? (named.slice('maildir:'.length).split(':')[0] ?? '') : named
  const chosen = plain === '' ? fallback : plain.replace(/^~(?=\/|$)/, home)
  const path = chosen.startsWith('/') ? chosen : `${home}/${chosen}`
  return path.startsWith('/') && !path.includes('\0') ? path : undefined
}
