/**
 * True if an envelope sender belongs to the login that opened the address: the login is the whole
 * address, or the local part of one in a
 * domain of ours (any domain, if none is listed). `ann+list@…` and `ann-list@…` are ann's, as qmail
 * and Postfix deliver them. The null sender is
 * everybody's: bounces and receipts have it.
 */
export function senderBelongsTo(login: string, sender: string, domains: readonly string[]): boolean {
  if (sender === '') return true
  const name = partsOf(login)
  const from = partsOf(sender)
  if (from.domain === '') return false
  if (name.domain !== '') return sameUser(name.local, from.local) && name.domain === from.domain
  return (
    sameUser(name.local, from.local) && (domains.length === 0 || domains.some(d => d.toLowerCase() === from.domain))
  )
}

/** vpopmail also takes `%` and `/` between name and domain. */
function partsOf(address: string): { readonly local: string; readonly domain: string } {
  const { local, domain } = /^(?<local>.*)[@%/](?<domain>[^@%/]*)$/s.exec(address)?.groups ?? {}
  return local === undefined || domain === undefined
    ? { local: address.toLowerCase(), domain: '' }
    : { local: local.toLowerCase(), domain: domain.toLowerCase() }
}

const sameUser = (login: string, local: string): boolean =>
  local === login || (local.startsWith(login) && /^[+-]/.test(local.slice(login.length)))
