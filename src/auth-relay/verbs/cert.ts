import { createPrivateKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { resolve } from 'node:path'
import forge from 'node-forge'
import { describeDenial, isAccessDenied, messageOf, UsageFault } from '../../base/errors.ts'
import { formatDuration } from '../../settings/duration.ts'
import { loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { isSelfSigned } from '../certificates.ts'
import { writePrivateFile } from '../secrets.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/terminal.ts'
import { type Verb, withConfigOption } from '../verb.ts'

/** `auth-relay cert`: shows the certificates, checks them, and makes a request for a new one. */
export const cert: Verb = (program, { environment, print }, choose) => {
  withConfigOption(program.command('cert'))
    .description('show and check the certificates of sslwrap, or make a request for a real one')
    .option('--csr <names...>', 'print a certificate request (PKCS #10, PEM) for these names')
    .option('--key <file>', 'with --csr: RSA key to use; made if missing. Without it sslwrap.key')
    .option('--json', 'print one JSON object a line')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay cert
  auth-relay cert --csr pop.example.org mail.example.org > request.pem

Put the answer of the authority into sslwrap.cert. sslwrap reads the file again after
each change and at SIGHUP.
Exit status 1 if a certificate is missing, has ended, or is not that of its key.`,
    )
    .action((options: Options) => {
      choose({
        type: 'command',
        run: async () => {
          const { sslwrap } = loadSettingsFile(resolve(options.config), environment).settings
          if (options.csr !== undefined) {
            print(certificateRequest(options.csr, resolve(options.key ?? sslwrap.key)))
            return 0
          }
          let isGood = true
          for (const { cert, key = cert } of certificatesOf(sslwrap)) {
            if (!existsSync(cert)) {
              const result = cert === sslwrap.cert ? 'makes a self-signed one at its first start' : 'will not start'
              const fault = `There is no ${cert}: sslwrap ${result}.`
              print(options.json === true ? `${JSON.stringify({ file: cert, key, fault })}\n` : `${fault}\n`)
              isGood = false
              continue
            }
            const facts = factsOf(cert, key)
            print(options.json === true ? `${JSON.stringify(facts)}\n` : formatFacts(facts))
            isGood &&= facts.daysLeft >= 0 && facts.keyFits
          }
          return isGood ? 0 : 1
        },
      })
    })
}

type Options = { config: string; csr?: string[]; key?: string; json?: true }

type Facts = {
  readonly file: string
  readonly key: string
  readonly keyFits: boolean
  readonly names: string
  readonly issuer: string
  readonly selfSigned: boolean
  readonly from: string
  readonly until: string
  readonly daysLeft: number
  readonly sha256: string
}

/** Every pair that sslwrap uses, each once. */
function certificatesOf({ cert, key, listener, certificate }: Settings['sslwrap']): readonly CertificateFiles[] {
  const own = listener.flatMap(({ cert, key }) => (cert === undefined ? [] : [{ cert, key }]))
  const common = listener.length > 0 && own.length === listener.length ? [] : [{ cert, key }]
  const pairs = [...common, ...own, ...certificate].map(pair => [`${pair.cert}\0${pair.key}`, pair] as const)
  return [...new Map(pairs).values()]
}

type CertificateFiles = { readonly cert: string; readonly key?: string | undefined }

function factsOf(file: string, key: string): Facts {
  let certificate: X509Certificate
  const octets = contentOf(file)
  try {
    certificate = new X509Certificate(octets)
  } catch (error) {
    throw new UsageFault(`${file} does not contain a certificate in PEM form: ${messageOf(error)}`, error)
  }
  return {
    file,
    key,
    keyFits: isKeyOf(certificate, key),
    names: certificate.subjectAltName ?? certificate.subject.replaceAll('\n', ', '),
    issuer: certificate.issuer.replaceAll('\n', ', '),
    selfSigned: isSelfSigned(certificate),
    from: certificate.validFromDate.toISOString(),
    until: certificate.validToDate.toISOString(),
    daysLeft: Math.floor((certificate.validToDate.getTime() - Date.now()) / 86_400_000),
    sha256: certificate.fingerprint256,
  }
}

/** @throws UsageFault if the key is missing or cannot be used. */
function isKeyOf(certificate: X509Certificate, file: string): boolean {
  const octets = contentOf(file)
  try {
    return certificate.checkPrivateKey(createPrivateKey(octets))
  } catch (error) {
    throw new UsageFault(`${file} does not contain a private key in PEM form: ${messageOf(error)}`, error)
  }
}

/** @throws UsageFault if this account cannot read the file. */
function contentOf(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    const remedy = isAccessDenied(error) ? describeDenial(file) : messageOf(error)
    throw new UsageFault(`cannot read ${file}: ${remedy}`, error)
  }
}

function formatFacts({ file, key, keyFits, names, issuer, selfSigned, from, until, sha256 }: Facts): string {
  const left = (Date.parse(until) - Date.now()) / 1000
  return `${file}
  names   ${printable(names)}
  issuer  ${selfSigned ? 'itself: clients show a warning; see auth-relay cert --help for a real one' : printable(issuer)}
  valid   ${formatMoment(new Date(from))} to ${formatMoment(new Date(until))} (${left > 0 ? `${formatDuration(left)} left` : 'ended'})
  key     ${key} ${keyFits ? 'belongs to the certificate' : 'DOES NOT BELONG TO THE CERTIFICATE: name the pair that belongs together'}
  sha256  ${sha256}
`
}

/**
 * A request in PEM. The key is read or made (RSA 2048, mode 0600), because node-forge signs with
 * RSA only.
 */
function certificateRequest(names: readonly string[], keyFile: string): string {
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
  const octets = contentOf(file)
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
