/** Requests for certificates: PKCS #10 (RFC 2986), in PEM form. */

import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { existsSync } from 'node:fs'
import { isIP } from 'node:net'
import forge from 'node-forge'
import { messageOf, UsageFault } from '../base/errors.ts'
import { pemFile } from './certificates.ts'
import { writePrivateFile } from './secrets.ts'
import { printable } from './text/terminal.ts'

/**
 * A request in PEM. The key is read or made (RSA 2048, mode 0600), because node-forge signs with
 * RSA only.
 * @throws UsageFault if a name is none, or if the key cannot be used.
 */
export function certificateRequest(names: readonly string[], keyFile: string): string {
  for (const name of names) {
    if (isIP(name) === 0 && !/^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/i.test(name)) {
      throw new UsageFault(
        `${printable(name)} is neither a host name nor an address: write pop.example.org or 192.0.2.7`,
      )
    }
  }
  const privateKey = forge.pki.privateKeyFromPem(keyFor(keyFile).export({ type: 'pkcs1', format: 'pem' }).toString())
  const request = forge.pki.createCertificationRequest()
  request.publicKey = forge.pki.setRsaPublicKey(privateKey.n, privateKey.e)
  request.setSubject([{ name: 'commonName', value: names[0] ?? '' }])
  const altNames = names.map(name => (isIP(name) === 0 ? { type: 2, value: name } : { type: 7, ip: name }))
  request.setAttributes([{ name: 'extensionRequest', extensions: [{ name: 'subjectAltName', altNames }] }])
  request.sign(privateKey, forge.md.sha256.create())
  return forge.pki.certificationRequestToPem(request).replaceAll('\r\n', '\n')
}

/** @throws UsageFault if the key cannot be made, cannot be read, or is of another kind. */
function keyFor(file: string): KeyObject {
  if (!existsSync(file)) {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    try {
      writePrivateFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
    } catch (error) {
      throw new UsageFault(
        `cannot write ${file}: ${messageOf(error)}: start as root, or name another file with --key`,
        error,
      )
    }
    return privateKey
  }
  let key: KeyObject
  const octets = pemFile(file)
  try {
    key = createPrivateKey(octets)
  } catch (error) {
    throw new UsageFault(
      `${file} does not contain a private key in PEM form: ${messageOf(error)}: name another file with --key`,
      error,
    )
  }
  if (key.asymmetricKeyType !== 'rsa') {
    throw new UsageFault(`${file} is not an RSA key: name another file with --key; a missing file is made`)
  }
  return key
}
