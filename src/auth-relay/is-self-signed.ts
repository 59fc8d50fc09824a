import type { X509Certificate } from 'node:crypto'

/**
 * True if a certificate vouches for itself. `checkIssued` alone does not say so: it asks whether
 * the key may sign certificates, which a server's
 * own may not.
 */
export const isSelfSigned = (certificate: X509Certificate): boolean =>
  certificate.issuer === certificate.subject && certificate.verify(certificate.publicKey)
