import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import {
  CertificateUnusable,
  coversName,
  daysLeft,
  parseCertificate,
  readCertificate,
  watchFiles,
} from '../../../src/tunnel/certificate.ts'
import { makeSelfSigned, writeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const NOW = Date.UTC(2026, 0, 2)
const DAY = 86_400_000
const directory = temporaryDirectory()
afterAll(() => directory.remove())

const made = makeSelfSigned({ names: ['mx.example.org', '192.0.2.1', '2001:db8::1'], now: NOW })
const other = makeSelfSigned({ names: ['*.example.net', 'example.net'], now: NOW, days: 10 })

describe('a self-made certificate', () => {
  test('is RSA 2048, for its names and addresses, for a server, not a CA, and valid for at most 825 days', () => {
    const certificate = new X509Certificate(made.cert)
    expect(certificate.subjectAltName).toBe('DNS:mx.example.org, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1')
    expect(certificate.ca).toBe(false)
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1'])
    expect(certificate.publicKey.asymmetricKeyDetails?.modulusLength).toBe(2048)
    expect(certificate.verify(certificate.publicKey)).toBe(true)
    expect((Date.parse(certificate.validTo) - Date.parse(certificate.validFrom)) / DAY).toBe(825)
    expect(certificate.checkHost('mx.example.org')).toBe('mx.example.org')
    expect(certificate.checkIP('192.0.2.1')).toBe('192.0.2.1')
  })

  test('is written once, and only the owner can read its key', () => {
    const files = { cert: `${directory.path}/new/tls.crt`, key: `${directory.path}/new/tls.key` }
    expect(writeSelfSigned(files, { names: ['a.example'], now: NOW })).toBe(true)
    expect(statSync(files.key).mode & 0o777).toBe(0o600)
    const before = readFileSync(files.cert, 'utf8')
    expect(readCertificate(files).names).toEqual(['a.example'])
    expect(writeSelfSigned(files, { names: ['b.example'], now: NOW })).toBe(false)
    expect(readFileSync(files.cert, 'utf8')).toBe(before)
  })

  test('a time of more than 825 days throws', () => {
    expect(() => makeSelfSigned({ names: ['a.example'], now: NOW, days: 826 })).toThrow(RangeError)
    expect(() => makeSelfSigned({ names: [], now: NOW })).toThrow(TypeError)
  })
})

describe('checks', () => {
  test('names, key type and end of life', () => {
    const certificate = parseCertificate(other.cert, other.key, 'x')
    expect(certificate).toMatchObject({ keyType: 'rsa', names: ['*.example.net', 'example.net'] })
    expect(daysLeft(certificate, NOW)).toBe(9)
    expect(daysLeft(certificate, NOW + 10 * DAY)).toBe(-1)
  })

  test.each([
    ['the key of another certificate', made.cert, other.key, /does not belong/],
    ['no certificate', 'nonsense', made.key, /no certificate in PEM/],
    ['no key', made.cert, made.cert, /no private key/],
    [
      'a key with a passphrase',
      made.cert,
      generateKeyPairSync('ed25519', {
        privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-128-cbc', passphrase: 'x' },
        publicKeyEncoding: { type: 'spki', format: 'pem' },
      }).privateKey,
      /without a passphrase/,
    ],
  ])('%s is refused', (_, cert, key, message) => {
    expect(() => parseCertificate(cert, key, 'x')).toThrow(message)
  })

  test('a key that others can read is refused, and so is a missing file', () => {
    const path = `${directory.path}/both.pem`
    writeFileSync(path, made.cert + made.key)
    chmodSync(path, 0o644)
    expect(() => readCertificate({ cert: path })).toThrow(/chmod o-rwx/)
    chmodSync(path, 0o640)
    expect(readCertificate({ cert: path }).path).toBe(path)
    expect(existsSync(`${path}.none`)).toBe(false)
    expect(() => readCertificate({ cert: `${path}.none` })).toThrow(CertificateUnusable)
  })
})

test.each([
  ['mx.example.org', true],
  ['a.example.net', true],
  ['example.net', true],
  ['a.b.example.net', false],
  ['.example.net', false],
  ['example.org', false],
])('covers %s: %s', (name, covered) => {
  expect(coversName(['mx.example.org', '*.example.net', 'example.net'], name)).toBe(covered)
})

test('a watched file whose directory cannot be entered for a while is read when it is back', async () => {
  const [original, moved] = [`${directory.path}/watched`, `${directory.path}/away`]
  mkdirSync(original)
  writeFileSync(`${original}/tls.crt`, 'one')
  let changes = 0
  const stop = watchFiles([`${original}/tls.crt`], () => (changes += 1), 5)
  try {
    renameSync(original, moved)
    // A loop of links stands for a directory that the account may not enter.
    symlinkSync(original, original)
    await eventually('the file cannot be read', () => changes === 1)
    unlinkSync(original)
    renameSync(moved, original)
    await eventually('the file can be read again', () => changes === 2)
  } finally {
    stop()
  }
})
