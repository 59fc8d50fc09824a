/** Self-signed certificates for hosts that have none. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { chownSync, linkSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { dirname } from 'node:path'
import forge from 'node-forge'
import { errorCodeOf } from '../base/errors.ts'

export type SelfSignedOptions = {
  /** Host names and IP addresses. The first one is the common name. */
  readonly names: readonly string[]
  /** Milliseconds since 1970. */
  readonly now: number
  /** Days of validity. At most 825, the longest lifetime that clients accept. Default: 825. */
  readonly days?: number
}

const DAY_MS = 86_400_000

/** Makes a certificate: RSA 2048, for TLS servers only, not a CA. Returns PEM texts. */
export function makeSelfSigned({ names, now, days = 825 }: SelfSignedOptions): {
  readonly cert: string
  readonly key: string
} {
  const [commonName] = names
  if (commonName === undefined) throw new TypeError('a certificate needs a name')
  if (!(days > 0 && days <= 825)) throw new RangeError('a certificate may live 1 to 825 days')
  // The runtime makes the key in 0.1 s; node-forge would take several seconds.
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  })
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = forge.pki.publicKeyFromPem(publicKey)
  // A positive number of 16 octets (RFC 5280 §4.1.2.2).
  certificate.serialNumber = `01${randomBytes(15).toString('hex')}`
  // The certificate is valid from one day ago, because clients' clocks are wrong by minutes.
  certificate.validity.notBefore = new Date(now - DAY_MS)
  certificate.validity.notAfter = new Date(now + (days - 1) * DAY_MS)
  const subject = [{ name: 'commonName', value: commonName.slice(0, 64) }]
  certificate.setSubject(subject)
  certificate.setIssuer(subject)
  certificate.setExtensions([
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
    { name: 'extKeyUsage', serverAuth: true },
    {
      name: 'subjectAltName',
      altNames: names.map(name => (isIP(name) === 0 ? { type: 2, value: name } : { type: 7, ip: name })),
    },
    { name: 'subjectKeyIdentifier' },
  ])
  certificate.sign(forge.pki.privateKeyFromPem(privateKey), forge.md.sha256.create())
  return { cert: forge.pki.certificateToPem(certificate).replaceAll('\r\n', '\n'), key: privateKey }
}

/**
 * Makes a certificate, and writes the key (mode 0600), then the certificate (mode 0644). `owner`:
 * the account that reads them, if it is another one. A file appears complete or not at all. An
 * existing file stays as it is, so the caller first checks that both are missing. Returns true if
 * both files were written.
 */
export function writeSelfSigned(
  files: { readonly cert: string; readonly key: string },
  options: SelfSignedOptions,
  owner?: { readonly uid: number; readonly gid: number },
): boolean {
  const made = makeSelfSigned(options)
  const put = (path: string, text: string, mode: number): boolean => {
    mkdirSync(dirname(path), { recursive: true })
    const temporary = `${path}.${randomBytes(6).toString('hex')}`
    writeFileSync(temporary, text, { mode, flag: 'wx' })
    try {
      if (owner !== undefined) chownSync(temporary, owner.uid, owner.gid)
      linkSync(temporary, path)
      return true
    } catch (error) {
      // Another process has just written a file. Keep that file.
      if (errorCodeOf(error) === 'EEXIST') return false
      throw error
    } finally {
      rmSync(temporary, { force: true })
    }
  }
  return put(files.key, made.key, 0o600) && put(files.cert, made.cert, 0o644)
}
