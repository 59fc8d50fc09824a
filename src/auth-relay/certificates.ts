/** The certificates that TLS listeners show, as a client on this host gets them. */

import type { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect } from 'node:tls'
import { denialOf, isAccessDenied, messageOf, UsageFault } from '../base/errors.ts'
import { formatSocketAddress, type SocketAddress } from '../process/socket-address.ts'
import type { Settings } from '../settings/settings.ts'
import { type PartsInUse, partsInUseHere } from './stack/plan.ts'

/** The certificate that a TLS address shows to its clients, or the reason why there is none. */
export type ShownCertificate = {
  readonly address: string
  readonly found:
    | { readonly names: string; readonly isSelfSigned: boolean; readonly until: Date }
    | { readonly fault: string }
}

const TIMEOUT_MS = 5000
const USUAL: SocketAddress = { kind: 'tcp', host: '::', port: 995 }

/**
 * The TLS addresses of popup and sslwrap that answer every client. Listeners for old devices answer
 * listed networks alone.
 */
function tlsAddresses({ popup, sslwrap }: Pick<Settings, 'popup' | 'sslwrap'>): readonly SocketAddress[] {
  const listeners = sslwrap.listener.filter(({ tls }) => tls !== 'old').map(({ listen }) => listen)
  if (sslwrap.listener.length > 0 || popup.tls_listen.length > 0) return [...popup.tls_listen, ...listeners]
  return [USUAL]
}

/** The certificates of the TLS listeners in use on this host. Empty without such a listener. */
export async function shownCertificates(
  settings: Settings,
  parts: Pick<PartsInUse, 'sslwrap'> = partsInUseHere(settings),
): Promise<readonly ShownCertificate[]> {
  if (!parts.sslwrap && settings.popup.tls_listen.length === 0) return []
  return Promise.all(tlsAddresses(settings).map(probeCertificate))
}

/**
 * Reads a certificate as a client of this host does, because the file may be newer than the
 * certificate in use, or unreadable for this account.
 */
function probeCertificate(address: SocketAddress): Promise<ShownCertificate> {
  const text = formatSocketAddress(address)
  return new Promise(resolve => {
    const done = (found: ShownCertificate['found']): void => {
      socket.destroy()
      resolve({ address: text, found })
    }
    // The probe reads any certificate, valid or not, and sends nothing.
    const socket = connect({ ...endpoint(address), rejectUnauthorized: false, timeout: TIMEOUT_MS }, () => {
      const certificate = socket.getPeerX509Certificate()
      if (certificate === undefined) return done({ fault: 'it shows no certificate' })
      done({
        names: namesOf(certificate.subjectAltName ?? certificate.subject),
        isSelfSigned: isSelfSigned(certificate),
        until: certificate.validToDate,
      })
    })
    socket.once('timeout', () => done({ fault: `no answer within ${TIMEOUT_MS / 1000} s` }))
    socket.once('error', error => done({ fault: messageOf(error) }))
  })
}

/**
 * The address at which this host reaches a listener; a listener on every address is reached at a
 * loopback address.
 */
function endpoint(
  address: SocketAddress,
): { readonly host: string; readonly port: number } | { readonly path: string } {
  if (address.kind === 'unix') return { path: address.path }
  if (address.kind === 'descriptor') return { path: '/nonexistent' }
  const host = address.host === '::' ? 'localhost' : address.host === '0.0.0.0' ? '127.0.0.1' : address.host
  return { host, port: address.port }
}

const namesOf = (text: string): string => text.replaceAll(/\b(DNS|IP Address|CN)[:=]/g, '').replaceAll('\n', ', ')

/**
 * True if a certificate is signed with its own key. `checkIssued` is not enough, because it
 * requires a key that may sign certificates, and the key of a server may not.
 */
export const isSelfSigned = (certificate: X509Certificate): boolean =>
  certificate.issuer === certificate.subject && certificate.verify(certificate.publicKey)

/**
 * Content of a file with a certificate or a key.
 * @throws UsageFault if this account cannot read the file.
 */
export function pemFile(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    const { reason, remedy } = isAccessDenied(error)
      ? denialOf(file)
      : { reason: messageOf(error), remedy: 'name a file that exists' }
    throw new UsageFault({ fact: `cannot read ${file}: ${reason}`, remedy }, error)
  }
}
