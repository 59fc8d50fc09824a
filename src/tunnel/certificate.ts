/** Certificate files: reading, checking and watching them. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs'
import { messageOf } from '../base/errors.ts'

/**
 * A certificate chain and its key, read and checked. Plain data that can be sent over a control
 * channel.
 */
export type Certificate = {
  /** PEM, with the server's own certificate first. */
  readonly cert: string
  readonly key: string
  readonly keyType: 'rsa' | 'ec' | 'ed25519'
  /** DNS names of the certificate in lower case, a wildcard as `*.example.org`. */
  readonly names: readonly string[]
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly expires: number
  /** Path of the certificate file, for messages. */
  readonly path: string
}

/** Paths of the PEM files. Without `key`, the certificate's file also contains the key. */
export type CertificateFiles = { readonly cert: string; readonly key?: string | undefined }

/** The files cannot be used. The message names the file and the remedy. */
export class CertificateUnusable extends Error {
  override readonly name = 'CertificateUnusable'
  readonly path: string

  constructor(path: string, why: string, cause?: unknown) {
    super(`${path}: ${why}`, { cause })
    this.path = path
  }
}

/**
 * Reads a chain and its key. Checks that they belong together and that other accounts cannot read
 * the key. An expired certificate is accepted, because clients decide about expiry, and ending the
 * service would not help them.
 * @throws CertificateUnusable
 */
export function readCertificate(files: CertificateFiles): Certificate {
  const keyPath = files.key ?? files.cert
  const cert = readText(files.cert, false)
  return parseCertificate(cert, readText(keyPath, true), files.cert, keyPath)
}

/** Checks texts that were already read; otherwise like readCertificate. */
export function parseCertificate(cert: string, keyText: string, path: string, keyPath: string = path): Certificate {
  const leaf = parse(path, 'holds no certificate in PEM form', () => new X509Certificate(cert))
  const key = parse(keyPath, 'holds no private key in PEM form without a passphrase', () => createPrivateKey(keyText))
  if (!leaf.checkPrivateKey(key)) {
    throw new CertificateUnusable(
      keyPath,
      `the key does not belong to the first certificate in ${path}: put the server's own certificate first, or name the right key`,
    )
  }
  const keyType = key.asymmetricKeyType
  if (keyType !== 'rsa' && keyType !== 'ec' && keyType !== 'ed25519') {
    throw new CertificateUnusable(keyPath, `keys of type ${keyType} are not supported: use RSA or ECDSA`)
  }
  return {
    cert,
    key: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    keyType,
    names: namesOf(leaf),
    notBefore: Date.parse(leaf.validFrom),
    expires: Date.parse(leaf.validTo),
    path,
  }
}

/** Whole days until the certificate expires; negative after it has expired. */
export const daysLeft = ({ expires }: Certificate, now: number): number => Math.floor((expires - now) / 86_400_000)

/**
 * True if the certificate covers the name, exactly or by one leading wildcard label (RFC 6125
 * §6.4.3).
 */
export function coversName(names: readonly string[], servername: string): boolean {
  const wildcard = servername.replace(/^[^.]+/, '*')
  return names.some(name => name === servername || name === wildcard)
}

/** DNS names of the subject alternative names. The common name counts only if there are none. */
function namesOf(certificate: X509Certificate): readonly string[] {
  const alternative = certificate.subjectAltName
  if (alternative === undefined) {
    const commonName = /^CN=(.+)$/m.exec(certificate.subject)?.[1]
    return commonName === undefined ? [] : [commonName.toLowerCase()]
  }
  return [...alternative.matchAll(/(?:^|, )DNS:([^,"]+)/g)].map(([, name = '']) => name.toLowerCase())
}

/**
 * Checks the mode of the open descriptor, because a symbolic link (certbot's `live/`) may change
 * between a check of the path and the read.
 */
function readText(path: string, isSecret: boolean): string {
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    if (isSecret && (fstatSync(fd).mode & 0o007) !== 0) {
      throw new CertificateUnusable(path, `the private key is open to every user of this host: chmod o-rwx ${path}`)
    }
    return readFileSync(fd, 'utf8')
  } catch (error) {
    if (error instanceof CertificateUnusable) throw error
    throw new CertificateUnusable(path, `cannot be read: ${messageOf(error)}`, error)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function parse<T>(path: string, why: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw new CertificateUnusable(path, why, error)
  }
}

/** Time between two checks of the files. */
const CHECK_INTERVAL_MS = 5_000

/**
 * Calls `changed` after a file was replaced or its content changed, when the files have stayed the
 * same for one interval. So a certificate and its key are read as a pair. The function polls,
 * because certbot changes a symbolic link in the path and inotify does not report that. Returns a
 * function that stops the watch. `interval`: milliseconds.
 */
export function watchFiles(files: readonly string[], changed: () => void, interval = CHECK_INTERVAL_MS): () => void {
  let known = stateOf(files)
  let seen = known
  const timer = setInterval(() => {
    const now = stateOf(files)
    const isStable = now === seen
    seen = now
    if (isStable && now !== known) {
      known = now
      changed()
    }
  }, interval)
  return () => clearInterval(timer)
}

const stateOf = (files: readonly string[]): string =>
  files
    .map(file => {
      try {
        const status = statSync(file, { bigint: true })
        return `${status.dev}:${status.ino}:${status.size}:${status.mtimeNs}:${status.mode}`
      } catch (error) {
        return messageOf(error) // The file is missing, or this account may not enter its directory.
      }
    })
    .join()
